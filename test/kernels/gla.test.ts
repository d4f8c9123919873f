// Gated linear attention: golden files, the reference at awkward sizes, gradients, and one answer on every path.
import { describe, expect, test } from "bun:test";
import type { LinearSizes } from "../../src/ops/ops.ts";
import { isas, opsOf } from "../support/kernels.ts";
import { type LinearCase, linearCase, pieces, serve } from "../support/linear_case.ts";
import {
  differenceTests,
  goldenCase,
  goldenTests,
  pathTests,
  referenceTests,
  stateTests,
} from "../support/linear_suite.ts";

const sizes = (Hq: number, Hkv: number, Dk: number, Dv: number): LinearSizes => ({
  numQueryHeads: Hq,
  numKeyHeads: Hkv,
  numValueHeads: Hkv,
  keyDim: Dk,
  valueDim: Dv,
});

const sources = { q: "q", k: "k", v: "v", a: "gk" };

describe("golden files", () => {
  goldenTests(
    "gla",
    (golden) => {
      const [, , Hq, Dk] = golden.shape("input.q") as [number, number, number, number];
      const [, , Hkv, Dv] = golden.shape("input.v") as [number, number, number, number];
      return { c: goldenCase("gla", golden, sizes(Hq, Hkv, Dk, Dv), sources), finish: () => {} };
    },
    sources,
  );
});

referenceTests("gla", [
  ["Dk = Dv = 8, 8 heads", sizes(8, 8, 8, 8)],
  ["Dk 24, Dv 40, 6 query heads on 2", sizes(6, 2, 24, 40)],
  ["Dk 40, Dv 16, 3 on 1", sizes(3, 1, 40, 16)],
  ["Dk = Dv = 64", sizes(2, 2, 64, 64)],
  ["Dk 128, Dv 64, 2 on 1", sizes(2, 1, 128, 64)],
  ["Dk = Dv = 256", sizes(1, 1, 256, 256)],
]);

differenceTests("gla", sizes(4, 2, 8, 16));
pathTests("gla", [
  ["Dk 24, Dv 40, 4 on 2", sizes(4, 2, 24, 40)],
  ["Dk = Dv = 64, 2 on 2", sizes(2, 2, 64, 64)],
  ["Dk = Dv = 128, 3 on 1", sizes(3, 1, 128, 128)],
]);
stateTests("gla", sizes(2, 1, 40, 24));

/** Ties up and down, the largest number, the smallest, a subnormal, infinities, NaN: as float32 bits. */
const AWKWARD = [
  0x3f808000, 0x3f818000, 0x3f80ffff, 0xbf807fff, 0x7f7fffff, 0x00000001, 0x00018000, 0x80018000, 0x7f800000,
  0xff800000, 0x7fc00001, 0x7f800001, 0x00007fff, 0x007fffff, 0xff7f8000, 0x3f7fffff,
];

for (const isa of isas)
  test(`a bf16 state rounds every number as graft_convert does on ${isa}`, async () => {
    const ops = await opsOf(isa);
    const values = new Float32Array(Uint32Array.from(AWKWARD).buffer);
    const c = linearCase("gla", sizes(1, 1, 8, 16), [1]);
    const inputs = {
      ...c.inputs,
      k: { shape: [1, 1, 8], data: new Float32Array(8).fill(1) },
      v: { shape: [1, 1, 16], data: values },
    };
    const narrow: LinearCase = { ...c, inputs, stateDtype: "bf16" };
    const row = serve(ops, narrow, 16, pieces(narrow, 1)).state(0).subarray(0, 16);
    const rounded = ops.empty([16], "bf16");
    ops.convert(rounded, ops.fromArray([16], values));
    expect([...row]).toEqual([...ops.toFloat32(rounded)]);
  });
