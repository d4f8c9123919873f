// Solves (A + λI) u = b for a symmetric positive semi-definite A by conjugate gradients, in double precision.

/** @param a [n, n] row-major, symmetric; @param lambda added to the diagonal, above 0 */
export function solveRidge(a: Float64Array, b: Float64Array, lambda: number, iterations = 200): Float64Array {
  const n = b.length;
  const u = new Float64Array(n);
  const residual = b.slice();
  const direction = b.slice();
  const product = new Float64Array(n);
  let norm = dot(residual, residual);
  const target = norm * 1e-16;
  for (let i = 0; i < iterations && norm > target; i++) {
    multiply(product, a, direction, lambda);
    const alpha = norm / dot(direction, product);
    for (let j = 0; j < n; j++) {
      u[j]! += alpha * direction[j]!;
      residual[j]! -= alpha * product[j]!;
    }
    const next = dot(residual, residual);
    for (let j = 0; j < n; j++) direction[j] = residual[j]! + (next / norm) * direction[j]!;
    norm = next;
  }
  return u;
}

function multiply(out: Float64Array, a: Float64Array, x: Float64Array, lambda: number): void {
  const n = x.length;
  for (let r = 0; r < n; r++) {
    let sum = lambda * x[r]!;
    for (let c = 0, at = r * n; c < n; c++, at++) sum += a[at]! * x[c]!;
    out[r] = sum;
  }
}

function dot(x: Float64Array, y: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
}
