// graft_attention_step on the CUDA kernels, in the emulator: norms, rope and the write of the cache inside attention,
// against the reference at odd shapes; the same bits however rows are cut into calls; wrong positions and pages.
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { rows } from "../../src/tensor/tensor.ts";
import {
  attendSteps,
  type StepCase,
  stepBatch,
  stepLayer,
  stepsOf,
  wholeStep,
} from "../support/attention_step_case.ts";
import { opsOf } from "../support/kernels.ts";
import { expectClose, expectSameBits } from "../support/op_case.ts";

const cases: StepCase[] = [
  { heads: [1, 1, 32], lengths: [66, 1], pageSize: 16, dtype: "bf16", norms: true, rope: true },
  { heads: [6, 2, 64], lengths: [70, 3], pageSize: 5, dtype: "bf16", norms: false, rope: true },
  { heads: [7, 1, 64], lengths: [67], pageSize: 32, dtype: "bf16", norms: true, rope: false },
  { heads: [8, 1, 128], lengths: [65, 64], pageSize: 48, dtype: "bf16", norms: true, rope: true },
  { heads: [17, 1, 32], lengths: [30, 0, 2], pageSize: 1, dtype: "bf16", norms: true, rope: true },
  { heads: [4, 2, 40], lengths: [20, 7], pageSize: 16, dtype: "bf16", norms: true, rope: true },
  { heads: [2, 1, 64], lengths: [40, 2], pageSize: 16, dtype: "f32", norms: true, rope: true },
];

const nameOf = ({ heads, lengths, dtype }: StepCase) => `${heads} rows ${lengths} ${dtype}`;

describe.each(cases.map((one) => [nameOf(one), one] as const))("%s", (_, one) => {
  test("matches the reference", async () => {
    const limit = one.dtype === "bf16" ? 1e-2 : 1e-5;
    const expected = attendSteps(await opsOf("reference"), one, wholeStep(one));
    expectClose(attendSteps(await opsOf("simt"), one, wholeStep(one)), expected, limit, "whole");
  });

  test("gives the same bits for any calls", async () => {
    const ops = await opsOf("simt");
    const expected = attendSteps(ops, one, wholeStep(one));
    expectSameBits(attendSteps(ops, one, stepsOf(one, 1)), expected, "row by row");
    expectSameBits(attendSteps(ops, one, stepsOf(one, 9)), expected, "chunks of 9");
    const alone = one.lengths.flatMap((length, s) =>
      stepsOf({ ...one, lengths: [length] }, 40).map((calls) => {
        return calls.map(([, from, count]) => [s, from, count] as const);
      }),
    );
    expectSameBits(attendSteps(ops, one, alone), expected, "each sequence alone");
  });
});

test("row by row over the borders of spans", async () => {
  const ops = await opsOf("simt");
  const one: StepCase = {
    heads: [3, 1, 32],
    lengths: [520, 258],
    pageSize: 32,
    dtype: "bf16",
    norms: true,
    rope: true,
  };
  const expected = attendSteps(ops, one, wholeStep(one));
  const ends = [
    [0, 0, 510],
    [1, 0, 250],
  ] as const;
  const steps = Array.from({ length: 10 }, (_, i) => [
    [0, 510 + i, 1] as const,
    ...(i < 8 ? [[1, 250 + i, 1] as const] : []),
  ]);
  expectSameBits(attendSteps(ops, one, [ends, ...steps]), expected, "the last rows one by one");
});

test("more sequences than a launch takes", async () => {
  const lengths = Array.from({ length: 1030 }, (_, s) => 1 + (s % 400 === 7 ? 17 : 0));
  const one: StepCase = { heads: [1, 1, 32], lengths, pageSize: 18, dtype: "bf16", norms: false, rope: true };
  const ops = await opsOf("simt");
  const expected = attendSteps(await opsOf("reference"), one, wholeStep(one));
  expectClose(attendSteps(ops, one, wholeStep(one)), expected, 1e-2, "whole");
  expectClose(attendSteps(ops, one, stepsOf(one, 1)), expected, 1e-2, "row by row");
});

test("calls with the same arguments follow positions that the device moves on", async () => {
  const ops = await opsOf("simt");
  const one: StepCase = { heads: [2, 1, 32], lengths: [262], pageSize: 32, dtype: "bf16", norms: false, rope: true };
  const layer = stepLayer(ops, one);
  const { kv, batch } = stepBatch(ops, layer.cache, [[0, 0, 1]], layer.longest);
  const [q, k, v, o] = [ops.empty([1, 64]), ops.empty([1, 32]), ops.empty([1, 32]), ops.empty([1, 64])];
  const got = new Float32Array(layer.longest * 64);
  for (let i = 0; i < layer.longest; i++) {
    ops.copy(q, rows(layer.q, i, 1));
    ops.copy(k, rows(layer.k, i, 1));
    ops.copy(v, rows(layer.v, i, 1));
    ops.upload(batch.startPos, Int32Array.of(i));
    ops.attentionStep(o, { q, k, v }, kv, batch, layer.weights, layer.sizes);
    got.set(ops.toFloat32(o), i * 64);
  }
  expectSameBits(got, attendSteps(ops, one, wholeStep(one)), "longest stays");
});

test("GRAFT_ATTENTION=plain keeps float32 all the way", async () => {
  const run = (setting: string) => {
    const command = [process.execPath, join(import.meta.dir, "plain_attention.ts")];
    const child = Bun.spawnSync(command, { env: { ...process.env, GRAFT_ATTENTION: setting } });
    return JSON.parse(child.stdout.toString()) as { far: number; same: boolean };
  };
  const [plain, usual] = [run("plain"), run("")];
  expect(plain.far).toBeLessThan(1e-5);
  expect(usual.far).toBeGreaterThan(1e-4);
  expect([plain.same, usual.same]).toEqual([true, true]);
});

test("positions beyond `longest` and pages that are none are complained of, and nothing is written", async () => {
  const ops = await opsOf("simt");
  const one: StepCase = { heads: [2, 1, 32], lengths: [48], pageSize: 16, dtype: "bf16", norms: true, rope: true };
  const layer = stepLayer(ops, one);
  const o = ops.empty([1, 64]);
  const before = ops.toFloat32(layer.cache.kCache);
  const at = (position: number, longest: number, page = 2) => {
    const { kv, batch } = stepBatch(ops, layer.cache, [[0, position, 1]], longest);
    const pageTable = ops.fromArray([3], Int32Array.of(page, page, page));
    const [q, k, v] = [ops.empty([1, 64]), ops.empty([1, 32]), ops.empty([1, 32])];
    ops.attentionStep(o, { q, k, v }, { ...kv, pageTable }, batch, layer.weights, layer.sizes);
  };
  expect(() => at(40, 40)).toThrow("row 0 names 40, expected 0 to 39");
  expect(() => at(-2, 40)).toThrow("row 0 names -2, expected 0 to 39");
  expect(() => at(0, 40, -3)).toThrow("row 0 names -3");
  expect(() => at(0, 4000)).toThrow("longest is 4000, the table has 48 positions");
  expectSameBits(ops.toFloat32(layer.cache.kCache), before, "keys");
});
