// Memory and start-up of the kernel libraries: zeroed aligned blocks, exact conversions, refusals, what device info says.
import { expect, test } from "bun:test";
import { fillRandomBf16 } from "../../models/random_numbers.ts";
import { forwardLibraries, isas, opsOf, randomFloats } from "../support/kernels.ts";
import { expectSameBits } from "../support/op_case.ts";

/** bfloat16 bits of a float, nearest even, from its definition: the closer of the two neighbours, ties to the even one. */
function bfloat16Bits(x: number): number {
  const bits = new Uint32Array(Float32Array.of(x).buffer)[0]!;
  if (Number.isNaN(x)) return (bits >>> 16) | 0x40;
  const [low, rest] = [bits >>> 16, bits & 0xffff];
  if (rest > 0x8000 || (rest === 0x8000 && (low & 1) === 1)) return low + 1;
  return low;
}

const awkward = Float32Array.of(
  0,
  -0,
  1,
  -1.00390625,
  1.01171875,
  3e38,
  3.4e38,
  1e-40,
  -1e-45,
  Infinity,
  -Infinity,
  NaN,
);

test.each(isas)("alloc() gives aligned zeros of any size on %s", async (isa) => {
  const ops = await opsOf(isa);
  for (const bytes of [1, 63, 64, 4096, 100_000, 4 << 20, (9 << 20) + 5]) {
    const first = ops.empty([bytes / 1], "bf16");
    expect(first.ptr % 64).toBe(0);
    const words = new Uint16Array(bytes);
    words.fill(0xabcd);
    ops.download(first, words);
    expect(words.every((word) => word === 0)).toBe(true);
    ops.upload(first, words.fill(0x1234));
    ops.free(first);
    const again = ops.empty([bytes], "bf16"); // the same block may come back, and must be clean
    ops.download(again, words);
    expect(words.every((word) => word === 0)).toBe(true);
    ops.free(again);
  }
});

test.each(isas)("alloc() answers an absurd size with an error on %s", async (isa) => {
  const ops = await opsOf(isa);
  expect(() => ops.allocBytes(2 ** 52)).toThrow("Cannot allocate");
});

test.each(isas)("convert() rounds to bfloat16 as defined and widens exactly on %s", async (isa) => {
  const ops = await opsOf(isa);
  const values = Float32Array.from([...awkward, ...randomFloats(1000, 3).map((x) => x * 1e3)]);
  const [wide, narrow] = [ops.fromArray([values.length], values), ops.empty([values.length], "bf16")];
  ops.convert(narrow, wide);
  const bits = new Uint16Array(values.length);
  ops.download(narrow, bits);
  expect([...bits]).toEqual([...values].map(bfloat16Bits));
  const back = new Uint32Array(ops.toFloat32(narrow).buffer);
  expect([...back]).toEqual([...bits].map((b) => (b << 16) >>> 0));
});

test.each(isas)("convert() reads every float16 on %s", async (isa) => {
  const ops = await opsOf(isa);
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const half = ops.fromArray([65536], bits, "f16");
  const actual = ops.toFloat32(half);
  const expected = Float32Array.from(bits, (b) => {
    const [sign, exponent, fraction] = [b & 0x8000 ? -1 : 1, (b >> 10) & 31, b & 1023];
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
  });
  for (let i = 0; i < 65536; i++) if (Number.isNaN(expected[i])) expect(actual[i]).toBeNaN();
  const numbers = (a: Float32Array) => a.map((x) => (Number.isNaN(x) ? 0 : x));
  expectSameBits(numbers(actual), numbers(expected), "float16");
});

test.each(isas)("init() refuses absurd thread counts and device info tells the truth on %s", async (isa) => {
  const ops = await opsOf(isa);
  expect(ops.symbols.graft_init(-1)).toBe(1);
  expect(ops.symbols.graft_init(1000)).toBe(1);
  expect(ops.lastError()).toContain("1000 threads");
  const info = ops.info();
  expect(info.isa).toBe(isa === "reference" ? "scalar" : isa);
  expect(info.threads).toBe(isa === "reference" ? 1 : 2);
  expect(info.memory).toBeGreaterThan(1e8);
  const small = ops.hostAlloc(64);
  expect(ops.symbols.graft_device_info(small as never, 8)).toBe(1);
  expect(ops.lastError()).toContain("8 bytes");
  ops.hostFree(small);
});

test.each(isas)("graft_free() takes back null and what alloc() gave on %s", async (isa) => {
  const ops = await opsOf(isa);
  ops.symbols.graft_free(null);
  const blocks = Array.from({ length: 100 }, (_, i) => ops.allocBytes(1 << (i % 23)));
  expect(new Set(blocks).size).toBe(100);
  for (const block of blocks) ops.freeBytes(block);
});

test.each(forwardLibraries)("fillRandom() makes the same numbers in every library: %s", async (isa) => {
  const ops = await opsOf(isa);
  const count = 70_001;
  const [wide, narrow] = [ops.empty([count]), ops.empty([count + 1], "bf16")];
  ops.fillRandom(wide, 0x9abc_def0, 0.03);
  ops.fillRandom({ ...narrow, shape: [count] }, 0x9abc_def0, 0.03);
  const values = ops.toFloat32(wide);
  const mean = values.reduce((a, b) => a + b, 0) / count;
  const square = values.reduce((a, b) => a + b * b, 0) / count;
  expect(values.every((x) => x >= Math.fround(-0.03) && x < Math.fround(0.03))).toBe(true);
  expect(Math.abs(mean)).toBeLessThan(3e-4); // four standard errors
  expect(square).toBeCloseTo(3e-4, 5);
  const bits = new Uint16Array(count + 1);
  ops.download(narrow, bits);
  expect([...bits]).toEqual([...values].map(bfloat16Bits).concat(0));
  const [host, rest] = [new Uint16Array(count), new Uint16Array(100)];
  fillRandomBf16(host, 0, 0x9abc_def0, 0.03);
  fillRandomBf16(rest, count - 100, 0x9abc_def0, 0.03);
  expect([...host]).toEqual([...bits.subarray(0, count)]);
  expect([...rest]).toEqual([...host.subarray(count - 100)]);
  const other = ops.empty([count]);
  ops.fillRandom(other, 0x9abc_def1, 0.03);
  expect(ops.toFloat32(other).filter((x, i) => x === values[i]).length).toBeLessThan(10);
  for (const t of [wide, narrow, other]) ops.free(t);
});

test.each(forwardLibraries)("fillRandom() refuses what is no float on %s", async (isa) => {
  const ops = await opsOf(isa);
  const t = ops.empty([4]);
  expect(ops.symbols.graft_fill_random(t.ptr as never, 4, 2, 1, 1)).toBe(1);
  expect(() => ops.fillRandom(t, 1, Number.NaN)).toThrow("the scale is no number");
  expect(ops.symbols.graft_fill_random(0 as never, 4, 0, 1, 1)).toBe(1);
  ops.free(t);
});
