// A better start for the output gate: g_proj rows 1.28 u + noise, where u·x = 1 in the least-squares sense on the layer's
// own inputs, so that silu(g) begins near the constant 1 instead of a random sign per channel. The norm before it removes
// the magnitude of the output, so o_norm then becomes the constant that fits the parent's output best.
import type { Context } from "../../models/attention/mixer.ts";
import type { Backbone } from "../../models/model.ts";
import type { RowSet } from "../data/rows.ts";
import type { Ops } from "../ops/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { sumErrors } from "./measure.ts";
import { batchesInOrder, RowBatcher, runParent } from "./parent.ts";
import { solveRidge } from "./ridge.ts";
import type { Student } from "./student.ts";

/** silu(1.28) = 1.00 */
const GATE_CONSTANT = 1.28;
/** Penalty as a share of the mean of the inputs' squares. */
const RIDGE = 1e-3;
const GATE = "g_proj.weight";
const NORM = "o_norm.weight";

/** Second moments of one layer's inputs. */
interface Moments {
  /** [C, C] sums of x xᵀ. */
  readonly outer: Tensor;
  /** [C] sums of x. */
  readonly sum: Tensor;
}

/** Sets every output gate and norm; `rows` are the calibration text. */
export function initialiseGates(
  ctx: Context,
  backbone: Backbone,
  students: readonly (readonly Student[])[],
  rows: RowSet,
  capacity: number,
): void {
  setDirections(ctx, backbone, students, rows, capacity);
  setGains(ctx, backbone, students, rows, capacity);
}

function setDirections(
  ctx: Context,
  backbone: Backbone,
  students: readonly (readonly Student[])[],
  rows: RowSet,
  capacity: number,
): void {
  const { ops } = ctx;
  const { hiddenSize: C } = backbone.config;
  const moments: Moments[] = students.map(() => ({ outer: ops.empty([C, C]), sum: ops.empty([C]) }));
  const batcher = new RowBatcher(ops, capacity, capacity);
  try {
    for (const batch of batchesInOrder(rows, capacity, capacity)) {
      runParent(ctx, backbone, batcher.load(rows, batch), (layer, x) => {
        ops.matmulTn(moments[layer]!.outer, x, x, true);
        ops.sumRows(moments[layer]!.sum, x, true);
      });
    }
    students.forEach((ofLayer, layer) => {
      const direction = gateDirection(ops, moments[layer]!, C, rows.ids.length);
      for (const student of ofLayer) addToRows(student, direction);
    });
  } finally {
    batcher.free();
    for (const { outer, sum } of moments) {
      ops.free(outer);
      ops.free(sum);
    }
  }
}

/** o_norm = <target, y> / <y, y>, summed over the calibration text. */
function setGains(
  ctx: Context,
  backbone: Backbone,
  students: readonly (readonly Student[])[],
  rows: RowSet,
  capacity: number,
): void {
  const sums = sumErrors(ctx, backbone, students, rows, capacity);
  students.forEach((ofLayer, layer) => {
    ofLayer.forEach(({ mixer: { params } }, i) => {
      const { error, target, output } = sums[layer]![i]!;
      const gain = (output + target - error) / 2 / output;
      if (gain > 0) params.write(NORM, params.read(NORM).fill(gain));
    });
  });
}

function gateDirection(ops: Ops, moments: Moments, C: number, count: number): Float64Array {
  const outer = Float64Array.from(ops.toFloat32(moments.outer), (value) => value / count);
  const sum = Float64Array.from(ops.toFloat32(moments.sum), (value) => value / count);
  let trace = 0;
  for (let c = 0; c < C; c++) trace += outer[c * C + c]!;
  return solveRidge(outer, sum, (RIDGE * trace) / C);
}

function addToRows({ mixer: { params } }: Student, direction: Float64Array): void {
  if (!params.has(GATE)) return;
  const weight = params.read(GATE);
  const C = direction.length;
  for (let i = 0; i < weight.length; i++) weight[i]! += GATE_CONSTANT * direction[i % C]!;
  params.write(GATE, weight);
}
