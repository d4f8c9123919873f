// A device that is lost in the middle, and one that is full, planted in the emulator: what an op says, and that an engine
// on it ends its streams, calls the device no more and stays down with the reason.
import { afterEach, expect, test } from "bun:test";
import { startEngine } from "../../src/engine/client.ts";
import { RestartingEngine } from "../../src/engine/restarting_engine.ts";
import { DeviceLostError, EngineLostError, KernelError } from "../../src/errors.ts";
import { Ops } from "../../src/ops/ops.ts";
import { tinyLlama, withTemporary, writeCheckpoint } from "../support/checkpoints.ts";
import { emulator, heal, leaveMemory, loseAfter, planted } from "../support/emulator.ts";

afterEach(heal);

function thrown(body: () => unknown): Error {
  try {
    body();
  } catch (error) {
    return error as Error;
  }
  throw new Error("Expected an error");
}

test("from the launch that loses the device on, every op and allocation fails as one that cannot be helped", async () => {
  const ops = await Ops.load(emulator);
  const x = ops.fromArray([4], Float32Array.of(1, 2, 3, 4));
  loseAfter(2);
  ops.silu(x, x);
  const calls = [() => ops.silu(x, x), () => ops.toFloat32(x), () => ops.empty([4]), () => ops.zero(x)];
  for (const call of calls) {
    const error = thrown(call);
    expect(error).toBeInstanceOf(DeviceLostError);
    expect(error).toMatchObject({ code: "device_lost" });
    expect(error.message).toStartWith("The device is lost: ");
  }
  await expect(Ops.load(emulator)).rejects.toThrow("unspecified launch failure");
  heal();
  ops.silu(x, x);
});

test("a fault of one call is not the loss of the device", async () => {
  const ops = await Ops.load(emulator);
  const [a, b] = [ops.empty([128]), ops.empty([128])];
  const status = planted(a.ptr as never, b.ptr as never, 128, 3, 1);
  const error = thrown(() => ops.check("planted", status));
  expect(error).not.toBeInstanceOf(DeviceLostError);
  expect(error).toBeInstanceOf(KernelError);
});

test("a device that is full says how much was asked for, and is not lost", async () => {
  const ops = await Ops.load(emulator);
  const total = leaveMemory(1000);
  expect(ops.info()).toMatchObject({ memory: total, free: 1000 });
  const error = thrown(() => ops.empty([4096]));
  expect(error).not.toBeInstanceOf(DeviceLostError);
  expect(error.message).toMatch(/^Cannot allocate 16384 bytes of device memory: /);
  ops.free(ops.empty([100]));
});

test("an op that finds no memory fails, and the one after it does not", async () => {
  const ops = await Ops.load(emulator);
  const [N, V] = [32, 65_536];
  const [ids, logits, params] = [ops.empty([N], "i32"), ops.empty([N, V]), ops.empty([N * 8])];
  leaveMemory(1000);
  const error = thrown(() => ops.sample(ids, null, logits, params));
  expect(error).toMatchObject({ code: "out_of_memory" });
  ops.silu(logits, logits);
  for (const tensor of [ids, logits, params]) ops.free(tensor);
});

test("an engine whose device is lost ends its streams and calls, stays dead with the reason, and starts no other", () =>
  withTemporary(async (folder) => {
    const modelDir = writeCheckpoint(folder, tinyLlama);
    const logged: string[] = [];
    let starts = 0;
    const start = () => {
      starts++;
      return startEngine({ ...emulator, modelDir, kvBytes: 1 << 16, stateBytes: 1 << 16, maxSequences: 4 });
    };
    const engine = await RestartingEngine.start(start, { log: (message) => void logged.push(message) });
    try {
      expect(engine.problem).toBeNull();
      const open = () => engine.generate({ promptIds: [3, 4], maxTokens: 60 })[Symbol.asyncIterator]();
      const streams = [open(), open()];
      for (const stream of streams) await stream.next();
      loseAfter(5);
      for (const stream of streams) {
        const error = await drain(stream);
        expect(error).toBeInstanceOf(EngineLostError);
        expect(error).toMatchObject({
          code: "engine_dead",
          message: "The device was lost; the server has to be started again",
        });
      }
      // A device that comes back by itself changes nothing: what lay on it is not trusted.
      heal();
      await expect(engine.stats()).rejects.toMatchObject({ code: "engine_dead" });
      expect([engine.state, engine.alive, starts]).toEqual(["dead", false, 1]);
      expect(engine.problem).toMatch(/^The device is lost: .*unspecified launch failure$/);
      expect(logged).toEqual([
        `the engine has stopped: ${engine.problem}`,
        "the engine stays dead: a lost device comes back in a new process only",
      ]);
    } finally {
      await engine.close();
    }
  }));

async function drain(stream: AsyncIterator<unknown>): Promise<unknown> {
  try {
    for (let next = await stream.next(); next.done !== true; next = await stream.next());
  } catch (error) {
    return error;
  }
  throw new Error("The stream has ended as if nothing were");
}
