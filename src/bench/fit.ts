// Step time as a straight line over the context: what a step costs before any context, and what each token of it adds.

/** seconds = intercept + slope * context */
export interface ContextFit {
  readonly interceptSeconds: number;
  readonly slopeSeconds: number;
}

/** Least squares over points of different contexts; null for fewer than two. */
export function fitContexts(
  points: readonly { readonly context: number; readonly seconds: number }[],
): ContextFit | null {
  const n = points.length;
  const mean = (of: (point: (typeof points)[number]) => number) => points.reduce((sum, p) => sum + of(p), 0) / n;
  const [x, y] = [mean(({ context }) => context), mean(({ seconds }) => seconds)];
  const variance = mean(({ context }) => (context - x) ** 2);
  if (n < 2 || variance === 0) return null;
  const slopeSeconds = mean(({ context, seconds }) => (context - x) * (seconds - y)) / variance;
  return { interceptSeconds: y - slopeSeconds * x, slopeSeconds };
}
