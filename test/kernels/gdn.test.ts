// Gated delta rule: golden files, the reference at awkward sizes, gradients, and one answer on every path.
import { describe } from "bun:test";
import type { LinearSizes } from "../../src/ops/ops.ts";
import type { Results } from "../support/linear_case.ts";
import {
  differenceTests,
  goldenCase,
  goldenTests,
  pathTests,
  referenceTests,
  stateTests,
} from "../support/linear_suite.ts";

const sizes = (Hk: number, Hv: number, Dk: number, Dv: number): LinearSizes => ({
  numQueryHeads: Hk,
  numKeyHeads: Hk,
  numValueHeads: Hv,
  keyDim: Dk,
  valueDim: Dv,
});

const sources = { q: "q", k: "k", v: "v", g: "g", beta: "beta" };

/** y = x / sqrt(sum x² + eps) for rows of `width`. */
function l2Norm(x: Float32Array, width: number, eps: number): Float32Array {
  return x.map((value, i) => {
    const row = i - (i % width);
    let sum = eps;
    for (let j = row; j < row + width; j++) sum += x[j]! ** 2;
    return value / Math.sqrt(sum);
  });
}

/** dx = r (dy - y (y·dy)), r = 1 / sqrt(sum x² + eps) */
function l2NormGradient(dy: Float32Array, x: Float32Array, width: number, eps: number): Float32Array {
  return x.map((value, i) => {
    const row = i - (i % width);
    let [sum, product] = [eps, 0];
    for (let j = row; j < row + width; j++) {
      sum += x[j]! ** 2;
      product += x[j]! * dy[j]!;
    }
    return (dy[i]! - (value * product) / sum) / Math.sqrt(sum);
  });
}

describe("golden files", () => {
  goldenTests(
    "gdn",
    (golden) => {
      const [, , Hk, Dk] = golden.shape("input.q") as [number, number, number, number];
      const [, , Hv, Dv] = golden.shape("input.v") as [number, number, number, number];
      const c = goldenCase("gdn", golden, sizes(Hk, Hv, Dk, Dv), sources);
      if (golden.hyperparameters.qk_l2norm !== true) return { c, finish: () => {} };
      const eps = golden.hyperparameters.l2norm_eps as number;
      const inputs = { ...c.inputs };
      for (const name of ["q", "k"])
        inputs[name] = { shape: c.inputs[name]!.shape, data: l2Norm(c.inputs[name]!.data, Dk, eps) };
      const finish = (results: Results) => {
        for (const name of ["q", "k"])
          results[`d${name}`] = l2NormGradient(results[`d${name}`]!, c.inputs[name]!.data, Dk, eps);
      };
      return { c: { ...c, inputs }, finish };
    },
    sources,
  );
});

referenceTests("gdn", [
  ["Dk = Dv = 8, 8 heads", sizes(8, 8, 8, 8)],
  ["Dk 24, Dv 40, 2 key heads for 6", sizes(2, 6, 24, 40)],
  ["Dk 40, Dv 16, 1 for 3", sizes(1, 3, 40, 16)],
  ["Dk = Dv = 64", sizes(2, 2, 64, 64)],
  ["Dk 96, Dv 128, 1 for 2", sizes(1, 2, 96, 128)],
  ["Dk = Dv = 256", sizes(1, 1, 256, 256)],
]);

differenceTests("gdn", sizes(2, 4, 8, 16));
pathTests("gdn", [
  ["Dk 24, Dv 40, 2 for 4", sizes(2, 4, 24, 40)],
  ["Dk = Dv = 64, 2 for 2", sizes(2, 2, 64, 64)],
  ["Dk = Dv = 128, 1 for 2", sizes(1, 2, 128, 128)],
]);
stateTests("gdn", sizes(1, 2, 40, 24));
