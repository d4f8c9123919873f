// An engine that is lost or stuck and comes back: what streams, calls, hybrids and probes see of it. Real threads with
// the bundled model, and scripted ones for the order of starts.
import { afterEach, describe, expect, test } from "bun:test";
import { join, resolve } from "node:path";
import { type EngineThread, startEngine } from "../../src/engine/client.ts";
import { RestartingEngine, type RestartOptions } from "../../src/engine/restarting_engine.ts";
import type { HybridSpec, TokenEvent, Variant } from "../../src/engine/types.ts";
import { EngineLostError, RequestError } from "../../src/errors.ts";
import { SPINS, THROWS, WAITS } from "./faults.ts";

const modelDir = resolve(import.meta.dir, "../../models/tiny");
const entry = new URL(join("file://", import.meta.dir, "faulty_worker.ts"));
const LONG_MS = 20_000;

async function errorOf(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error("Expected an error");
}

async function until(condition: () => boolean, what: string, limitMs = 20_000): Promise<number> {
  const start = performance.now();
  while (!condition()) {
    if (performance.now() - start > limitMs) throw new Error(`Waited ${limitMs} ms until ${what}`);
    await Bun.sleep(5);
  }
  return performance.now() - start;
}

let engine: RestartingEngine;
let logged: string[] = [];
afterEach(async () => {
  await engine.close();
  logged = [];
});
const log = (message: string) => void logged.push(message);

describe("a real thread", () => {
  const begin = async (options: Partial<RestartOptions> = {}) => {
    const start = () => startEngine({ modelDir, threads: 1, kvBytes: 1 << 22, stateBytes: 1 << 22 }, entry);
    engine = await RestartingEngine.start(start, { log, ...options });
  };
  const generate = async (promptIds: number[], maxTokens = 8) => {
    const ids: number[] = [];
    for await (const event of engine.generate({ promptIds, maxTokens })) ids.push(...event.tokenIds);
    return ids;
  };

  test(
    "that throws: every stream and call ends with engine_restarted, a new engine answers the same within 5 s",
    async () => {
      await begin();
      const before = await generate([40, 41, 42]);
      const running = engine.generate({ promptIds: [40, 41], maxTokens: 100_000 })[Symbol.asyncIterator]();
      await running.next();
      const scored = engine.score([{ contextIds: [40], continuationIds: Array(400).fill(41) }]);
      const lost = await Promise.all([errorOf(generate([THROWS])), errorOf(scored), errorOf(drain(running))]);
      for (const error of lost) {
        expect(error).toBeInstanceOf(EngineLostError);
        expect(error.code).toBe("engine_restarted");
        // What went wrong inside is for the log.
        expect(error.message).not.toContain("kernel");
      }
      expect(engine.state).toBe("restarting");
      expect((await errorOf(generate([40]))).code).toBe("engine_restarting");
      const took = await until(() => engine.alive, "the engine is back");
      expect(took).toBeLessThan(5000);
      expect(await generate([40, 41, 42])).toEqual(before);
      expect(engine.restarts).toBe(1);
      expect(logged[0]).toBe("the engine has stopped: a kernel has failed");
      expect(logged[1]).toMatch(/^the engine runs again after \d+\.\d s$/);
    },
    LONG_MS,
  );

  for (const [how, fault] of [
    ["spins", SPINS],
    ["waits", WAITS],
  ] as const) {
    test(
      `that ${how}: its beat grows old, it is ended at the limit and replaced`,
      async () => {
        await begin({ stuckMs: 1500 });
        const stuck = errorOf(generate([fault]));
        await until(() => engine.heartbeatAgeMs > 1000, "the beat is old");
        expect(engine.state).toBe("running");
        expect((await stuck).code).toBe("engine_restarted");
        await until(() => engine.alive, "the engine is back");
        expect(await generate([40])).toHaveLength(8);
        expect(logged[0]).toMatch(/it showed no life for \d s/);
      },
      LONG_MS,
    );
  }
});

async function drain(stream: AsyncIterator<TokenEvent>): Promise<void> {
  for (let next = await stream.next(); next.done !== true; next = await stream.next());
}

/** A thread that only remembers what it was told, and ends when the test says so. */
class ScriptedThread {
  readonly info = {} as EngineThread["info"];
  readonly restarts = 0;
  readonly pools: string[] = [];
  readonly hybrids = new Map<string, HybridSpec>();
  readonly gone: Promise<Error>;
  alive = true;
  state = "running" as const;
  heartbeatAgeMs = 0;
  /** Pool directories that cannot be loaded any more. */
  readonly missing: ReadonlySet<string>;
  #end: (reason: Error) => void = () => {};

  constructor(missing: ReadonlySet<string>) {
    this.missing = missing;
    this.gone = new Promise((resolveGone) => {
      this.#end = resolveGone;
    });
  }

  die(): void {
    this.alive = false;
    this.#end(new EngineLostError("engine_restarted", "lost"));
  }

  async loadPool(directory: string) {
    if (this.missing.has(directory)) throw new RequestError("x", "no such folder");
    this.pools.push(directory);
    return { id: `gla-${this.pools.length}`, variant: "gla" as const, directory, numLayers: 1 };
  }

  async registerHybrid(spec: HybridSpec) {
    if (!this.alive) throw new EngineLostError("engine_restarted", "lost");
    for (const id of Object.values(spec.pools ?? {})) {
      if (this.pools[Number(id.split("-")[1]) - 1] === undefined) throw new RequestError("x", `no pool "${id}"`);
    }
    this.hybrids.set(spec.name, spec);
    return { name: spec.name, layers: spec.layers, numLinear: 1, kvBytesPerToken: 0, stateBytes: 0 };
  }

  async removeHybrid(name: string) {
    return this.hybrids.delete(name);
  }

  async close() {
    this.die();
  }
}

describe("a scripted thread", () => {
  let threads: ScriptedThread[] = [];
  let failing = 0;
  let missing = new Set<string>();
  const begin = async (options: Partial<RestartOptions> = {}) => {
    [threads, failing, missing] = [[], 0, new Set()];
    const start = async () => {
      if (failing-- > 0) throw new Error("no memory");
      const thread = new ScriptedThread(missing);
      threads.push(thread);
      return thread as unknown as EngineThread;
    };
    engine = await RestartingEngine.start(start, { log, backoffMs: 1, ...options });
  };
  const lose = async () => {
    const before = engine.restarts;
    threads.at(-1)!.die();
    await until(() => engine.restarts > before || engine.state === "dead", "it was tried");
  };
  const gla: (Variant | null)[] = ["gla"];

  test("comes back with its pools and hybrids, each with the pool it had", async () => {
    await begin();
    const first = await engine.loadPool("/a");
    await engine.registerHybrid({ name: "old", layers: gla });
    const second = await engine.loadPool("/b");
    await engine.registerHybrid({ name: "new", layers: gla });
    await engine.registerHybrid({ name: "gone", layers: [null] });
    await engine.removeHybrid("gone");
    await lose();
    expect(threads[1]!.pools).toEqual(["/a", "/b"]);
    const taken = () => [...threads.at(-1)!.hybrids].map(([name, { pools }]) => [name, pools]);
    expect(taken()).toEqual([
      ["old", { gla: "gla-1" }],
      ["new", { gla: "gla-2" }],
    ]);
    // A pool that is gone takes its hybrids along, and nothing slips into its place.
    missing.add("/a");
    await lose();
    expect(threads[2]!.pools).toEqual(["/b"]);
    expect(taken()).toEqual([["new", { gla: "gla-1" }]]);
    expect(logged.filter((line) => line.startsWith("the new engine has no"))).toHaveLength(2);
    // Ids stay what callers know, whatever the engine calls them.
    await engine.registerHybrid({ name: "named", layers: gla, pools: { gla: second.id } });
    expect(threads[2]!.hybrids.get("named")?.pools).toEqual({ gla: "gla-1" });
    expect((await errorOf(engine.registerHybrid({ name: "x", layers: gla, pools: { gla: first.id } }))).message).toBe(
      'no pool "gla-1 (lost)"',
    );
  });

  test("calls that change it wait for the new engine and reach it", async () => {
    await begin();
    threads[0]!.alive = false;
    const registered = engine.registerHybrid({ name: "late", layers: [null] });
    threads[0]!.die();
    expect((await registered).name).toBe("late");
    expect(threads[1]!.hybrids.has("late")).toBe(true);
  });

  test("starts that fail are repeated with growing pauses, then it stays dead", async () => {
    await begin({ maxAttempts: 4 });
    failing = 2;
    await lose();
    expect([engine.state, engine.restarts]).toEqual(["running", 1]);
    failing = 9;
    await lose();
    expect([engine.state, engine.alive, engine.heartbeatAgeMs]).toEqual(["dead", false, Number.POSITIVE_INFINITY]);
    expect(logged.at(-1)).toBe("the engine stays dead after 4 starts");
    expect((await errorOf(drain(engine.generate({ promptIds: [1], maxTokens: 1 })[Symbol.asyncIterator]()))).code).toBe(
      "engine_dead",
    );
    expect((await errorOf(engine.stats())).code).toBe("engine_dead");
  });

  test("an engine that ran long enough begins a new row of attempts", async () => {
    await begin({ maxAttempts: 2, stableMs: 0 });
    for (let i = 0; i < 6; i++) await lose();
    expect([engine.state, engine.restarts]).toEqual(["running", 6]);
  });

  test("closing while it restarts leaves no thread behind", async () => {
    await begin({ backoffMs: 20 });
    failing = 1;
    threads[0]!.die();
    await until(() => engine.state === "restarting", "it is lost");
    await engine.close();
    expect(threads.filter((thread) => thread.alive)).toEqual([]);
    expect(engine.state).toBe("dead");
  });
});
