// Runs every kernel of one library against the reference library on small awkward sizes. Prints nothing.
import type { Ops } from "../ops/ops.ts";
import { attentionCases } from "./attention_cases.ts";
import { attentionStepCases } from "./attention_step_cases.ts";
import type { SelftestCase } from "./case.ts";
import { denseCases } from "./dense_cases.ts";
import { largeCases } from "./large_cases.ts";
import { pointwiseCases } from "./pointwise_cases.ts";
import { recurrentCases } from "./recurrent_cases.ts";
import { repeatCases } from "./repeat_cases.ts";
import { samplingCases } from "./sampling_cases.ts";
import { stepCases } from "./step_cases.ts";
import { trainingCases } from "./training_cases.ts";
import { Workbench } from "./workbench.ts";

/** Every case, in the order in which they are shown. */
export const selftestCases: readonly SelftestCase[] = [
  ...denseCases,
  ...pointwiseCases,
  ...attentionCases,
  ...attentionStepCases,
  ...recurrentCases,
  ...repeatCases,
  ...stepCases,
  ...samplingCases,
  ...trainingCases,
];

/** What a library is tested with: its emulator is too slow for large cases, and devices do not train. */
export function casesFor(ops: Ops): readonly SelftestCase[] {
  if (ops.kind === "cpu") return selftestCases;
  const forward = selftestCases.filter((one) => one.training !== true);
  return ops.isa === "cuda" ? [...forward, ...largeCases] : forward;
}

/** How far a case is from the reference library. */
export interface SelftestResult {
  readonly name: string;
  /** Largest max|difference| / max|reference| of any output; null if the case could not be run. */
  readonly error: number | null;
  readonly limit: number;
  readonly passed: boolean;
  /** The output with the largest error, or why the case could not be run. */
  readonly detail: string;
}

/** Runs the cases that a library has (or the given ones) and compares `ops` with `reference`, output by output. */
export function* selftest(ops: Ops, reference: Ops, cases = casesFor(ops)): Generator<SelftestResult> {
  for (const one of cases) yield runCase(one, ops, reference);
}

function runCase(one: SelftestCase, ops: Ops, reference: Ops): SelftestResult {
  try {
    const expected = valuesOf(one, reference);
    let [error, detail] = [0, ""];
    for (const [name, actual] of valuesOf(one, ops)) {
      const own = relativeError(actual, expected.get(name)!);
      if (own > error || detail === "") [error, detail] = [own, name];
    }
    return { name: one.name, error, limit: one.limit, passed: error <= one.limit, detail };
  } catch (cause) {
    return { name: one.name, error: null, limit: one.limit, passed: false, detail: (cause as Error).message };
  }
}

function valuesOf(one: SelftestCase, ops: Ops): Map<string, Float32Array> {
  const bench = new Workbench(ops);
  try {
    one.run(bench);
    return bench.results();
  } finally {
    bench.close();
  }
}

/** max|a - b| / max(1e-6, max|b|); infinite where either is not a number. */
export function relativeError(actual: Float32Array, expected: Float32Array): number {
  let [difference, scale] = [0, 1e-6];
  for (let i = 0; i < expected.length; i++) {
    const d = Math.abs(actual[i]! - expected[i]!);
    if (!(d >= 0)) return Number.POSITIVE_INFINITY;
    difference = Math.max(difference, d);
    scale = Math.max(scale, Math.abs(expected[i]!));
  }
  return difference / scale;
}
