// Restores of saved sessions between the steps of others, and at the engine's end: nobody's states are spoilt, no file is lost.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type OpenedEngine, openEngine } from "../../src/engine/load.ts";
import { tinyLlama, writeCheckpoint } from "../support/checkpoints.ts";
import { makePool } from "../support/pools.ts";

describe("restores beside other work", () => {
  const folder = mkdtempSync(join(tmpdir(), "graft-session-races-"));
  const modelDir = join(folder, "model");
  const saved = Array.from({ length: 41 }, (_, i) => (i * i + 3) % 40);
  const other = Array.from({ length: 41 }, (_, i) => (7 * i + 1) % 40);
  const request = (promptIds: number[]) => ({ hybrid: "gla", promptIds, maxTokens: 12 });

  async function withEngine<T>(directory: string, use: (opened: OpenedEngine) => Promise<T>): Promise<T> {
    const sessions = { directory: join(folder, directory), maxBytes: 1 << 24 };
    const small = { stateBytes: 1 << 20, kvBytes: 1 << 20, pageSize: 8, threads: 1 };
    const opened = await openEngine({ modelDir, pools: [join(folder, "gla")], sessions, ...small });
    try {
      opened.engine.registerHybrid({ name: "gla", layers: ["gla", "gla"] });
      await whileTurning(opened, opened.engine.loadHybrid("gla"));
      return await use(opened);
    } finally {
      opened.close();
    }
  }

  async function whileTurning<T>({ engine }: OpenedEngine, work: Promise<T>): Promise<T> {
    let over = false;
    void work.finally(() => {
      over = true;
    });
    while (!over) {
      await engine.pacer.grant(1);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return work;
  }

  /** What the engine says to the end of all requests, with turns between steps. */
  async function answers({ engine }: OpenedEngine, prompts: number[][]): Promise<{ ids: number[]; cached: number }[]> {
    const ids = prompts.map((prompt) => engine.add(request(prompt)));
    const said = new Map(ids.map((id) => [id, { ids: [] as number[], cached: -1 }]));
    while (engine.hasWork) {
      await engine.pacer.grant(1);
      for (const { id, event } of engine.step().events) {
        said.get(id)!.ids.push(...event.tokenIds);
        said.get(id)!.cached = event.usage.cachedTokens;
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    return [...said.values()];
  }

  const saveOne = (directory: string) =>
    withEngine(directory, async (opened) => {
      const [first] = await answers(opened, [saved]);
      await whileTurning(opened, opened.engine.saveSession("gla", saved));
      return first!.ids;
    });

  beforeAll(() => {
    writeCheckpoint(modelDir, tinyLlama);
    makePool(modelDir, join(folder, "gla"), "gla", {}, 20);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("copies that were ordered before a restore are done before it takes the freed states", async () => {
    const savedIds = await saveOne("copies");
    const [cold] = await withEngine("cold", (opened) => answers(opened, [other]));
    await withEngine("copies", async (opened) => {
      const { engine } = opened;
      const left = engine.add(request(other));
      // The prompt but for its last token: its state is to be copied for others with the next step.
      expect(engine.step().numPrefillTokens).toBe(40);
      engine.cancel(left);
      const [restored] = await answers(opened, [saved]);
      expect(restored).toEqual({ ids: savedIds, cached: 40 });
      const [warm] = await answers(opened, [other]);
      expect(warm).toEqual({ ids: cold!.ids, cached: 40 });
    });
  });

  test("an engine that is closed during a restore leaves the file where it is", async () => {
    const savedIds = await saveOne("closed");
    await withEngine("closed", async (opened) => {
      opened.engine.add(request(saved));
      await opened.engine.pacer.grant(0);
      expect(opened.engine.pacer.pending || opened.engine.hasWork).toBe(true);
    });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(readdirSync(join(folder, "closed")).length).toBe(1);
    await withEngine("closed", async (opened) => {
      expect(await answers(opened, [saved])).toEqual([{ ids: savedIds, cached: 40 }]);
    });
  });
});
