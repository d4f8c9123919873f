// Gated linear attention: golden files, the reference at awkward sizes, gradients, and one answer on every path.
import { describe } from "bun:test";
import type { LinearSizes } from "../../src/ops/ops.ts";
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
