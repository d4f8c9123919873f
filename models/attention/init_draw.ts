// Values of tensors that no attention layer determines: gates, identity convolutions, norms, decays (layers.md section 7).
import type { CounterRandom } from "../../src/tensor/random.ts";
import type { ParameterSpec } from "../parameters.ts";
import type { LinearShape } from "./mixer.ts";

/** Named tensors on the host. */
export type HostTensors = Map<string, Float32Array>;

/** Standard deviation of new matrices. */
const DEVIATION = 0.02;
/** A_log = log U(0, 16), kept away from log 0. */
const MIN_DECAY = 1e-3;
const MAX_DECAY = 16;
const MIN_DT = 1e-3;
const MAX_DT = 1e-1;
const DT_FLOOR = 1e-4;

/** Kernels whose last tap, the current token, is 1. */
function identityKernels(count: number, taps: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => (i % taps === taps - 1 ? 1 : 0));
}

/** softplus⁻¹ of a step size drawn log-uniformly. */
function inverseSoftplusOfStep(random: CounterRandom, i: number): number {
  const logStep = Math.log(MIN_DT) + random.uniform(i) * (Math.log(MAX_DT) - Math.log(MIN_DT));
  const step = Math.max(Math.exp(logStep), DT_FLOOR);
  return step + Math.log(-Math.expm1(-step));
}

function draw(count: number, value: (i: number) => number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => value(i));
}

/** First values of one tensor of a linear layer. */
export function createTensor(
  { name, shape: dimensions }: ParameterSpec,
  { convKernel }: LinearShape,
  random: CounterRandom,
): Float32Array {
  const count = dimensions.reduce((a, b) => a * b, 1);
  if (name === "A_log") return draw(count, (i) => Math.log(Math.max(MAX_DECAY * random.uniform(i), MIN_DECAY)));
  if (name === "dt_bias") return draw(count, (i) => inverseSoftplusOfStep(random, i));
  if (name === "o_norm.weight") return new Float32Array(count).fill(1);
  if (name.endsWith("_conv1d.weight")) return identityKernels(count, convKernel);
  // The generator must begin as the identity, but w1 must not be zero with w2: then neither would ever learn.
  if (name.endsWith("kernel_generator.w2.weight")) return new Float32Array(count);
  if (name.endsWith("kernel_generator.w2.bias")) return identityKernels(count, convKernel);
  if (name.endsWith(".bias")) return new Float32Array(count);
  return random.normals(count, DEVIATION);
}
