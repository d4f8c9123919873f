// Metrics over log-likelihoods: acc, acc_norm, exact match, standard errors, paired comparison. Pure arithmetic; knows
// neither engine nor tokenizer.

/** acc and acc_norm for multiple choice, exact_match for completions. */
export type Metric = "acc" | "acc_norm" | "exact_match";
/** All metrics. */
export const metrics: readonly Metric[] = ["acc", "acc_norm", "exact_match"];

/** What one document got. */
export interface DocumentRecord {
  readonly id: string;
  readonly gold: number;
  /** Log-likelihood of each choice (one value for a completion). */
  readonly logLikelihoods: readonly number[];
  /** Choice by acc and by acc_norm; -1 where a log-likelihood is not a number. For completions 0 if matched, else -1. */
  readonly predicted: number;
  readonly predictedNorm: number;
  /** 0 or 1. */
  readonly acc: number;
  readonly accNorm: number;
  /** Text or ids that the model wrote, in generation mode. */
  readonly generated?: string;
}

/** A metric over all documents. */
export interface MetricSummary {
  readonly mean: number;
  /** sqrt(sum (x - mean)² / (n - 1)) / sqrt(n); null for a single document. */
  readonly standardError: number | null;
}

/** Index of the largest value, the first of equals; -1 if any is NaN. */
export function argmaxFirst(values: readonly number[]): number {
  let best = -1;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (Number.isNaN(value)) return -1;
    if (best < 0 || value > values[best]!) best = i;
  }
  return best;
}

/** Scores one multiple-choice document. A choice of length 0 cannot win acc_norm. */
export function scoreChoices(
  id: string,
  gold: number,
  logLikelihoods: readonly number[],
  lengths: readonly number[],
): DocumentRecord {
  const predicted = argmaxFirst(logLikelihoods);
  const normalised = logLikelihoods.map((value, i) =>
    Number.isNaN(value) ? value : lengths[i] === 0 ? Number.NEGATIVE_INFINITY : value / lengths[i]!,
  );
  const predictedNorm = argmaxFirst(normalised);
  return {
    id,
    gold,
    logLikelihoods,
    predicted,
    predictedNorm,
    acc: predicted === gold ? 1 : 0,
    accNorm: predictedNorm === gold ? 1 : 0,
  };
}

/** Mean and standard error of the mean. */
export function summarise(values: readonly number[]): MetricSummary {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n < 2) return { mean, standardError: null };
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, standardError: Math.sqrt(squares / (n - 1)) / Math.sqrt(n) };
}

/** Two models on the same documents. */
export interface PairedComparison {
  /** Mean of (b - a). */
  readonly difference: number;
  readonly standardError: number | null;
  /** Documents that only a, or only b, got right. */
  readonly onlyA: number;
  readonly onlyB: number;
  /** Two-sided exact McNemar test. */
  readonly pValue: number;
}

/**
 * Compares 0/1 results document by document.
 * @throws RangeError if the lists differ in length
 */
export function comparePaired(a: readonly number[], b: readonly number[]): PairedComparison {
  if (a.length !== b.length) {
    throw new RangeError(`Cannot compare results: ${a.length} documents against ${b.length}, expected the same`);
  }
  const differences = a.map((value, i) => b[i]! - value);
  const { mean, standardError } = summarise(differences);
  const onlyA = differences.filter((value) => value < 0).length;
  const onlyB = differences.filter((value) => value > 0).length;
  return { difference: mean, standardError, onlyA, onlyB, pValue: mcNemar(onlyA, onlyB) };
}

/** Probability of a split at least this uneven if either side were as likely. */
export function mcNemar(onlyA: number, onlyB: number): number {
  const n = onlyA + onlyB;
  if (n === 0) return 1;
  let logTerm = -n * Math.LN2;
  let tail = 0;
  for (let k = 0; k <= Math.min(onlyA, onlyB); k++) {
    tail += Math.exp(logTerm);
    logTerm += Math.log(n - k) - Math.log(k + 1);
  }
  return Math.min(1, 2 * tail);
}
