// Sessions on the disk, against real tiny hybrids: an engine started anew says what the first one said, to the bit, from
// what was saved; whatever is not exactly what was saved is a miss, never another token.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEngine } from "../../src/engine/client.ts";
import type { EngineClient, EngineWorkerOptions, TokenEvent, Variant } from "../../src/engine/types.ts";
import { tinyLlama, writeCheckpoint } from "../support/checkpoints.ts";
import { emulator } from "../support/emulator.ts";
import { forwardLibraries } from "../support/kernels.ts";
import { makePool } from "../support/pools.ts";
import { Random } from "./random.ts";

const MASKS: Readonly<Record<string, readonly (Variant | null)[]>> = {
  full: [null, null],
  gla: ["gla", null],
  gdn: [null, "gdn"],
  jet: ["jet", "jet"],
};
/** Damages tried on one file; every byte where the number is at least its size. */
const DAMAGES = Number(process.env.GRAFT_DAMAGES ?? 60);

interface Answer {
  readonly ids: number[];
  readonly logprobs: number[];
  readonly cached: number;
}

async function errorOf(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error("Expected an error");
}

describe("saved sessions", () => {
  const folder = mkdtempSync(join(tmpdir(), "graft-sessions-"));
  const modelDir = join(folder, "model");
  const prompt = Array.from({ length: 41 }, (_, i) => (i * i + 3) % 40);

  beforeAll(() => {
    writeCheckpoint(modelDir, tinyLlama);
    for (const [i, variant] of (["gla", "gdn", "jet"] as const).entries()) {
      makePool(modelDir, join(folder, variant), variant, {}, 20 + i);
    }
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  async function withEngine<T>(
    directory: string,
    use: (client: EngineClient) => Promise<T>,
    options: Partial<EngineWorkerOptions> = {},
  ): Promise<T> {
    const sessions = { directory: join(folder, directory), maxBytes: 1 << 24 };
    const small = { stateBytes: 1 << 20, kvBytes: 1 << 20, pageSize: 8 };
    const client = await startEngine({ modelDir, threads: 1, ...small, sessions, ...options });
    try {
      for (const variant of ["gla", "gdn", "jet"]) await client.loadPool(join(folder, variant));
      for (const [name, layers] of Object.entries(MASKS)) await client.registerHybrid({ name, layers });
      return await use(client);
    } finally {
      await client.close();
    }
  }

  async function ask(client: EngineClient, hybrid: string, promptIds = prompt): Promise<Answer> {
    const events: TokenEvent[] = [];
    const request = { hybrid, promptIds, maxTokens: 12, logprobs: 0 };
    for await (const event of client.generate(request)) events.push(event);
    return {
      ids: events.flatMap((event) => event.tokenIds),
      logprobs: events.flatMap((event) => event.logprobs ?? []),
      cached: events.at(-1)!.usage.cachedTokens,
    };
  }

  const onlyFile = (directory: string) => {
    const names = readdirSync(join(folder, directory));
    expect(names.length).toBe(1);
    return join(folder, directory, names[0]!);
  };

  const narrow = { stateDtype: "bf16", kvDtype: "bf16" } as const;
  for (const [name, kinds] of Object.entries({ wide: {}, narrow, emulated: { ...narrow, ...emulator } })) {
    const skip = "device" in kinds && !forwardLibraries.includes("simt");
    test.skipIf(skip)(`a new engine goes on from what the first one saved, to the bit (${name})`, async () => {
      const directory = `restart-${name}`;
      const cold = await withEngine(
        directory,
        async (client) => {
          const answers: Record<string, Answer> = {};
          for (const hybrid of Object.keys(MASKS)) {
            answers[hybrid] = await ask(client, hybrid);
            const info = await client.saveSession(hybrid, prompt);
            expect(info).toMatchObject({ hybrid, problem: null });
            expect(info.tokens).toBeGreaterThanOrEqual(40);
            expect((await client.saveSession(hybrid, prompt)).id).toBe(info.id);
          }
          expect(statSync(join(folder, directory)).mode & 0o77).toBe(0);
          return answers;
        },
        kinds,
      );
      await withEngine(
        directory,
        async (client) => {
          for (const hybrid of Object.keys(MASKS)) {
            expect(cold[hybrid]!.cached).toBe(0);
            expect(await ask(client, hybrid)).toEqual({ ...cold[hybrid]!, cached: 40 });
          }
          const { sessions } = await client.stats();
          expect(sessions).toMatchObject({ restored: 4, restoredTokens: sessions!.restoredTokens });
          expect((await client.sessions()).length).toBe(4);
          // Several at once share one restore; another prompt is not helped by it.
          expect((await ask(client, "jet", [1, ...prompt])).cached).toBe(0);
        },
        kinds,
      );
    });
  }

  test("what a server held at its end is there after the start", async () => {
    const cold = await withEngine("drained", async (client) => {
      const answers = [await ask(client, "full"), await ask(client, "jet"), await ask(client, "jet", prompt.slice(1))];
      expect(await client.saveSessions()).toBeGreaterThanOrEqual(3);
      return answers;
    });
    await withEngine("drained", async (client) => {
      const warm = [await ask(client, "full"), await ask(client, "jet"), await ask(client, "jet", prompt.slice(1))];
      expect(warm.map(({ ids, logprobs }) => ({ ids, logprobs }))).toEqual(
        cold.map(({ ids, logprobs }) => ({ ids, logprobs })),
      );
      expect(warm.every(({ cached }) => cached > 0)).toBe(true);
    });
  });

  test("other weights, dtypes or pages: a miss, and the list says why", async () => {
    const cold = await withEngine("other", async (client) => {
      const answer = await ask(client, "gla");
      await client.saveSession("gla", prompt);
      return answer;
    });
    for (const [options, why] of [
      [{ stateDtype: "bf16" }, "saved with other state_dtype"],
      [{ kvDtype: "bf16" }, "saved with other kv_dtype"],
      [{ weightDtype: "bf16" }, "saved with other weights"],
      [{ pageSize: 4 }, "saved with other page_size"],
      [{ isa: "reference" }, "saved with other weights, kernels, isa"],
    ] as const) {
      await withEngine(
        "other",
        async (client) => {
          expect((await client.sessions()).map(({ problem }) => problem)).toEqual([why]);
          expect((await ask(client, "gla")).cached).toBe(0);
        },
        options,
      );
    }
    await withEngine("other", async (client) => {
      // The same name for other mixers.
      await client.registerHybrid({ name: "gla", layers: ["gla", "gla"] });
      expect((await ask(client, "gla")).cached).toBe(0);
      await client.registerHybrid({ name: "again", layers: MASKS.gla! });
      expect(await ask(client, "again")).toEqual({ ...cold, cached: 40 });
    });
  });

  test("a damaged file gives a miss, whichever byte is wrong or missing", async () => {
    const random = new Random(3);
    const damage = (path: string, i: number) => {
      const bytes = readFileSync(path);
      const at = DAMAGES >= bytes.length ? i % bytes.length : random.between(0, bytes.length - 1);
      bytes[at]! ^= 1 << random.between(0, 7);
      if (i % 10 === 9) truncateSync(path, at);
      else writeFileSync(path, bytes);
    };
    const cold = await withEngine("damaged", async (client) => {
      const cold = await ask(client, "gdn");
      for (let i = 0; i < DAMAGES; i++) {
        await client.saveSession("gdn", prompt);
        damage(onlyFile("damaged"), i);
        // What is cached goes with the weights.
        await client.unloadHybrid("gdn");
        const answer = await ask(client, "gdn");
        // A header that was read before may be damaged without harm.
        if (answer.cached === 0) expect(answer).toEqual(cold);
        else expect(answer).toEqual({ ...cold, cached: 40 });
        for (const { id } of await client.sessions()) await client.deleteSession(id);
      }
      const { sessions } = await client.stats();
      expect(sessions!.failed.damaged).toBeGreaterThan(DAMAGES / 2);
      await client.saveSession("gdn", prompt);
      return cold;
    });
    const path = onlyFile("damaged");
    const sound = readFileSync(path);
    for (let i = 0; i < 10; i++) {
      writeFileSync(path, sound);
      damage(path, i);
      await withEngine("damaged", async (client) => expect(await ask(client, "gdn")).toEqual(cold));
    }
  });

  test("the folder keeps its size: the least recently used goes; what is larger than all is refused", async () => {
    await withEngine("bounded", async (client) => {
      expect(await errorOf(client.saveSession("gla", prompt))).toMatchObject({ code: "nothing_cached" });
      expect((await errorOf(client.saveSession("nobody", prompt))).message).toContain("Cannot find hybrid");
      await ask(client, "gla");
      const { bytes, id } = await client.saveSession("gla", prompt);
      expect(await client.deleteSession(id)).toBe(true);
      expect(await client.deleteSession(id)).toBe(false);
      expect(readdirSync(join(folder, "bounded"))).toEqual([]);
      const prompts = [1, 2, 3].map((first) => [first, ...prompt.slice(1)]);
      const limited = { sessions: { directory: join(folder, "two"), maxBytes: 2 * bytes + 1000 } };
      await withEngine(
        "two",
        async (other) => {
          const ids: string[] = [];
          for (const one of prompts) {
            await ask(other, "gla", one);
            ids.push((await other.saveSession("gla", one)).id);
            await Bun.sleep(5);
          }
          expect((await other.sessions()).map((session) => session.id)).toEqual([ids[2]!, ids[1]!]);
        },
        limited,
      );
      await withEngine(
        "tight",
        async (other) => {
          await ask(other, "gla");
          expect(await errorOf(other.saveSession("gla", prompt))).toMatchObject({ code: "session_too_large" });
          expect(await other.saveSessions()).toBe(0);
        },
        { sessions: { directory: join(folder, "tight"), maxBytes: 100 } },
      );
    });
  });
});
