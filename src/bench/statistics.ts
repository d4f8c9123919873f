// Means and spreads of a few samples. Knows nothing of what was sampled.

export interface Spread {
  readonly mean: number;
  /** Sample standard deviation; 0 for a single sample. */
  readonly deviation: number;
  readonly median: number;
  readonly best: number;
}

/** @param rates at least one; the highest is the best */
export function spreadOf(rates: readonly number[]): Spread {
  const mean = rates.reduce((a, b) => a + b, 0) / rates.length;
  const squares = rates.reduce((sum, rate) => sum + (rate - mean) ** 2, 0);
  const deviation = Math.sqrt(squares / Math.max(1, rates.length - 1));
  return { mean, deviation, median: percentile(rates, 0.5), best: Math.max(...rates) };
}

/** The smallest sample that at least the share `p` of all samples do not exceed. */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(p * sorted.length) - 1)]!;
}

/** Where samples lie; in their own unit. */
export interface Distribution {
  readonly mean: number;
  readonly median: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** null without samples. */
export function distributionOf(samples: readonly number[]): Distribution | null {
  if (samples.length === 0) return null;
  const sorted = Float64Array.from(samples).sort();
  const at = (p: number) => sorted[Math.max(0, Math.ceil(p * sorted.length) - 1)]!;
  const mean = sorted.reduce((a, b) => a + b, 0) / sorted.length;
  return { mean, median: at(0.5), p90: at(0.9), p99: at(0.99), max: sorted.at(-1)! };
}
