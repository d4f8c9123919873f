// adjustLogits() against the plain formulas: penalties and biases bit for bit, masks of awkward sizes, rows left alone.
import { describe, expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import { guarded, isas, opsOf, randomFloats } from "../support/kernels.ts";
import { expectSameBits } from "../support/op_case.ts";

interface Entry {
  readonly id: number;
  readonly scale: number;
  readonly add: number;
}

interface Row {
  readonly entries: readonly Entry[];
  /** Allowed ids; null: all, without a mask. */
  readonly allowed: ReadonlySet<number> | null;
}

function adjust(ops: Ops, logits: Float32Array, V: number, rows: readonly Row[]): Float32Array {
  const N = rows.length;
  const entries = rows.flatMap((row) => row.entries);
  const words = new Int32Array(3 * entries.length);
  const floats = new Float32Array(words.buffer);
  entries.forEach(({ id, scale, add }, i) => {
    words[3 * i] = id;
    floats.set([scale, add], 3 * i + 1);
  });
  const starts = [0];
  for (const row of rows) starts.push(starts.at(-1)! + row.entries.length);
  const masked = rows.filter((row) => row.allowed !== null);
  const width = Math.ceil(V / 32);
  const masks = new Uint32Array(masked.length * width);
  masked.forEach(({ allowed }, m) => {
    for (const id of allowed!) masks[m * width + (id >> 5)]! |= 1 << (id & 31);
  });
  const maskRows = Int32Array.from(rows, (row) => masked.indexOf(row));
  const out = guarded(ops, [N, V]);
  ops.upload(out, logits);
  ops.adjustLogits(out, {
    entries: entries.length > 0 ? ops.fromArray([words.length], words) : null,
    entryStart: ops.fromArray([N + 1], Int32Array.from(starts)),
    masks: masked.length > 0 ? ops.fromArray([masked.length, width], masks) : null,
    maskRows: masked.length > 0 ? ops.fromArray([N], maskRows) : null,
  });
  out.check();
  return ops.toFloat32(out);
}

/** The same, one float32 operation after the other. */
function plain(logits: Float32Array, V: number, rows: readonly Row[]): Float32Array {
  const out = logits.slice();
  rows.forEach(({ entries, allowed }, i) => {
    for (const { id, scale, add } of entries) {
      const [x, by] = [out[i * V + id]!, Math.fround(scale)];
      out[i * V + id] = Math.fround(x > 0 ? x / by : x * by) + Math.fround(add);
    }
    for (let id = 0; allowed !== null && id < V; id++) {
      const at = i * V + id;
      if (!allowed.has(id)) out[at] = out[at]! < Number.POSITIVE_INFINITY ? Number.NEGATIVE_INFINITY : Number.NaN;
    }
  });
  return out;
}

function cases(V: number): Row[] {
  const all = Array.from({ length: V }, (_, id) => id);
  const entries = all
    .filter((id) => id % 3 === 1 || id === V - 1)
    .map((id) => ({ id, scale: 0.5 + (id % 7) / 4, add: ((id * 13) % 40) - 20 }));
  return [
    { entries: [], allowed: null },
    { entries, allowed: null },
    { entries: [], allowed: new Set(all.filter((id) => id % 5 === 2)) },
    { entries, allowed: new Set(all.filter((id) => id < 64 || id === V - 1)) },
    { entries: [{ id: 0, scale: 1.3, add: -100 }], allowed: new Set() },
    { entries: [{ id: 0, scale: 1, add: 0 }], allowed: new Set(all) },
    { entries: [], allowed: null },
  ];
}

describe.each(isas)("%s", (isa) => {
  test.each([1, 31, 32, 33, 63, 100, 1000, 20011])("entries and masks over %d ids", async (V) => {
    const ops = await opsOf(isa);
    const rows = cases(V);
    const logits = randomFloats(rows.length * V, 5).map((x) => x * 12);
    logits[1] = Number.NEGATIVE_INFINITY;
    expectSameBits(adjust(ops, logits, V, rows), plain(logits, V, rows), `V = ${V}`);
  });

  test("NaN and infinity show through a mask", async () => {
    const ops = await opsOf(isa);
    const logits = Float32Array.of(1, Number.NaN, Number.POSITIVE_INFINITY, 2, Number.NEGATIVE_INFINITY);
    const out = adjust(ops, logits, 5, [{ entries: [], allowed: new Set([0]) }]);
    const [infinity, nan] = [Number.NEGATIVE_INFINITY, Number.NaN];
    expect(Array.from(out)).toEqual([1, nan, nan, infinity, infinity]);
  });

  test("bad entries, borders and masks are refused and change nothing", async () => {
    const ops = await opsOf(isa);
    const one = (entry: Entry) => adjust(ops, new Float32Array(4), 4, [{ entries: [entry], allowed: null }]);
    expect(() => one({ id: 4, scale: 1, add: 0 })).toThrow("id 4 of entry 0 is outside 0..3");
    expect(() => one({ id: -1, scale: 1, add: 0 })).toThrow("id -1 of entry 0 is outside 0..3");
    expect(() => one({ id: 0, scale: 0, add: 0 })).toThrow("scale of entry 0 is 0");
    expect(() => one({ id: 0, scale: Number.NaN, add: 0 })).toThrow("scale of entry 0 is");
    expect(() => one({ id: 0, scale: 1, add: Number.NaN })).toThrow("addend of entry 0 is");
    const logits = ops.fromArray([1, 4], Float32Array.of(1, 2, 3, 4));
    const ints = (...values: number[]) => ops.fromArray([values.length], Int32Array.from(values));
    const none = { entries: null, masks: null, maskRows: null };
    expect(() => ops.adjustLogits(logits, { ...none, entryStart: ints(1, 1) })).toThrow("first entry is 1");
    expect(() => ops.adjustLogits(logits, { ...none, entryStart: ints(0, -1) })).toThrow("row 0 end at -1");
    const masked = { ...none, entryStart: ints(0, 0), masks: ops.fromArray([1, 1], Int32Array.of(0)) };
    expect(() => ops.adjustLogits(logits, { ...masked, maskRows: ints(1) })).toThrow("mask of row 0 is 1");
    expect(() => ops.adjustLogits(logits, { ...masked, maskRows: ints(-2) })).toThrow("mask of row 0 is -2");
    expect(() => ops.adjustLogits(logits, { ...masked, maskRows: null })).toThrow("null pointer");
    expect(() => ops.adjustLogits(logits, { ...none, entryStart: ints(0) })).toThrow("entryStart is i32 [1]");
    expect(Array.from(ops.toFloat32(logits))).toEqual([1, 2, 3, 4]);
  });
});
