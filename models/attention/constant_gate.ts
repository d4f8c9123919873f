// The vector that turns an output gate into a positive constant: ridge solution u of u·x = 1 over sampled layer inputs.
// Random gate rows give every channel a random sign; this start does not (see InitOptions.gateVector).

/** Weight of the ridge against the mean square of the inputs. */
const RIDGE = 1e-3;
const MAX_ITERATIONS = 64;
const TOLERANCE = 1e-6;

function dot(a: Float64Array, b: Float64Array): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!;
  return total;
}

/** (XᵀX + ridge) u for rows x of X. */
function applyGram(x: Float32Array, C: number, ridge: number, u: Float64Array): Float64Array {
  const out = u.map((value) => ridge * value);
  for (let row = 0; row < x.length; row += C) {
    let product = 0;
    for (let c = 0; c < C; c++) product += x[row + c]! * u[c]!;
    for (let c = 0; c < C; c++) out[c]! += product * x[row + c]!;
  }
  return out;
}

/** u [C] minimising Σ (u·x - 1)² + ridge |u|² over the rows of x [N, C], by conjugate gradients. */
export function solveConstantGate(x: Float32Array, C: number): Float32Array {
  let square = 0;
  const target = new Float64Array(C);
  for (let i = 0; i < x.length; i++) {
    square += x[i]! * x[i]!;
    target[i % C]! += x[i]!;
  }
  const ridge = (RIDGE * square) / C;
  const u = new Float64Array(C);
  const residual = target.slice();
  const direction = residual.slice();
  let error = dot(residual, residual);
  const enough = TOLERANCE * TOLERANCE * error;
  for (let i = 0; i < MAX_ITERATIONS && error > enough; i++) {
    const image = applyGram(x, C, ridge, direction);
    const step = error / dot(direction, image);
    for (let c = 0; c < C; c++) {
      u[c]! += step * direction[c]!;
      residual[c]! -= step * image[c]!;
    }
    const next = dot(residual, residual);
    for (let c = 0; c < C; c++) direction[c] = residual[c]! + (next / error) * direction[c]!;
    error = next;
  }
  return Float32Array.from(u);
}
