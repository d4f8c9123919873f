// An engine on a device of known size, in the emulator: the plan is kept, nothing is allocated once it serves, and what
// does not fit is refused before it does.
import { afterEach, expect, test } from "bun:test";
import { recordedBytes } from "../../src/engine/device_room.ts";
import { openEngine } from "../../src/engine/load.ts";
import type { EngineWorkerOptions, GenerateRequest } from "../../src/engine/types.ts";
import { Ops } from "../../src/ops/ops.ts";
import { type Config, tinyHybrid, tinyLlama, withTemporary, writeCheckpoint } from "../support/checkpoints.ts";
import { emulator, heal, leaveMemory, memoryUsed } from "../support/emulator.ts";

afterEach(heal);

const MIB = 2 ** 20;
const limits = { maxSequences: 2, maxBatchTokens: 6, pageSize: 8 };

async function withEngine<T>(
  config: Config,
  megabytes: number,
  options: Partial<EngineWorkerOptions>,
  use: (opened: Awaited<ReturnType<typeof openEngine>>) => T,
): Promise<T> {
  return withTemporary(async (folder) => {
    const modelDir = writeCheckpoint(folder, config);
    await Ops.load(emulator);
    leaveMemory(megabytes * MIB);
    const opened = await openEngine({ ...emulator, ...limits, modelDir, ...options });
    try {
      return use(opened);
    } finally {
      opened.close();
    }
  });
}

const request = (length: number, maxTokens: number): GenerateRequest => ({
  promptIds: Array.from({ length }, (_, i) => 3 + (i % 30)),
  maxTokens,
  sampling: { temperature: 1, topK: 5, presencePenalty: 0.5 },
  logprobs: 2,
});

const plain = (length: number, maxTokens: number): GenerateRequest => {
  const { promptIds } = request(length, 1);
  return { promptIds, maxTokens };
};

test.each([
  ["full attention", tinyLlama],
  ["a hybrid's own linear layers", tinyHybrid],
])("nothing is allocated while an engine serves: %s", (_, config) =>
  withEngine(config, 128, { memoryFraction: 0.5, maxContext: 24 }, ({ engine }) => {
    const { memory, maxContext } = engine.info;
    expect(maxContext).toBe(24);
    expect(memory).toMatchObject({ fraction: 0.5 });
    const { freeBytes, weightBytes, workspaceBytes, kvBytes, stateBytes, poolBytes } = memory!;
    expect(freeBytes).toBeGreaterThan(100 * MIB);
    expect(weightBytes + workspaceBytes + kvBytes + stateBytes + poolBytes).toBeLessThanOrEqual(0.5 * freeBytes);
    expect(engine.stats().kvBytesTotal).toBeLessThanOrEqual(kvBytes);
    const before = memoryUsed();
    engine.generate([request(14, 6), request(1, 3), request(23, 2), request(5, 9)]);
    engine.score([{ contextIds: [3, 4], continuationIds: Array(20).fill(5) }]);
    expect(memoryUsed()).toBe(before);
    // Steps that can be repeated keep tables of their structure: foreseen, too.
    engine.generate([plain(14, 8), plain(1, 9), plain(9, 3)]);
    expect(memoryUsed() - before).toBeLessThan(recordedBytes({ ...engine.info, stateDtype: "f32" }));
  }),
);

test("a model, a context and places that do not fit are refused before anything is served, and leave nothing behind", async () => {
  const ask = (megabytes: number, options: Partial<EngineWorkerOptions>) =>
    withEngine(tinyLlama, megabytes, { maxContext: 16, ...options }, () => "served");
  await ask(64, {});
  const used = memoryUsed();
  await expect(ask(64, { kvBytes: 32 * MIB })).rejects.toThrow(
    /^Cannot divide the device's memory: .* do not fit into /,
  );
  await expect(ask(64, { memoryFraction: 0.01 })).rejects.toThrow(
    /^Cannot divide the device's memory: there is no room/,
  );
  expect(memoryUsed()).toBe(used);
  await expect(ask(8, { maxBatchTokens: 8192, maxSequences: 4000 })).rejects.toThrow(
    /^Cannot divide the device's memory: steps of 8192 tokens, 4000 sequences and a context of 16 do not fit/,
  );
  await expect(ask(0.001, {})).rejects.toThrow(/Cannot allocate \d+ bytes of device memory/);
});
