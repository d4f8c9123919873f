// Figures at contexts that nobody computed: what is checked before, how many sequences fit, bounds and fits.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createRandomPool } from "../../models/random_model.ts";
import { shapeConfig } from "../../models/shapes.ts";
import { bandwidthOf, DeviceCopy } from "../../src/bench/bandwidth.ts";
import { checkDecode, type DecodeCase, largestBatch, measureDecode } from "../../src/bench/decode.ts";
import { fitContexts } from "../../src/bench/fit.ts";
import { freeBytes, StreamingRead } from "../../src/bench/machine.ts";
import { checkSmallCase } from "../../src/bench/small_case.ts";
import { createSubject, type Mask, maskCosts, type Subject } from "../../src/bench/subject.ts";
import { uniformReplacement } from "../../src/bench/uniform.ts";
import { CapacityError } from "../../src/errors.ts";
import { type KernelLibrary, symbols } from "../../src/ops/abi.ts";
import { Ops } from "../../src/ops/ops.ts";
import { isas, opsOf } from "../support/kernels.ts";

type Kernel = (...args: number[]) => number;

const config = shapeConfig("tiny");
const base: Mask = { name: "base", layers: new Array<null>(10).fill(null) };
const mixed: Mask = { name: "gdn-5", layers: uniformReplacement(10, 5).map((linear) => (linear ? "gdn" : null)) };
const types = { kvDtype: "f32", stateDtype: "f32" } as const;
const one: DecodeCase = {
  ...{ mask: mixed, context: 400, batch: 3, tokens: 3, repeats: 2, chunk: 64 },
  ...{ ...types, prompts: "random" },
};

/** Ops of their own whose kernels a test may change. */
async function ownOps(change?: (own: Record<string, Kernel>) => Record<string, Kernel>): Promise<Ops> {
  const ops = await Ops.load({ isa: isas.at(-1)!, threads: 1 });
  if (change === undefined) return ops;
  const own = ops.symbols as unknown as Record<string, Kernel>;
  const all = Object.fromEntries(Object.keys(symbols).map((name) => [name, own[name]!]));
  Object.defineProperty(ops, "symbols", { value: { ...all, ...change(own) } as unknown as KernelLibrary });
  return ops;
}

function subjectOf(ops: Ops): Subject {
  const subject = createSubject(ops, "tiny", config, { dtype: "bf16", maxTokens: 512 });
  return { ...subject, pools: [createRandomPool(ops, subject.model, "gdn")] };
}

let subject: Subject;
beforeAll(async () => {
  subject = subjectOf(await ownOps());
});
afterAll(() => {
  for (const pool of subject.pools) pool.free();
  subject.model.free();
});

test("measureDecode() at a context that is not computed", () => {
  const figure = measureDecode(subject, one, new StreamingRead(subject.ops, 1 << 22));
  expect(figure.lastContext).toBe(401 + 1 + 6 + 6); // the context, its last token, what was drawn
  expect(figure.meanContext).toBeGreaterThan(400);
  expect(figure.meanContext).toBeLessThan(figure.lastContext);
  const costs = maskCosts(subject, mixed, types);
  const kv = costs.kvBytesPerToken * (figure.meanContext + 1);
  expect(figure.bound.bytes).toBeCloseTo(costs.readBytes + 3 * (kv + costs.stateTraffic), 0);
  const full = maskCosts(subject, base, types).readBytes;
  const textbook = full + 3 * (costs.kvBytesPerToken * figure.meanContext + 2 * costs.matrixBytes);
  expect(figure.textbook.bytes).toBeCloseTo(textbook, 0);
  expect(figure.bound.tokensPerSecond).toBeCloseTo((3 * figure.limit) / figure.bound.bytes, 6);
});

test("as many sequences as an engine would not let wait by itself", () => {
  const many = { ...one, batch: 300, context: 5, tokens: 1, repeats: 1 };
  expect(measureDecode(subject, many, new StreamingRead(subject.ops, 1 << 22)).tokensPerSecond.mean).toBeGreaterThan(0);
});

test("short sequences of a hybrid are compared with a forward pass first", async () => {
  expect(checkDecode(subject, mixed, types)).toBe(3);
  const broken = await ownOps(({ graft_gdn_step }) => ({
    // Rows alone, as in decoding, are left as they are. The place of N among the arguments: before the stride.
    graft_gdn_step: (...args) => (args.at(-2)! <= 3 ? 0 : graft_gdn_step!(...args)),
  }));
  const other = subjectOf(broken);
  expect(() => checkDecode(other, mixed, types)).toThrow('Cannot give a figure for "gdn-5": token');
  for (const pool of other.pools) pool.free();
  other.model.free();
});

test("a small model of the same heads is compared with the reference", async () => {
  const reference = await opsOf("reference");
  const wanted = { ...types, weightType: "bf16" } as const;
  const llama = shapeConfig("llama-3.2-1b");
  const error = checkSmallCase(subject.ops, reference, llama, ["gdn"], wanted);
  expect(error).toBeGreaterThan(0);
  expect(error).toBeLessThan(0.02);
  const scaled = await ownOps(({ graft_gdn_step }) => ({
    graft_gdn_step: (...args) => {
      const status = graft_gdn_step!(...args);
      scaled.zero({ ptr: args[0]!, shape: [10 * 512], dtype: "f32" }); // ten rows of a chunk
      return status;
    },
  }));
  expect(() => checkSmallCase(scaled, reference, llama, ["gdn"], wanted)).toThrow("of a small model differ");
});

test("the largest batch is what the memory holds, or what was asked for", () => {
  expect(largestBatch(subject, one, 7)).toBe(7);
  // A million tokens of this model take 2.5 GB.
  const long = { ...subject, model: { ...subject.model, config: { ...config, maxPositions: 2 ** 24 } } };
  const batch = largestBatch(long, { ...one, mask: base, context: 1_000_000 }, 4096);
  const each = maskCosts(subject, base, types).kvBytesPerToken * 1_000_000;
  expect(batch * each).toBeLessThan(freeBytes(subject.ops));
  expect((batch + 1.5) * each).toBeGreaterThan(0.9 * freeBytes(subject.ops) - 2 ** 29);
  expect(() => largestBatch(long, { ...one, mask: base, context: 2 ** 24 - 64 }, 64)).toThrow(CapacityError);
});

test("a device's limit is a copy, bytes read and written", async () => {
  const simt = await opsOf("simt");
  expect(bandwidthOf(simt).kind).toBe("copy");
  expect(bandwidthOf(subject.ops).kind).toBe("read");
  const rate = new DeviceCopy(simt, 1 << 22).measure();
  expect(rate).toBeGreaterThan(1e8);
  expect(rate).toBeLessThan(1e13);
});

test("fitContexts() finds the line that points lie on", () => {
  const points = [512, 2048, 16384].map((context) => ({ context, seconds: 2e-3 + 3e-8 * context }));
  const { interceptSeconds, slopeSeconds } = fitContexts(points)!;
  expect(interceptSeconds).toBeCloseTo(2e-3, 9);
  expect(slopeSeconds).toBeCloseTo(3e-8, 13);
  expect(fitContexts(points.slice(0, 1))).toBeNull();
});
