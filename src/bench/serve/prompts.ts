// What a load asks for: random prompts of given lengths, or the lines of a file; and when each request is sent. Everything
// follows from a seed.
import { readFileSync } from "node:fs";
import { RequestError } from "../../errors.ts";
import { CounterRandom, streamOf } from "../../tensor/random.ts";
import type { PlannedRequest } from "./request.ts";

/** Lengths of random prompts and answers. */
export interface RandomLengths {
  readonly input: number;
  readonly output: number;
  /** Lengths are uniform in length * (1 ± ratio). */
  readonly rangeRatio: number;
  /** Tokens at the front that all prompts of a load share, beyond `input`. */
  readonly prefix: number;
  readonly vocabSize: number;
}

/** Prompts of random ids; apart from the shared prefix no two of one seed, or of two seeds, begin alike. */
export function randomRequests(
  count: number,
  models: readonly string[],
  lengths: RandomLengths,
  seed: number,
): PlannedRequest[] {
  const { vocabSize, rangeRatio } = lengths;
  const prefix = randomIds(lengths.prefix, vocabSize, new CounterRandom(seed, streamOf("prefix")));
  const sizes = new CounterRandom(seed, streamOf("lengths"));
  const length = (mean: number, draw: number) =>
    Math.max(1, Math.round(mean * (1 + rangeRatio * (2 * sizes.uniform(draw) - 1))));
  return Array.from({ length: count }, (_, i) => ({
    model: models[i % models.length]!,
    prompt: [...prefix, ...randomIds(length(lengths.input, 2 * i), vocabSize, new CounterRandom(seed, i))],
    maxTokens: length(lengths.output, 2 * i + 1),
  }));
}

function randomIds(count: number, vocabSize: number, random: CounterRandom): number[] {
  return Array.from({ length: count }, (_, i) => Math.floor(random.uniform(i) * vocabSize));
}

/** One line of a dataset. */
export interface DatasetPrompt {
  readonly prompt: string | readonly number[];
  readonly maxTokens: number | null;
}

/**
 * Reads JSON lines `{"prompt": text or ids, "max_tokens"?: N}`.
 * @throws RequestError naming the line
 */
export function readDataset(path: string): DatasetPrompt[] {
  const lines = readFileSync(path, "utf8").split("\n");
  const prompts = lines.flatMap((line, i) => (line.trim() === "" ? [] : [datasetPrompt(line, `${path}:${i + 1}`)]));
  if (prompts.length === 0) throw new RequestError("invalid_dataset", `Cannot use "${path}": it holds no prompt`);
  return prompts;
}

function datasetPrompt(line: string, place: string): DatasetPrompt {
  const fail = (why: string): never => {
    throw new RequestError("invalid_dataset", `Cannot read ${place}: ${why}`);
  };
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    fail("it is no JSON");
  }
  const { prompt, max_tokens: maxTokens } = (typeof value === "object" && value !== null ? value : {}) as Record<
    string,
    unknown
  >;
  const isIds = Array.isArray(prompt) && prompt.length > 0 && prompt.every((id) => Number.isSafeInteger(id));
  if (!isIds && (typeof prompt !== "string" || prompt === "")) fail('"prompt" is neither a text nor a list of ids');
  const isCount = Number.isSafeInteger(maxTokens) && (maxTokens as number) > 0;
  if (maxTokens !== undefined && !isCount) fail('"max_tokens" is no positive whole number');
  return { prompt: prompt as string | number[], maxTokens: isCount ? (maxTokens as number) : null };
}

/** Takes `count` lines in an order that the seed gives, from the front again where the file ends. */
export function datasetRequests(
  count: number,
  models: readonly string[],
  dataset: readonly DatasetPrompt[],
  output: number,
  seed: number,
): PlannedRequest[] {
  const random = new CounterRandom(seed, streamOf("order"));
  const order = dataset.map((_, i) => i);
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random.uniform(i) * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return Array.from({ length: count }, (_, i) => {
    const { prompt, maxTokens } = dataset[order[i % order.length]!]!;
    return { model: models[i % models.length]!, prompt, maxTokens: maxTokens ?? output };
  });
}

/**
 * Seconds after the start at which each request is sent: gaps of a gamma distribution whose mean is 1/rate.
 * Burstiness 1 is a Poisson process, below it requests come in bursts, above it more evenly.
 */
export function arrivals(count: number, rate: number, burstiness: number, seed: number): number[] {
  if (rate === Number.POSITIVE_INFINITY) return new Array<number>(count).fill(0);
  const gamma = gammaSource(burstiness, new CounterRandom(seed, streamOf("arrivals")));
  let at = 0;
  return Array.from({ length: count }, (_, i) => {
    if (i > 0) at += gamma() / (rate * burstiness);
    return at;
  });
}

/** Draws from the gamma distribution of this shape and scale 1 (Marsaglia and Tsang, 2000). */
function gammaSource(shape: number, random: CounterRandom): () => number {
  let index = 0;
  const uniform = () => random.uniform(index++);
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  // Their method is for shapes of at least 1; a smaller one is a larger one times a power of a uniform number.
  const boost = shape < 1 ? () => uniform() ** (1 / shape) : () => 1;
  const d = (shape < 1 ? shape + 1 : shape) - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  return () => {
    for (;;) {
      const x = normal();
      const v = (1 + c * x) ** 3;
      if (v > 0 && Math.log(uniform()) < (x * x) / 2 + d - d * v + d * Math.log(v)) return d * v * boost();
    }
  };
}
