// The thread pool under the kernels: no task lost or done twice over thousands of short regions, pauses long enough for
// the workers to fall asleep, and changes of size.
import { expect, test } from "bun:test";
import { opsOf, randomFloats } from "../support/kernels.ts";
import { fastIsas } from "../support/op_case.ts";

/** Elements of one add: three tasks and a bit. */
const COUNT = 100_001;

test.each(fastIsas)("every element is added exactly once in every region on %s", async (isa) => {
  const ops = await opsOf(isa);
  const ones = ops.fromArray([COUNT], new Float32Array(COUNT).fill(1));
  const sum = ops.empty([COUNT]);
  let regions = 0;
  for (const threads of [2, 5, 1, 3, 8, 2]) {
    ops.setThreads(threads);
    for (let i = 0; i < 200; i++, regions++) {
      ops.axpy(sum, ones, 1); // read, add and write: a task done twice shows as one too many
      if (i % 40 === 0) Bun.sleepSync(1);
    }
  }
  ops.setThreads(2);
  const values = ops.toFloat32(sum);
  expect(values.every((value) => value === regions)).toBe(true);
  for (const t of [ones, sum]) ops.free(t);
});

test.each(fastIsas)("init() with 0 takes at least one thread and at most one per core on %s", async (isa) => {
  const ops = await opsOf(isa);
  ops.setThreads(0);
  const threads = Number(ops.info().threads);
  ops.setThreads(2);
  expect(threads).toBeGreaterThanOrEqual(1);
  expect(threads).toBeLessThanOrEqual(navigator.hardwareConcurrency);
});

test.each(fastIsas)(
  "kernels called from two JavaScript threads at once keep their results apart on %s",
  async (isa) => {
    const ops = await opsOf(isa);
    const [N, C] = [64, 300];
    const [x, w] = [ops.fromArray([N, C], randomFloats(N * C, 1)), ops.fromArray([C, C], randomFloats(C * C, 2))];
    const y = ops.empty([N, C]);
    ops.matmulNt(y, x, w);
    const expected = ops.toFloat32(y);
    const script = `
    import { openLibrary } from ${JSON.stringify(`${import.meta.dir}/../../src/ops/abi.ts`)};
    self.onmessage = ({ data: { path, x, w, rounds } }) => {
      const lib = openLibrary(path);
      const y = lib.graft_alloc(${N * C * 4});
      let status = 0;
      for (let i = 0; i < rounds; i++) status |= lib.graft_matmul_nt(y, x, w, null, ${N}, ${C}, ${C}, 0);
      self.postMessage({ y: Number(y), status });
    };`;
    const worker = new Worker(URL.createObjectURL(new Blob([script], { type: "application/typescript" })));
    try {
      const done = new Promise<{ y: number; status: number }>((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data as { y: number; status: number });
        worker.onerror = (event) => reject(new Error(event.message));
      });
      const directory = process.env.GRAFT_KERNELS ?? `${import.meta.dir}/../../build/kernels`;
      worker.postMessage({ path: `${directory}/libgraft_cpu_${isa}.so`, x: x.ptr, w: w.ptr, rounds: 300 });
      for (let i = 0; i < 300; i++) ops.matmulNt(y, x, w);
      const other = await done;
      expect(other.status).toBe(0);
      expect(ops.toFloat32(y)).toEqual(expected);
      expect(ops.toFloat32({ ptr: other.y, shape: [N, C], dtype: "f32" })).toEqual(expected);
      ops.freeBytes(other.y);
    } finally {
      worker.terminate();
    }
  },
);
