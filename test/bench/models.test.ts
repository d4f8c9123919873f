// Decode and prefill figures of the engine: they hang together, wrong kernels get none, and what does not fit is refused.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createRandomPool } from "../../models/random_model.ts";
import { shapeConfig } from "../../models/shapes.ts";
import { type DecodeCase, measureDecode } from "../../src/bench/decode.ts";
import { peakMemoryBytes, resetPeakMemory, StreamingRead } from "../../src/bench/machine.ts";
import { measurePrefill, type PrefillCase } from "../../src/bench/prefill.ts";
import { percentile, spreadOf } from "../../src/bench/statistics.ts";
import { createSubject, type Mask, maskCosts, type Subject } from "../../src/bench/subject.ts";
import { uniformReplacement } from "../../src/bench/uniform.ts";
import { CapacityError, RequestError } from "../../src/errors.ts";
import { type KernelLibrary, symbols } from "../../src/ops/abi.ts";
import { Ops } from "../../src/ops/ops.ts";
import { isas } from "../support/kernels.ts";

const config = shapeConfig("tiny");
const base: Mask = { name: "base", layers: new Array<null>(10).fill(null) };
const mixed: Mask = { name: "gdn-5", layers: uniformReplacement(10, 5).map((linear) => (linear ? "gdn" : null)) };
const decode: DecodeCase = {
  mask: base,
  context: 40,
  batch: 1,
  tokens: 3,
  repeats: 2,
  chunk: 64,
  kvDtype: "f32",
  stateDtype: "f32",
  prompts: "computed",
};
const prefill: PrefillCase = { ...decode, weightType: "bf16" };

async function subjectOf(change?: (own: Record<string, Kernel>) => Record<string, Kernel>): Promise<Subject> {
  const ops = await Ops.load({ isa: isas.at(-1)!, threads: 1 });
  if (change !== undefined) {
    const own = ops.symbols as unknown as Record<string, Kernel>;
    const all = Object.fromEntries(Object.keys(symbols).map((name) => [name, own[name]!]));
    Object.defineProperty(ops, "symbols", { value: { ...all, ...change(own) } as unknown as KernelLibrary });
  }
  const subject = createSubject(ops, "tiny", config, { dtype: "bf16", maxTokens: 512 });
  return { ...subject, pools: [createRandomPool(ops, subject.model, "gdn")] };
}
type Kernel = (...args: number[]) => number;
/** Where graft_attention_step takes its number of rows. */
const ROWS = 16;

let subject: Subject;
let read: StreamingRead;
beforeAll(async () => {
  subject = await subjectOf();
  read = new StreamingRead(subject.ops, 1 << 22);
});
afterAll(() => {
  for (const pool of subject.pools) pool.free();
  subject.model.free();
});

test.each([
  ["base", 1, base],
  ["base", 3, base],
  ["half", 3, mixed],
])("measureDecode() of %s with batch %i", (_, batch, mask) => {
  const figure = measureDecode(subject, { ...decode, mask, batch }, read);
  expect(figure.tokensPerSecond.best).toBeGreaterThanOrEqual(figure.tokensPerSecond.mean);
  expect(figure.share).toBeCloseTo(figure.bytesPerSecond / figure.limit, 9);
  expect(figure.stepSeconds.p99).toBeGreaterThanOrEqual(figure.stepSeconds.p50);
  // The fastest step cannot be slower than the best repeat's mean step.
  const { readBytes } = maskCosts(subject, mask, decode);
  expect(figure.bytesPerSecond).toBeGreaterThan((readBytes * figure.tokensPerSecond.best) / batch);
  expect(figure.numChecked).toBe(batch);
  expect(figure.lastContext).toBeGreaterThanOrEqual(40 + 1 + 6 + 6);
  expect(figure.peakMemoryBytes).toBeGreaterThan(1 << 22);
});

test("measurePrefill() counts operations and compares with the peak", () => {
  const figure = measurePrefill(subject, { ...prefill, batch: 2 });
  const flops = maskCosts(subject, base, decode).prefillFlops(2, 40);
  expect(figure.flopsPerSecond).toBeCloseTo((flops * figure.tokensPerSecond.best) / 80, 0);
  expect(figure.share).toBeCloseTo(figure.flopsPerSecond / figure.limit, 9);
  expect(figure.numChecked).toBe(1);
});

test("no decode figure for attention that does nothing", async () => {
  // Steps of one row; the forward pass over all rows attends.
  const broken = await subjectOf(({ graft_attention_step }) => ({
    graft_attention_step: (...args) => (args[ROWS] === 1 ? 0 : graft_attention_step!(...args)),
  }));
  expect(() => measureDecode(broken, decode, read)).toThrow('Cannot give a figure for "base": token');
});

test("no prefill figure where chunks change the result", async () => {
  const broken = await subjectOf(({ graft_attention_step }) => ({
    graft_attention_step: (...args) => (args[ROWS] === 40 ? graft_attention_step!(...args) : 0),
  }));
  expect(() => measurePrefill(broken, prefill)).toThrow('Cannot give a figure for "base": the first token is');
});

test("costs follow from the sizes", () => {
  const costs = maskCosts(subject, base, { kvDtype: "bf16", stateDtype: "f32" });
  const norms = 10 * (2 * 96 + 2 * 32) + 96;
  expect(costs.numParams).toBe(10 * (96 * (2 * 128 + 2 * 64) + 3 * 96 * 192) + norms + 96 * config.vocabSize);
  expect(costs.kvBytesPerToken).toBe(10 * 2 * 2 * 32 * 2);
  expect(costs.stateBytes).toBe(0);
  expect(costs.readBytes).toBe(costs.weightBytes);
  // Projections and MLP of 10 layers per token, keys so far, the head once.
  const layer = 2 * 96 * (128 + 64 + 64) + 2 * 128 * 96 + 3 * 2 * 96 * 192;
  expect(costs.prefillFlops(1, 3)).toBe(3 * 10 * layer + 10 * 4 * 128 * 6 + 2 * 96 * config.vocabSize);
  const half = maskCosts(subject, mixed, { kvDtype: "bf16", stateDtype: "f32" });
  // Five layers of four heads with states of 32 x 32; windows of three rows of q, k and v.
  expect(half.matrixBytes).toBe(5 * 4 * 32 * 32 * 4);
  expect(half.stateTraffic).toBeGreaterThan(half.matrixBytes * (1 + 1 / 16) + 5 * 2 * 3 * 384 * 4);
  expect(half.stateTraffic).toBeLessThan(2 * half.stateBytes);
  expect(half.kvBytesPerToken).toBe(costs.kvBytesPerToken / 2);
  expect(half.stateBytes).toBeGreaterThan(5 * 4 * 32 * 32 * 4);
});

test("contexts beyond the model or the memory are refused with what fits", () => {
  expect(() => measureDecode(subject, { ...decode, context: 512 }, read)).toThrow(RequestError);
  expect(() => measureDecode(subject, { ...decode, context: 512 }, read)).toThrow('"tiny" has positions for 512');
  const crowd = { ...decode, batch: 2_000_000, context: 1 };
  expect(() => measurePrefill(subject, { ...crowd, weightType: "bf16" })).toThrow(CapacityError);
  expect(() => measurePrefill(subject, { ...crowd, weightType: "bf16" })).toThrow(/that needs .* GiB, .* GiB are free/);
});

test("weights beyond the memory are refused before they are drawn", () => {
  const huge = { ...config, vocabSize: 2 ** 24, hiddenSize: 2 ** 18 };
  const create = () => createSubject(subject.ops, "huge", huge, { dtype: "bf16", maxTokens: 512 });
  expect(create).toThrow(CapacityError);
  expect(create).toThrow(/Cannot create "huge": its bf16 weights need .* GiB/);
});

test("uniformReplacement() keeps full attention evenly spread", () => {
  const kept = (numLayers: number, count: number) =>
    uniformReplacement(numLayers, count).flatMap((linear, i) => (linear ? [] : [i]));
  expect(kept(28, 24)).toEqual([6, 13, 20, 27]);
  expect(kept(28, 21)).toEqual([3, 7, 11, 15, 19, 23, 27]);
  expect(kept(5, 0)).toEqual([0, 1, 2, 3, 4]);
  expect(kept(5, 5)).toEqual([]);
});

test("spreads and percentiles", () => {
  expect(spreadOf([2, 4, 6])).toEqual({ mean: 4, deviation: 2, median: 4, best: 6 });
  expect(spreadOf([3])).toEqual({ mean: 3, deviation: 0, median: 3, best: 3 });
  expect(percentile([5, 1, 4, 2, 3], 0.5)).toBe(3);
  expect(percentile([5, 1, 4, 2, 3], 0.99)).toBe(5);
  expect(percentile([7], 0)).toBe(7);
});

test("the memory peak follows allocations", () => {
  resetPeakMemory();
  const before = peakMemoryBytes();
  const big = subject.ops.empty([1 << 24]);
  subject.ops.zero(big);
  subject.ops.free(big);
  expect(peakMemoryBytes()).toBeGreaterThanOrEqual(before + (1 << 25));
});
