// graft_attention_step of the host libraries: the bits of norms, rope, write and attention one by one, the reference at
// odd shapes, one answer for any calls, and arguments that are wrong.
import { describe, expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import {
  attendSteps,
  type StepCase,
  stepBatch,
  stepLayer,
  stepsOf,
  wholeStep,
} from "../support/attention_step_case.ts";
import { isas, opsOf } from "../support/kernels.ts";
import { expectClose, expectSameBits, fastIsas } from "../support/op_case.ts";

const cases: StepCase[] = [
  { heads: [1, 1, 32], lengths: [66, 1], pageSize: 16, dtype: "bf16", norms: true, rope: true },
  { heads: [6, 2, 64], lengths: [70, 3], pageSize: 5, dtype: "f32", norms: false, rope: true },
  { heads: [7, 1, 64], lengths: [67], pageSize: 32, dtype: "bf16", norms: true, rope: false },
  { heads: [8, 1, 128], lengths: [65, 64], pageSize: 48, dtype: "f32", norms: true, rope: true },
  { heads: [4, 2, 24], lengths: [30, 0, 2], pageSize: 1, dtype: "bf16", norms: true, rope: true },
];
const nameOf = ({ heads, lengths, dtype }: StepCase) => `${heads} rows ${lengths} ${dtype}`;

/** The whole case by the single ops. */
function oneByOne(ops: Ops, one: StepCase): Float32Array {
  const { sizes, cache, q, k, v, weights } = stepLayer(ops, one);
  const [Hq, Hkv, D] = one.heads;
  const { kv, batch, N } = stepBatch(ops, cache, wholeStep(one)[0]!, Math.max(...one.lengths));
  const perHead = (t: typeof q, H: number) => ({ ...t, shape: [N * H, D] });
  const heads = (t: typeof q, H: number) => ({ ...t, shape: [N, H, D] });
  const positions = one.lengths.flatMap((length) => Array.from({ length }, (_, i) => i));
  const slots = one.lengths.flatMap((length, s) =>
    Array.from({ length }, (_, i) => {
      const page = cache.table[s * cache.tableStride + Math.floor(i / cache.pageSize)]!;
      return page * cache.pageSize + (i % cache.pageSize);
    }),
  );
  const ints = (values: number[]) => ops.fromArray([values.length], Int32Array.from(values));
  if (weights.norms) {
    ops.rmsNorm(perHead(q, Hq), perHead(q, Hq), weights.norms.q, weights.norms.eps);
    ops.rmsNorm(perHead(k, Hkv), perHead(k, Hkv), weights.norms.k, weights.norms.eps);
  }
  if (weights.ropeTable) {
    ops.rope(heads(q, Hq), heads(q, Hq), ints(positions), weights.ropeTable);
    ops.rope(heads(k, Hkv), heads(k, Hkv), ints(positions), weights.ropeTable);
  }
  ops.kvWrite(kv, heads(k, Hkv), heads(v, Hkv), ints(slots), sizes);
  const o = ops.empty([N, Hq, D]);
  ops.attention(o, heads(q, Hq), kv, batch.seqStart, batch.startPos, sizes);
  return ops.toFloat32(o);
}

for (const isa of isas) {
  test.each(cases.map((one) => [nameOf(one), one] as const))(`%s: the bits of its parts on ${isa}`, async (_, one) => {
    const ops = await opsOf(isa);
    expectSameBits(attendSteps(ops, one, wholeStep(one)), oneByOne(ops, one), "step");
  });
}

for (const isa of fastIsas) {
  describe(isa, () => {
    test.each(cases.map((one) => [nameOf(one), one] as const))(
      "%s: reference, any calls, any threads",
      async (_, one) => {
        const ops = await opsOf(isa);
        const whole = attendSteps(ops, one, wholeStep(one));
        const limit = one.dtype === "bf16" ? 1e-2 : 2e-5;
        expectClose(whole, attendSteps(await opsOf("reference"), one, wholeStep(one)), limit, "reference");
        expectSameBits(attendSteps(ops, one, stepsOf(one, 1)), whole, "row by row");
        ops.setThreads(1);
        const alone = attendSteps(ops, one, stepsOf(one, 9));
        ops.setThreads(2);
        expectSameBits(alone, whole, "one thread, chunks of 9");
      },
    );
  });
}

test.each(isas)("wrong positions, pages and tables are refused and nothing is written on %s", async (isa) => {
  const ops = await opsOf(isa);
  const one: StepCase = { heads: [2, 1, 32], lengths: [48], pageSize: 16, dtype: "bf16", norms: true, rope: true };
  const layer = stepLayer(ops, one);
  const before = ops.toFloat32(layer.cache.kCache);
  const at = (position: number, longest: number, page = 2) => {
    const { kv, batch } = stepBatch(ops, layer.cache, [[0, position, 1]], longest);
    const pageTable = ops.fromArray([3], Int32Array.of(page, page, page));
    const [o, q, k, v] = [ops.empty([1, 64]), ops.empty([1, 64]), ops.empty([1, 32]), ops.empty([1, 32])];
    ops.attentionStep(o, { q, k, v }, { ...kv, pageTable }, batch, layer.weights, layer.sizes);
  };
  expect(() => at(40, 40)).toThrow("sequence 0 stands at 40 to 41, longest is 40");
  expect(() => at(-2, 40)).toThrow("sequence 0 stands at -2");
  expect(() => at(0, 40, -3)).toThrow("page 0 of sequence 0 is -3");
  expect(() => at(0, 4000)).toThrow("longest is 4000, the table has 48 positions");
  expectSameBits(ops.toFloat32(layer.cache.kCache), before, "keys");
});
