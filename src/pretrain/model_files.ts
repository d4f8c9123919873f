// Writes what a training run leaves: the Hugging Face directory with bfloat16 weights, and the task files. Knows no ops.

import { join } from "node:path";
import type { TrainableModel } from "../../models/model.ts";
import { writeDirectory, writeJson, writeWeights } from "../checkpoint/directory.ts";
import { writeFileAtomically } from "../store/files.ts";
import { document } from "./corpus/corpus.ts";
import { taskDocuments, taskNames } from "./corpus/tasks.ts";
import { generationConfigJson, specialTokens, tokenizerConfigJson } from "./recipe.ts";
import { type TrainedTokenizer, tokenizerJson } from "./tokenizer_trainer.ts";

/** float32 rounded to the nearest bfloat16, ties to even. */
export function toBfloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(bits, (b) => (b + 0x7fff + ((b >>> 16) & 1)) >>> 16);
}

/** tokenizer.json and tokenizer_config.json as objects. */
export function tokenizerFiles(tokenizer: TrainedTokenizer) {
  return {
    definition: tokenizerJson(tokenizer, specialTokens[0]!) as Record<string, unknown>,
    config: tokenizerConfigJson(),
  };
}

/** Writes config.json, weights, tokenizer, generation settings and tasks; complete or not at all. */
export function writeModel(
  directory: string,
  model: TrainableModel,
  tokenizer: TrainedTokenizer,
  tasks: { readonly seed: number; readonly documents: number },
): void {
  const { params, config } = model;
  const weights = params.names().map((name) => ({
    name,
    dtype: "BF16" as const,
    shape: params.spec(name).shape,
    bytes: () => new Uint8Array(toBfloat16(params.read(name)).buffer),
  }));
  writeDirectory(directory, (temporary) => {
    writeJson(join(temporary, "config.json"), config.raw);
    writeWeights(temporary, weights);
    const files = tokenizerFiles(tokenizer);
    writeJson(join(temporary, "tokenizer.json"), files.definition);
    writeJson(join(temporary, "tokenizer_config.json"), files.config);
    writeJson(join(temporary, "generation_config.json"), generationConfigJson());
    writeTasks(join(temporary, "tasks"), tasks.seed, tasks.documents);
  });
}

/** tasks/{recall,local}/{search,report}.jsonl; no context is in two of the files. */
export function writeTasks(folder: string, seed: number, documents: number): void {
  const taken = new Set<string>();
  for (const task of taskNames) {
    ["search", "report"].forEach((part, i) => {
      const lines = taskDocuments(task, seed + 10 + i, documents, taken).map((entry) => `${JSON.stringify(entry)}\n`);
      writeFileAtomically(join(folder, task, `${part}.jsonl`), lines.join(""));
    });
  }
}

/** JSON Lines of generated documents ({"text": ...}), for conversion; another seed than the training's gives fresh ones. */
export function writeText(path: string, seed: number, documents: number): void {
  const lines = Array.from({ length: documents }, (_, i) => {
    const { given, learned } = document(seed, i);
    return `${JSON.stringify({ text: given === "" ? learned : `${given} ${learned}` })}\n`;
  });
  writeFileAtomically(path, lines.join(""));
}
