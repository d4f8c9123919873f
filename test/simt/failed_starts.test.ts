// Engines that cannot be: nothing of them stays on the device, so that the next start finds what this one found.
import { afterEach, expect, test } from "bun:test";
import { join } from "node:path";
import type { LoadableMixer } from "../../models/attention/mixer.ts";
import { parseModelConfig } from "../../models/parse_config.ts";
import { openPool } from "../../models/pool.ts";
import { createRandomModel } from "../../models/random_model.ts";
import { createEngine } from "../../src/engine/create.ts";
import { deviceAtStart } from "../../src/engine/device_room.ts";
import { openEngine } from "../../src/engine/load.ts";
import { Ops } from "../../src/ops/ops.ts";
import { tinyGpt2, tinyHybrid, tinyLlama, withTemporary, writeCheckpoint } from "../support/checkpoints.ts";
import { emulator, heal, leaveMemory, memoryUsed } from "../support/emulator.ts";
import { makePool } from "../support/pools.ts";

afterEach(heal);

const KIB = 2 ** 10;
const limits = { maxSequences: 2, maxBatchTokens: 6, pageSize: 8, maxContext: 16 };

test.each([
  ["a hybrid with its own linear layers", tinyHybrid],
  ["GPT-2", tinyGpt2],
])("wherever memory runs out, all of it is given back: %s", (_, config) =>
  withTemporary(async (folder) => {
    const modelDir = writeCheckpoint(folder, config);
    await Ops.load(emulator);
    const open = (options = {}) => openEngine({ ...emulator, ...limits, modelDir, ...options });
    leaveMemory(2 ** 26);
    (await open()).close();
    const used = memoryUsed();
    let failed = 0;
    for (let bytes = KIB; bytes < 2 ** 26; bytes = Math.ceil(bytes * 3.5)) {
      leaveMemory(bytes);
      const opened = await open().catch(() => null);
      if (opened !== null) {
        opened.close();
        break;
      }
      failed++;
      expect([bytes, memoryUsed() - used]).toEqual([bytes, 0]);
    }
    expect(failed).toBeGreaterThan(4);
    heal();
    // After all memory has been had: a folder for sessions that cannot be.
    const broken = { directory: `${modelDir}/config.json/x`, maxBytes: 1 << 20 };
    await expect(open({ sessions: broken })).rejects.toThrow();
    expect(memoryUsed() - used).toBe(0);
  }),
);

test("a counterpart that does not fit leaves nothing, wherever in its loading memory runs out", () =>
  withTemporary(async (folder) => {
    const modelDir = writeCheckpoint(join(folder, "model"), tinyLlama);
    makePool(modelDir, join(folder, "gdn"), "gdn");
    const ops = await Ops.load(emulator);
    const pool = openPool(ops, join(folder, "gdn"), { dtype: "bf16" });
    const mixer = pool.mixers[0] as LoadableMixer;
    const used = memoryUsed();
    let failed = 0;
    for (let bytes = 256; !mixer.loaded; bytes += 768, failed++) {
      leaveMemory(bytes);
      await mixer.load(async () => {}).catch(() => {});
      if (!mixer.loaded) expect([bytes, memoryUsed() - used]).toEqual([bytes, 0]);
    }
    expect(failed).toBeGreaterThan(8);
    pool.free();
    expect(memoryUsed()).toBe(used);
  }));

test("what others give back while a model is loaded does not count as less than nothing for it", async () => {
  const ops = await Ops.load(emulator);
  leaveMemory(2 ** 26);
  const start = deviceAtStart(ops)!;
  const model = createRandomModel(ops, parseModelConfig(tinyLlama));
  const crowded = { ...start, freeBytes: start.freeBytes - 2 ** 24 };
  const engine = createEngine(ops, model, limits, { deviceAtStart: crowded });
  try {
    const { memory } = engine.info;
    expect(memory!.weightBytes).toBeGreaterThanOrEqual(model.backbone.weightBytes());
    expect(memory!.poolBytes).toBeGreaterThan(0);
  } finally {
    engine.close();
    model.free();
  }
});
