// Pools that are read when a hybrid needs them, in a real engine: what a hybrid says does not depend on when its weights
// came, only the layers of its mask take memory, faults are told to whom they concern, and names are swapped under load
// without a wrong token.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import { loadPool } from "../../models/pool.ts";
import { startEngine } from "../../src/engine/client.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { EngineClient, EngineWorkerOptions, TokenEvent, Variant } from "../../src/engine/types.ts";
import { tinyLlama, writeCheckpoint } from "../support/checkpoints.ts";
import { bestOps } from "../support/kernels.ts";
import { makePool } from "../support/pools.ts";
import { Random } from "./random.ts";

const VARIANTS = ["gla", "gdn", "jet"] as const;
const MASKS: readonly (readonly (Variant | null)[])[] = [
  [null, null],
  ["gla", null],
  [null, "gdn"],
  ["jet", "gla"],
  ["gdn", "gdn"],
  ["gla", "jet"],
];
/** Swaps of names under load; more of them make it a measurement. */
const SWAPS = Number(process.env.GRAFT_SWAPS ?? 1000);

const nameOf = (layers: readonly (Variant | null)[]) => layers.map((layer) => layer ?? "full").join("-");

async function idsOf(stream: AsyncIterable<TokenEvent>): Promise<number[]> {
  const ids: number[] = [];
  for await (const event of stream) ids.push(...event.tokenIds);
  return ids;
}

/** The error of a promise. (Bun's expect().rejects waits without letting a worker's messages in.) */
async function errorOf(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error("Expected an error");
}

describe("counterparts on demand", () => {
  const folder = mkdtempSync(join(tmpdir(), "graft-on-demand-"));
  const modelDir = join(folder, "model");
  const poolOf = (variant: Variant) => join(folder, variant);
  const prompt = (i: number) => Array.from({ length: 3 + (i % 5) }, (_, k) => (7 * i + 3 * k) % 40);
  /** What each hybrid says after each prompt, all weights in memory from the start. */
  const expected = new Map<string, number[]>();
  const NUM_PROMPTS = 10;
  const NUM_TOKENS = 24;

  beforeAll(async () => {
    writeCheckpoint(modelDir, tinyLlama);
    for (const [i, variant] of VARIANTS.entries()) makePool(modelDir, poolOf(variant), variant, {}, 10 + i);
    const ops = await bestOps();
    const model = loadModel(ops, modelDir);
    const engine = createEngine(ops, model, { stateBytes: 1 << 20 });
    const pools = VARIANTS.map((variant) => loadPool(ops, poolOf(variant)));
    for (const pool of pools) engine.addPool(pool);
    for (const layers of MASKS) {
      const hybrid = nameOf(layers);
      engine.registerHybrid({ name: hybrid, layers });
      for (let i = 0; i < NUM_PROMPTS; i++) {
        const [result] = engine.generate([{ hybrid, promptIds: prompt(i), maxTokens: NUM_TOKENS }]);
        expected.set(`${hybrid} ${i}`, result!.tokenIds);
      }
    }
    engine.close();
    for (const pool of pools) pool.free();
    model.free();
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  async function withEngine(
    use: (client: EngineClient) => Promise<void>,
    options: Partial<EngineWorkerOptions> = {},
    variants: readonly Variant[] = VARIANTS,
  ): Promise<void> {
    const client = await startEngine({ modelDir, threads: 1, stateBytes: 1 << 20, ...options });
    try {
      for (const variant of variants) await client.loadPool(poolOf(variant));
      const masks = MASKS.filter((layers) => layers.every((layer) => layer === null || variants.includes(layer)));
      for (const layers of masks) await client.registerHybrid({ name: nameOf(layers), layers });
      await use(client);
    } finally {
      await client.close();
    }
  }

  const say = (client: EngineClient, hybrid: string, i: number) =>
    idsOf(client.generate({ hybrid, promptIds: prompt(i), maxTokens: NUM_TOKENS }));

  test("registering reads no weights; a request reads the layers of its mask and no more", async () => {
    await withEngine(async (client) => {
      const before = await client.stats();
      expect(before.weightBytesByKind).toEqual({ checkpoint: before.weightBytes, gla: 0, gdn: 0, jet: 0 });
      const answers = await Promise.all([0, 1, 2].map((i) => say(client, "gla-full", i)));
      expect(answers).toEqual([0, 1, 2].map((i) => expected.get(`gla-full ${i}`)!));
      const [gla] = (await client.pools()).filter(({ variant }) => variant === "gla");
      expect(gla).toMatchObject({ numLayers: 2, loadedLayers: 1 });
      const after = await client.stats();
      expect(after.weightBytesByKind).toMatchObject({ gla: gla!.loadedBytes, gdn: 0, jet: 0 });
      expect(after.weightBytes).toBe(before.weightBytes + gla!.loadedBytes);
      expect(after.hybridLoads).toBe(1);
      const info = (await client.hybrids()).find(({ name }) => name === "jet-gla")!;
      expect(info.residence).toMatchObject({ state: "unloaded", loadedBytes: 0, lastUsed: null });
    });
  });

  test("what is unloaded by an operator comes back with the next request, and its cached prefixes do not", async () => {
    await withEngine(async (client) => {
      const promptIds = Array.from({ length: 40 }, (_, i) => i);
      const ask = async () => {
        const events: TokenEvent[] = [];
        for await (const event of client.generate({ hybrid: "jet-gla", promptIds, maxTokens: 2 })) events.push(event);
        return { ids: events.flatMap((event) => event.tokenIds), cached: events.at(-1)!.usage.cachedTokens };
      };
      expect((await client.loadHybrid("jet-gla")).residence.state).toBe("loaded");
      const cold = await ask();
      expect(await ask()).toEqual({ ids: cold.ids, cached: 39 });
      expect((await client.unloadHybrid("jet-gla")).residence).toMatchObject({ state: "unloaded", loadedBytes: 0 });
      const stats = await client.stats();
      expect([stats.weightBytesByKind.gla, stats.weightBytesByKind.jet, stats.prefixBytes]).toEqual([0, 0, 0]);
      expect(await ask()).toEqual(cold);
      expect((await errorOf(client.unloadHybrid("nobody"))).message).toContain("Cannot find hybrid");
      expect(await errorOf(client.loadHybrid("jet-gla", -2))).toMatchObject({ code: "invalid_option" });
    });
  });

  test("a pool that goes while a stream runs stays for the stream, and its memory goes with it", async () => {
    await withEngine(async (client) => {
      const [pool] = (await client.pools()).filter(({ variant }) => variant === "gdn");
      expect(await errorOf(client.unloadPool(pool!.id))).toMatchObject({ name: "RequestError", code: "pool_in_use" });
      const stream = client.generate({ hybrid: "gdn-gdn", promptIds: prompt(3), maxTokens: NUM_TOKENS });
      const events = stream[Symbol.asyncIterator]();
      const ids = [...(await events.next()).value!.tokenIds];
      for (const name of ["full-gdn", "gdn-gdn"]) await client.removeHybrid(name);
      expect(await client.unloadPool(pool!.id)).toBe(true);
      expect(await client.unloadPool(pool!.id)).toBe(false);
      for (let next = await events.next(); !next.done; next = await events.next()) ids.push(...next.value.tokenIds);
      expect(ids).toEqual(expected.get("gdn-gdn 3")!);
      const stats = await client.stats();
      expect([stats.weightBytesByKind.gdn, stats.stateBytesUsed]).toEqual([0, 0]);
      expect((await client.pools()).map(({ variant }) => variant)).toEqual(["gla", "jet"]);
    });
  });

  test("under a limit hybrids take turns, and each says what it says alone", async () => {
    const one = await (async () => {
      let bytes = 0;
      await withEngine(async (client) => {
        bytes = (await client.hybrids()).reduce((most, { residence }) => Math.max(most, residence.totalBytes), 0);
      });
      return bytes;
    })();
    await withEngine(
      async (client) => {
        const random = new Random(5);
        const jobs = Array.from({ length: 40 }, () => [nameOf(random.pick(MASKS)), random.between(0, 9)] as const);
        const answers = await Promise.all(jobs.map(([hybrid, i]) => say(client, hybrid, i)));
        expect(answers).toEqual(jobs.map(([hybrid, i]) => expected.get(`${hybrid} ${i}`)!));
        const stats = await client.stats();
        expect(stats.weightBytes - stats.weightBytesByKind.checkpoint).toBeLessThanOrEqual(one);
        expect(stats.hybridUnloads).toBeGreaterThan(0);
      },
      { poolBytes: one },
    );
    await withEngine(
      async (client) => {
        expect(await errorOf(say(client, "gdn-gdn", 0))).toMatchObject({ name: "RequestError", code: "pool_memory" });
        expect(await say(client, "full-full", 0)).toEqual(expected.get("full-full 0")!);
      },
      { poolBytes: 1 },
    );
  });

  test("a time to live of 0 keeps no weights", async () => {
    await withEngine(
      async (client) => {
        expect(await say(client, "jet-gla", 1)).toEqual(expected.get("jet-gla 1")!);
        const stats = await client.stats();
        expect(stats.weightBytes).toBe(stats.weightBytesByKind.checkpoint);
      },
      { keepAliveSeconds: 0 },
    );
  });

  test("pools that are missing, cut off, changed or of another backbone are refused, beside a stream that goes on", async () => {
    const copy = (name: string) => {
      cpSync(poolOf("gla"), join(folder, name), { recursive: true });
      return join(folder, name);
    };
    await withEngine(
      async (client) => {
        const beside = say(client, "full-full", 2);
        expect((await errorOf(client.loadPool(join(folder, "nowhere")))).name).toBe("CheckpointError");
        const half = copy("half");
        truncateSync(join(half, "linear.safetensors"), 3000);
        expect((await errorOf(client.loadPool(half))).name).toBe("CheckpointError");
        const foreign = copy("foreign");
        const description = await Bun.file(join(foreign, "pool.json")).json();
        writeFileSync(join(foreign, "pool.json"), JSON.stringify({ ...description, backbone: "0".repeat(64) }));
        expect(await errorOf(client.loadPool(foreign))).toMatchObject({ code: "wrong_backbone" });
        const cut = copy("cut");
        const first = await client.loadPool(cut);
        expect((await client.loadPool(cut)).id).toBe(first.id);
        await client.registerHybrid({ name: "cut", layers: ["gla", null] });
        truncateSync(join(cut, "linear.safetensors"), 3000);
        for (let i = 0; i < 2; i++) {
          expect(await errorOf(say(client, "cut", 0))).toMatchObject({ code: "hybrid_unavailable" });
        }
        expect(await beside).toEqual(expected.get("full-full 2")!);
        const stats = await client.stats();
        expect([stats.weightBytesByKind.gla, stats.waiting, stats.running]).toEqual([0, 0, 0]);
      },
      {},
      [],
    );
  });

  test(`${SWAPS} swaps of names under load: no wrong token, none lost, no memory left behind`, async () => {
    await withEngine(async (client) => {
      const random = new Random(1);
      for (const layers of MASKS) await say(client, nameOf(layers), 0);
      await client.registerHybrid({ name: "swapped", layers: MASKS[0]! });
      const before = await client.stats();
      let [done, streams, current] = [false, 0, 0];
      const reader = async () => {
        while (!done) {
          const i = random.between(0, NUM_PROMPTS - 1);
          const begun = current;
          const ids = await say(client, "swapped", i);
          // The swap that was asked for before the request has been answered may be served already, no other one.
          const fitting = [begun, begun + 1].map(
            (swap) => expected.get(`${nameOf(MASKS[swap % MASKS.length]!)} ${i}`)!,
          );
          expect(fitting).toContainEqual(ids);
          streams++;
        }
      };
      const readers = Array.from({ length: 6 }, reader);
      for (let swap = 1; swap <= SWAPS; swap++) {
        await client.registerHybrid({ name: "swapped", layers: MASKS[swap % MASKS.length]! });
        current = swap;
        if (swap % 4 === 0) await Bun.sleep(2);
        if (swap % 10 === 0) await client.removeHybrid("extra");
        if (swap % 10 === 5) await client.registerHybrid({ name: "extra", layers: random.pick(MASKS) });
      }
      done = true;
      await Promise.all(readers);
      const after = await client.stats();
      expect(streams).toBeGreaterThan(50);
      expect(after.weightBytesByKind).toEqual(before.weightBytesByKind);
      expect([after.hybridLoads, after.hybridUnloads]).toEqual([before.hybridLoads, 0]);
      expect([after.running, after.waiting, after.kvBytesUsed, after.stateBytesUsed]).toEqual([0, 0, 0, 0]);
    });
  });
});
