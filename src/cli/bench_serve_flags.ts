// The flags of graft bench serve and what they come to: lists of counts, objectives, lengths.
import { shapeNames } from "../../models/shapes.ts";
import { type Objectives, objectiveNames } from "../bench/serve/figures.ts";
import { DATA_DIR_FLAG, type Flags, UsageError } from "./config.ts";

const count = { type: "integer", min: 1, max: 1_000_000, value: "N", env: false } as const;

export const SERVE_BENCH_FLAGS = {
  url: { type: "string", value: "URL", help: "server to drive (default: start one with MODEL or --shape)", env: false },
  "api-key": { type: "string", value: "KEY", help: "key of that server" },
  shape: {
    type: "string",
    choices: shapeNames,
    value: "NAME",
    help: `serve a model with random weights: ${shapeNames.join(", ")}`,
    env: false,
  },
  model: {
    type: "string",
    value: "A,B,...",
    help: "names to ask for, taken in turns (default: the server's first)",
    env: false,
  },
  "num-prompts": { ...count, help: "requests of one run (default: 8 times the concurrency, at least 32)" },
  "max-concurrency": {
    type: "string",
    value: "N,N,...",
    help: "requests under way at once, one run for each (default: 8; with --request-rate the most, 256)",
    env: false,
  },
  "request-rate": {
    type: "number",
    min: 1e-3,
    max: 1e6,
    value: "R",
    help: "requests sent per second (default: as fast as the concurrency lets)",
    env: false,
  },
  burstiness: {
    type: "number",
    min: 1e-2,
    max: 1e6,
    default: 1,
    help: "of --request-rate: 1 = Poisson, less = bursts, much more = even gaps",
    env: false,
  },
  dataset: {
    type: "string",
    value: "FILE",
    help: 'JSON lines {"prompt": text or ids, "max_tokens"?: N} instead of random ids',
    env: false,
  },
  "random-input-len": { ...count, default: 512, help: "tokens of a prompt" },
  "random-output-len": { ...count, default: 64, help: "tokens of an answer" },
  "random-range-ratio": {
    type: "number",
    min: 0,
    max: 1,
    default: 0,
    help: "lengths are uniform in length * (1 - R) to length * (1 + R)",
    env: false,
  },
  "random-prefix-len": {
    type: "integer",
    min: 0,
    max: 1_000_000,
    default: 0,
    value: "N",
    help: "further tokens at the front that all prompts share",
    env: false,
  },
  "vocab-size": {
    ...count,
    help: "ids of random prompts lie below it (default: what a graft server says, else 32000)",
  },
  repeats: {
    type: "integer",
    min: 1,
    max: 1000,
    default: 1,
    help: "runs of each load, with other prompts",
    env: false,
  },
  warmup: {
    type: "integer",
    min: 0,
    max: 100_000,
    value: "N",
    help: "requests before a run that do not count (default: the concurrency, at most 64)",
    env: false,
  },
  seed: { type: "integer", min: 0, max: 2 ** 31, default: 1, help: "of prompts, lengths and times", env: false },
  temperature: { type: "number", min: 0, max: 100, default: 0, help: "of sampling", env: false },
  "ignore-eos": {
    type: "boolean",
    default: true,
    help: "answers have their full length (default; --no-ignore-eos)",
    env: false,
  },
  goodput: {
    type: "string",
    multiple: true,
    value: "NAME:MS",
    help: `count requests that keep a limit, e.g. ttft:200 (${objectiveNames.join(", ")}; itl = the longest gap)`,
    env: false,
  },
  output: { type: "string", short: "o", choices: ["md", "json", "csv"], default: "md", help: "format", env: false },
  save: { type: "string", value: "FILE", help: "also write every figure there as JSON", env: false },
  "data-dir": DATA_DIR_FLAG,
} as const;

export type ServeBenchFlags = Flags<typeof SERVE_BENCH_FLAGS>;

/** "ttft:200", several by flag or by comma. @throws UsageError */
export function objectivesIn(texts: readonly string[]): Objectives {
  const found: Record<string, number> = {};
  for (const text of texts.flatMap((one) => one.split(/[\s,]+/))) {
    const [name = "", limit = ""] = text.split(":");
    const milliseconds = Number(limit);
    if (!(objectiveNames as readonly string[]).includes(name) || limit === "" || !(milliseconds > 0)) {
      throw new UsageError(
        `Invalid value for --goodput: "${text}", expected NAME:MILLISECONDS with ${objectiveNames.join(" | ")}`,
      );
    }
    found[name] = milliseconds;
  }
  return found;
}
