// Recordings, and what moves a step's numbers on: what a device does with them, and the host libraries in one path with it.
import { expect, test } from "bun:test";
import { Fetch } from "../../src/ops/repeat_ops.ts";
import { forwardLibraries, opsOf } from "../support/kernels.ts";
import { expectSameBits, outputs, random } from "../support/op_case.ts";

test.each(forwardLibraries)("advance() moves ids, positions and draws on by one on %s", async (library) => {
  const ops = await opsOf(library);
  const ids = ops.fromArray([3], Int32Array.of(7, 8, 9));
  const positions = ops.fromArray([5], Int32Array.of(10, 20, 30, 20, 10));
  const words = new Uint32Array(24).map((_, i) => i);
  const params = ops.fromArray([24], words);
  const drawn = ops.fromArray([3], Int32Array.of(4, -1, 0));
  ops.advance({ ids, positions, params }, drawn);
  expect([...ops.toInt32(ids)]).toEqual([4, 0, 0]);
  expect([...ops.toInt32(positions)]).toEqual([11, 21, 31, 21, 11]);
  expect([...ops.toInt32(params)]).toEqual([...words].map((word, i) => (i % 8 === 7 ? word + 1 : word)));
});

test.each(forwardLibraries)("put() writes the named places alone and refuses others on %s", async (library) => {
  const ops = await opsOf(library);
  const table = ops.fromArray([5], Int32Array.of(1, 2, 3, 4, 5));
  ops.put(table, ops.fromArray([2, 2], Int32Array.of(4, 40, 0, 10)));
  expect([...ops.toInt32(table)]).toEqual([10, 2, 3, 4, 40]);
  for (const place of [-1, 5]) {
    const wrong = ops.fromArray([1, 2], Int32Array.of(place, 0));
    expect(() => ops.put(table, wrong)).toThrow(`row 0 names ${place}, expected 0 to 4`);
  }
  expect([...ops.toInt32(table)]).toEqual([10, 2, 3, 4, 40]);
});

test.each(forwardLibraries)("a fetch brings what was there when it began on %s", async (library) => {
  const ops = await opsOf(library);
  const [first, second] = [new Fetch(ops, 8, 0), new Fetch(ops, 8, 1)];
  const source = ops.fromArray([3], Int32Array.of(1, 2, 3));
  first.begin(source);
  ops.upload(source, Int32Array.of(4, 5, 6));
  second.begin(source);
  ops.upload(source, Int32Array.of(7, 8, 9));
  expect([...first.wait().subarray(0, 3)]).toEqual([1, 2, 3]);
  expect([...second.wait().subarray(0, 3)]).toEqual([4, 5, 6]);
  expect(() => new Fetch(ops, 1, 4).begin(source)).toThrow("ticket is 4");
  first.close();
  second.close();
});

test("a replay does what was recorded with what the operands hold then", async () => {
  const ops = await opsOf("simt");
  const [N, C] = [3, 40];
  const w = ops.linearPack(random(ops, [24, C], 1));
  const x = ops.empty([N, C]);
  const y = outputs(ops, { plain: [N, 24], recorded: [N, 24], doubled: [N, 24] });
  ops.linear(y.plain, x, w);
  ops.linear(y.recorded, x, w);
  const recording = ops.record(() => {
    ops.linear(y.recorded, x, w);
    ops.add(y.doubled, y.recorded, y.recorded);
    ops.copy(y.recorded, y.doubled);
  })!;
  for (const seed of [2, 3]) {
    ops.copy(x, random(ops, [N, C], seed));
    ops.linear(y.plain, x, w);
    ops.replay(recording);
    const { plain, recorded } = y.read();
    expectSameBits(
      recorded,
      plain.map((value) => 2 * value),
      `seed ${seed}`,
    );
  }
  ops.freeRecording(recording);
});

test("recording does nothing but record, and says what it cannot record", async () => {
  const ops = await opsOf("simt");
  const t = ops.fromArray([2], Float32Array.of(1, 2));
  const recording = ops.record(() => ops.add(t, t, t))!;
  expect([...ops.toFloat32(t)]).toEqual([1, 2]);
  ops.replay(recording);
  ops.replay(recording);
  expect([...ops.toFloat32(t)]).toEqual([4, 8]);
  ops.freeRecording(recording);
  expect(() => ops.record(() => ops.toFloat32(t))).toThrow("Cannot download 8 bytes while recording");
  expect(() => ops.record(() => ops.upload(t, Float32Array.of(0, 0)))).toThrow("Cannot upload 8 bytes while recording");
  expect(() => ops.record(() => void ops.empty([4]))).toThrow("Cannot allocate 16 bytes while recording");
  expect(() => ops.record(() => void ops.record(() => {}))).toThrow("a recording has begun already");
  // What failed has ended too.
  ops.freeRecording(ops.record(() => ops.add(t, t, t))!);
  expect([...ops.toFloat32(t)]).toEqual([4, 8]);
});

test("what a recording writes to stays when an op needs more scratch later", async () => {
  const ops = await opsOf("simt");
  const params = ops.fromArray([16], new Float32Array(16).fill(1));
  const [small, large] = [random(ops, [1, 50], 1), random(ops, [2, 200_000], 2)];
  const [ids, other] = [ops.empty([1], "i32"), ops.empty([2], "i32")];
  ops.sample(ids, null, small, params);
  const [expected] = ops.toInt32(ids);
  const recording = ops.record(() => ops.sample(ids, null, small, params))!;
  expect(() => ops.record(() => ops.sample(other, null, random(ops, [2, 200_000], 2), params))).toThrow();
  ops.sample(other, null, large, params);
  ops.zero(ids);
  ops.replay(recording);
  expect(ops.toInt32(ids)[0]).toBe(expected!);
  ops.freeRecording(recording);
});

test.each(forwardLibraries.filter((library) => library !== "simt"))("%s records nothing", async (library) => {
  const ops = await opsOf(library);
  const t = ops.fromArray([1], Float32Array.of(1));
  expect(ops.record(() => ops.add(t, t, t))).toBeNull();
  expect([...ops.toFloat32(t)]).toEqual([1]);
});
