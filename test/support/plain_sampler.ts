// Sampling written a second time, in doubles and by sorting: what the kernels must agree with, draw by draw. It also says
// how close a decision was, because rounding may decide a close one either way.

export interface PlainParams {
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  seed?: number;
  choice?: number;
  position?: number;
}

/** Philox4x32-10 of the counter (position, choice, 0, 0) under the key `seed`: a number in [0, 1) with 53 bits. */
export function uniform(seed: number, choice: number, position: number): number {
  const MASK = 0xffffffffn;
  let [a, b, c, d] = [BigInt(position), BigInt(choice), 0n, 0n];
  let [k0, k1] = [BigInt(seed) & MASK, BigInt(seed) >> 32n];
  for (let round = 0; round < 10; round++) {
    const [p, q] = [0xd2511f53n * a, 0xcd9e8d57n * c];
    [a, b, c, d] = [(q >> 32n) ^ b ^ k0, q & MASK, (p >> 32n) ^ d ^ k1, p & MASK];
    k0 = (k0 + 0x9e3779b9n) & MASK;
    k1 = (k1 + 0xbb67ae85n) & MASK;
  }
  return Number((a << 21n) ^ (b >> 11n)) / 2 ** 53;
}

/** Weights after temperature and cuts, 0 where a token is cut; `margin`: relative distance of the closest decision. */
export function plainWeights(logits: Float32Array, params: PlainParams): { weights: Float64Array; margin: number } {
  const { temperature = 1, topK = 0, topP = 1, minP = 0 } = params;
  const max = logits.reduce((a, b) => Math.max(a, b));
  const w = Float64Array.from(logits, (x) => Math.exp((x - max) / temperature));
  let kept = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
  let margin = Number.POSITIVE_INFINITY;
  if (topK > 0) kept = kept.slice(0, topK);
  if (topP < 1) {
    const total = kept.reduce((sum, i) => sum + w[i]!, 0);
    let [sum, count] = [0, 0];
    while (count < kept.length && sum < topP * total) {
      sum += w[kept[count++]!]!;
      margin = Math.min(margin, Math.abs(sum - topP * total) / total);
    }
    kept = kept.slice(0, Math.max(1, count));
  }
  for (const i of kept) if (minP > 0 && w[i]! < 1) margin = Math.min(margin, Math.abs(w[i]! / minP - 1));
  const weights = new Float64Array(logits.length);
  for (const i of kept) if (w[i]! >= minP) weights[i] = w[i]!;
  return { weights, margin };
}

/** The token that the random number of (seed, choice, position) means. `logits` must hold a finite number. */
export function plainDraw(logits: Float32Array, params: PlainParams): { id: number; margin: number } {
  const { temperature = 1, seed = 1, choice = 0, position = 0 } = params;
  if (temperature < 1e-5) return { id: logits.indexOf(logits.reduce((a, b) => Math.max(a, b))), margin: 1 };
  let { weights, margin } = plainWeights(logits, params);
  const total = weights.reduce((a, b) => a + b, 0);
  const target = total * uniform(seed, choice, position);
  let [sum, id] = [0, -1];
  for (let i = 0; id < 0; i++) {
    const next = sum + weights[i]!;
    if (next > target) id = i;
    if (weights[i]! > 0) margin = Math.min(margin, Math.abs(next - target) / total);
    sum = next;
  }
  return { id, margin };
}

/** log softmax of one logit. */
export function plainLogprob(logits: Float32Array, id: number): number {
  const max = logits.reduce((a, b) => Math.max(a, b));
  return logits[id]! - max - Math.log(logits.reduce((sum, x) => sum + Math.exp(x - max), 0));
}

/** What changes a sequence's logits. */
export interface PlainRules {
  readonly prompt: readonly number[];
  readonly generated: readonly number[];
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  readonly repetitionPenalty?: number;
  readonly logitBias?: readonly (readonly [number, number])[];
  /** null: all. */
  readonly allowed?: ReadonlySet<number> | null;
}

/** Logits after penalties, bias and constraint, by counting the whole history. */
export function plainAdjust(logits: Float32Array, rules: PlainRules): Float32Array {
  const { prompt, generated, presencePenalty = 0, frequencyPenalty = 0, repetitionPenalty = 1 } = rules;
  const { logitBias = [], allowed = null } = rules;
  const [seen, bias] = [new Set([...prompt, ...generated]), new Map(logitBias)];
  const scale = Math.fround(repetitionPenalty);
  return logits.map((x, id) => {
    if (allowed !== null && !allowed.has(id)) return Number.NEGATIVE_INFINITY;
    const count = generated.filter((other) => other === id).length;
    const penalty = count > 0 ? presencePenalty + frequencyPenalty * count : 0;
    const repeated = seen.has(id) ? Math.fround(x > 0 ? x / scale : x * scale) : x;
    return repeated + Math.fround((bias.get(id) ?? 0) - penalty);
  });
}

/** The k most likely ids of a row, lowest first among equals. */
export function plainTop(logits: Float32Array, k: number): number[] {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
  return order.slice(0, k);
}
