// What a host tells its client where messages cross with what the engine finds out: every stream hears of its end, once.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EngineHost } from "../../src/engine/host.ts";
import { openEngine } from "../../src/engine/load.ts";
import type { FromEngine } from "../../src/engine/protocol.ts";
import { tinyLlama, writeCheckpoint } from "../support/checkpoints.ts";
import { makePool } from "../support/pools.ts";

const folder = mkdtempSync(join(tmpdir(), "graft-host-"));
const modelDir = join(folder, "model");

beforeAll(() => {
  writeCheckpoint(modelDir, tinyLlama);
  makePool(modelDir, join(folder, "gla"), "gla");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a stream that is cancelled when its hybrid has just been refused hears why it ended", async () => {
  const opened = await openEngine({ modelDir, pools: [join(folder, "gla")], threads: 1, poolBytes: 1 });
  const { engine, openPool } = opened;
  const told: FromEngine[] = [];
  const host = new EngineHost({ engine, openPool, post: (message) => told.push(message), beat: () => {} });
  engine.registerHybrid({ name: "gla", layers: ["gla", "gla"] });
  host.handle({ kind: "generate", id: 7, request: { hybrid: "gla", promptIds: [1, 2, 3], maxTokens: 4 } });
  host.handle({ kind: "cancel", id: 7 });
  const running = host.run();
  for (let i = 0; i < 100 && told.length === 0; i++) await Bun.sleep(5);
  host.handle({ kind: "close" });
  await running;
  opened.close();
  expect(told).toMatchObject([{ kind: "error", id: 7, error: { code: "pool_memory" } }]);
});
