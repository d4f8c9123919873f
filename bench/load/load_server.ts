// The server that the load tools drive: graft serve as a child process, on a small model with random weights and two hybrids
// unless a model is named. Says what the process holds, so that a tool can compare before and after.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readStats, type ServerStats } from "../../src/bench/serve/server_stats.ts";
import { writeRandom } from "../../src/cli/bench_random.ts";
import { serveChild } from "../../src/cli/served_child.ts";
import { Store } from "../../src/store/database.ts";

/** A running server and what can be seen of it from outside. */
export interface LoadServer {
  readonly url: string;
  /** Name of the backbone; `${backbone}:gdn-half` and `${backbone}:gdn-all` are its hybrids. */
  readonly backbone: string;
  readonly numLayers: number;
  readonly vocabSize: number;
  stats(): Promise<ServerStats>;
  openFiles(): number;
  residentBytes(): number;
  stop(): Promise<void>;
}

const NAME = "drawn";
const MAX_CONTEXT = 4096;

/** @param words further flags of graft serve */
export async function startLoadServer(words: readonly string[] = [], shape = "tiny"): Promise<LoadServer> {
  const folder = mkdtempSync(join(tmpdir(), "graft-load-"));
  const data = join(folder, "data");
  const store = Store.open(data);
  const drawn = { shape, model: undefined, variant: ["gdn"], "max-context": MAX_CONTEXT, seed: 1 } as const;
  writeRandom(store, join(folder, NAME), drawn);
  store.close();
  const child = await serveChild([NAME, "--data-dir", data, ...words]);
  const target = { url: child.url, apiKey: null };
  const stats = async () => {
    const found = await readStats(target);
    if (found === null) throw new Error("The server does not say what it holds");
    return found;
  };
  const { info } = await stats();
  return {
    url: child.url,
    backbone: NAME,
    numLayers: info.numLayers,
    vocabSize: info.vocabSize,
    stats,
    openFiles: () => readdirSync(`/proc/${child.pid}/fd`).length,
    residentBytes: () =>
      1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))![1]),
    async stop() {
      await child.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** What must be the same before and after any load: nothing of a request that is over is held. */
export interface Held {
  readonly activeRequests: number;
  readonly running: number;
  readonly waiting: number;
  readonly kvBytes: number;
  readonly stateBytes: number;
  readonly openFiles: number;
}

export async function heldBy(server: LoadServer): Promise<Held> {
  const { active_requests: activeRequests, engine } = await server.stats();
  return {
    activeRequests,
    running: engine.running,
    waiting: engine.waiting,
    kvBytes: engine.kvBytesUsed,
    stateBytes: engine.stateBytesUsed,
    openFiles: server.openFiles(),
  };
}

/** What is held once it is no more than `before`, or after `limitMs`: cancelled work ends within a step, sockets a little later. */
export async function heldAfter(server: LoadServer, before: Held, limitMs = 10_000): Promise<Held> {
  const end = performance.now() + limitMs;
  for (;;) {
    const held = await heldBy(server);
    const keys = Object.keys(held) as (keyof Held)[];
    if (keys.every((key) => held[key] <= before[key]) || performance.now() > end) return held;
    await Bun.sleep(50);
  }
}

/** Posts JSON and reads the whole answer. */
export async function post(
  server: LoadServer,
  path: string,
  body: unknown,
): Promise<{ status: number; body: unknown }> {
  const response = await fetch(server.url + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    keepalive: false,
  });
  return { status: response.status, body: await response.json() };
}

/** Greedy token ids of a completion. @throws Error with the answer where it is no completion */
export async function complete(server: LoadServer, model: string, prompt: readonly number[], tokens: number) {
  const fields = { model, prompt, max_tokens: tokens, temperature: 0, ignore_eos: true };
  const { status, body } = await post(server, "/v1/completions", fields);
  const ids = (body as { choices?: { token_ids: number[] }[] }).choices?.[0]?.token_ids;
  if (status !== 200 || ids === undefined) throw new Error(`${status}: ${JSON.stringify(body)}`);
  return ids;
}
