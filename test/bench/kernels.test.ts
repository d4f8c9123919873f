// The kernel benchmark: figures that hang together, and no figure for a wrong kernel.
import { expect, test } from "bun:test";
import { benchKernel, caseName, kernelCases, type LinearCase, type ProductCase } from "../../src/bench/kernels.ts";
import { interleave } from "../../src/bench/measure.ts";
import { type KernelLibrary, symbols } from "../../src/ops/abi.ts";
import { Ops } from "../../src/ops/ops.ts";
import { bestOps, isas, opsOf } from "../support/kernels.ts";

const options = { seconds: 0.01, uncachedBytes: 1 << 23 };
const small: (LinearCase | ProductCase)[] = [
  { op: "linear", rows: 1, out: 100, in: 63, dtype: "bf16" },
  { op: "linear", rows: 33, out: 100, in: 63, dtype: "f32" },
  { op: "matmul_nt", rows: 63, out: 17, in: 33, dtype: "f32" },
  { op: "matmul_nn", rows: 63, out: 17, in: 33, dtype: "f32" },
  { op: "matmul_tn", rows: 63, out: 17, in: 33, dtype: "f32" },
];

test.each(small.map((one) => [caseName(one), one] as const))("benchKernel() measures %s", async (_, one) => {
  const figure = benchKernel(await bestOps(), await opsOf("reference"), one, options);
  expect(figure.bound).toBe("multiply-add");
  expect(figure.bestSeconds).toBeGreaterThan(0);
  expect(figure.medianSeconds).toBeGreaterThanOrEqual(figure.bestSeconds);
  expect(figure.flopsPerSecond * figure.bestSeconds).toBeCloseTo(2 * one.rows * one.out * one.in, 0);
  expect(figure.share).toBeCloseTo(figure.flopsPerSecond / figure.limit, 6);
  expect(figure.error).toBeLessThan(1e-5);
});

test("benchKernel() compares big decode shapes with a streaming read", async () => {
  const one = { op: "linear", rows: 1, out: 1024, in: 1024, dtype: "f32" } as const;
  const figure = benchKernel(await bestOps(), await opsOf("reference"), one, options);
  expect(figure.bound).toBe("read");
  expect(figure.limit).toBeGreaterThan(1e8);
  expect(figure.share).toBeCloseTo(figure.bytesPerSecond / figure.limit, 6);
});

test.each([
  { op: "gla", rows: 3, heads: 2, headSize: 24, dtype: "bf16" },
  { op: "gdn", rows: 3, heads: 2, headSize: 32, dtype: "f32" },
] as const)("benchKernel() measures decode steps of $op with a $dtype state", async (one) => {
  const figure = benchKernel(await bestOps(), await opsOf("reference"), one, options);
  expect(figure.bound).toBe("read");
  expect(figure.error).toBeLessThan(one.dtype === "f32" ? 1e-5 : 2 ** -7);
  // At least the states themselves are read in every step.
  const states = one.rows * one.heads * one.headSize ** 2 * (one.dtype === "f32" ? 4 : 2);
  expect(figure.bytesPerSecond * figure.bestSeconds).toBeGreaterThan(states);
  expect(figure.share).toBeCloseTo(figure.bytesPerSecond / figure.limit, 6);
});

test("benchKernel() gives no figure for a wrong result", async () => {
  const ops = await Ops.load({ isa: isas.at(-1)!, threads: 1 });
  const own = ops.symbols as unknown as Record<string, (...args: unknown[]) => unknown>;
  const broken = Object.fromEntries(Object.keys(symbols).map((name) => [name, own[name]!]));
  broken.graft_linear = (...args) => own.graft_linear!(...args.slice(0, 3), args[1], ...args.slice(4));
  Object.defineProperty(ops, "symbols", { value: broken as unknown as KernelLibrary });
  const reference = await opsOf("reference");
  expect(() => benchKernel(ops, reference, small[0]!, options)).toThrow("Cannot time linear 1 × [100, 63] bf16");
});

test("interleave() samples kernel and limit in turns", () => {
  const seen: string[] = [];
  const timing = interleave(
    0,
    () => seen.push("kernel"),
    (turn) => {
      seen.push("limit");
      return turn;
    },
  );
  expect(timing.samples).toBe(5);
  expect(timing.best).toBeLessThanOrEqual(timing.median);
  expect(seen.filter((word) => word === "limit").length).toBe(5);
  expect(seen.at(-1)).toBe("limit");
  expect(timing.limit).toBe(seen.length - 5); // the last turn number: every kernel call was counted
});

test("kernelCases have different names", () => {
  expect(new Set(kernelCases.map(caseName)).size).toBe(kernelCases.length);
});
