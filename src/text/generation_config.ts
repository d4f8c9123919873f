// Reads generation_config.json: what a model's makers set for sampling and for ending a text.
// Knows the file only; who overrides what is the server's business.
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { type Json, readJson } from "./tokenizer_files.ts";

/** The fields in use. */
export interface GenerationConfig {
  /** Ids that end a text; empty where the file names none. */
  readonly eosIds: readonly number[];
  readonly bosId: number | null;
  /** null where the file is silent. */
  readonly doSample: boolean | null;
  readonly temperature: number | null;
  readonly topP: number | null;
  readonly topK: number | null;
  readonly minP: number | null;
  readonly maxNewTokens: number | null;
}

/** Where the file is absent every field is empty. @throws CheckpointError for a file whose values are of the wrong kind. */
export function loadGenerationConfig(directory: string): GenerationConfig {
  const json = readJson(join(directory, "generation_config.json")) ?? {};
  const eos = json.eos_token_id;
  const eosIds = eos === undefined || eos === null ? [] : Array.isArray(eos) ? eos : [eos];
  for (const id of eosIds) if (!isId(id)) wrong(directory, "eos_token_id", id);
  const bos = json.bos_token_id ?? null;
  if (bos !== null && !isId(bos)) wrong(directory, "bos_token_id", bos);
  const doSample = json.do_sample ?? null;
  if (doSample !== null && typeof doSample !== "boolean") wrong(directory, "do_sample", doSample);
  return {
    eosIds: eosIds as number[],
    bosId: bos as number | null,
    doSample: doSample as boolean | null,
    temperature: numberOf(json, "temperature", directory),
    topP: numberOf(json, "top_p", directory),
    topK: numberOf(json, "top_k", directory),
    minP: numberOf(json, "min_p", directory),
    maxNewTokens: numberOf(json, "max_new_tokens", directory),
  };
}

function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0;
}

function numberOf(json: Json, key: string, directory: string): number | null {
  const value = json[key] ?? null;
  if (value !== null && (typeof value !== "number" || !Number.isFinite(value) || value < 0))
    wrong(directory, key, value);
  return value as number | null;
}

function wrong(directory: string, key: string, value: unknown): never {
  throw new CheckpointError(`Cannot read "${directory}/generation_config.json": ${key} is ${JSON.stringify(value)}`);
}
