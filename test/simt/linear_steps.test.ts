// gla_step and gdn_step of the CUDA kernels, in the emulator: against the reference at odd shapes, and the same bits for
// any chunks and batches, one row at a time (one kernel) and many (others).
import { describe, expect, test } from "bun:test";
import { opsOf } from "../support/kernels.ts";
import { type LinearCase, type Plan, pieces, together } from "../support/linear_case.ts";
import { expectClose, expectSameBits } from "../support/op_case.ts";
import { type StepCase, step } from "../support/step_case.ts";

const sizes = (Hq: number, Hk: number, Hv: number, Dk: number, Dv: number) => {
  return { numQueryHeads: Hq, numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv };
};
type Shape = Omit<StepCase, "stateDtype">;
const gdn = (shape: StepCase["sizes"], lengths: number[], more: Partial<Shape> = {}): Shape => {
  return { variant: "gdn", sizes: shape, lengths, taps: 4, gate: true, block: 16, ...more };
};
const gla = (shape: StepCase["sizes"], lengths: number[], more: Partial<Shape> = {}): Shape => {
  return { variant: "gla", sizes: shape, lengths, taps: 0, gate: true, block: 16, ...more };
};
const cases: [string, Shape][] = [
  ["gdn, small", gdn(sizes(1, 1, 1, 8, 8), [21, 1])],
  ["gdn, shared keys", gdn(sizes(2, 2, 4, 24, 40), [37, 50, 16], { convBias: true })],
  ["gdn, no convolution, no gate", gdn(sizes(1, 1, 1, 40, 72), [35], { taps: 0, gate: false })],
  ["gdn, wide", gdn(sizes(1, 1, 1, 128, 128), [33, 3], { taps: 3 })],
  ["jet", gdn(sizes(1, 1, 1, 96, 256), [18, 2], { variant: "jet" })],
  ["jet, two taps", gdn(sizes(2, 2, 2, 16, 32), [40, 7], { variant: "jet", taps: 2 })],
  ["gla, small", gla(sizes(1, 1, 1, 8, 8), [21, 1])],
  ["gla, grouped", gla(sizes(6, 2, 2, 24, 40), [37, 50, 16])],
  ["gla, convolutions, no gate", gla(sizes(2, 1, 1, 40, 72), [35, 2], { taps: 4, convBias: true, gate: false })],
  ["gla, wide", gla(sizes(2, 1, 1, 128, 128), [33, 3], { taps: 2 })],
  ["gla, many queries", gla(sizes(10, 1, 1, 64, 64), [18])],
  ["gla, blocks of 8", gla(sizes(2, 1, 1, 16, 24), [20], { block: 8 })],
  ["gdn, blocks of 32", gdn(sizes(1, 1, 2, 16, 24), [40], { block: 32 })],
];

/** What the plans need of a case. */
const planned = (c: Shape) => {
  const seqStart = [0];
  for (const length of c.lengths) seqStart.push(seqStart.at(-1)! + length);
  return { seqStart } as unknown as LinearCase;
};

describe.each(cases)("%s", (_, shape) => {
  test.each(["f32", "bf16"] as const)(
    "matches the reference and any chunks of itself, state in %s",
    async (stateDtype) => {
      const c: StepCase = { ...shape, stateDtype };
      const [ops, reference] = [await opsOf("simt"), await opsOf("reference")];
      const whole = together(planned(c), 1000);
      const [actual, expected] = [step(ops, c, whole), step(reference, c, whole)];
      const limit = stateDtype === "f32" ? 3e-5 : 2 ** -5;
      expectClose(actual.y, expected.y, limit, "y");
      for (const [s, state] of expected.states.entries()) expectClose(actual.states[s]!, state, limit, `state of ${s}`);
      const others: [string, Plan][] = [
        ["token by token", together(planned(c), 1)],
        ["alone, in chunks of 20", pieces(planned(c), 20)],
        ["in chunks of 7", together(planned(c), 7)],
      ];
      for (const [name, plan] of others) {
        const other = step(ops, c, plan);
        expectSameBits(other.y, actual.y, name);
        for (const [s, state] of actual.states.entries()) expectSameBits(other.states[s]!, state, `${name}: ${s}`);
      }
      expect(actual.y.some((x) => x !== 0)).toBeTrue();
    },
  );
});

test("an empty sequence beside one of two rows, and more query heads than shared memory has room for", async () => {
  const ops = await opsOf("simt");
  for (const shape of [cases[1]![1], cases[8]![1]]) {
    const c: StepCase = { ...shape, lengths: [9, 4], stateDtype: "f32" };
    const plan: Plan = [
      [{ seq: 0, count: 9 }],
      [
        { seq: 0, count: 0 },
        { seq: 1, count: 2 },
      ],
      [{ seq: 1, count: 2 }],
    ];
    expectSameBits(step(ops, c, plan).y, step(ops, c, together(planned(c), 9)).y, shape.variant);
  }
  const many: StepCase = { ...gla(sizes(40, 1, 1, 128, 256), [3]), stateDtype: "f32" };
  const whole = together(planned(many), 3);
  expectClose(step(ops, many, whole).y, step(await opsOf("reference"), many, whole).y, 3e-5, "40 query heads");
});
