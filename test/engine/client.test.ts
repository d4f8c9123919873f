// The engine in its own thread: streams, cancellation, swaps of hybrids under a running stream, faults, the beat.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { startEngine } from "../../src/engine/client.ts";
import { TokenStream } from "../../src/engine/token_stream.ts";
import type { EngineClient, TokenEvent } from "../../src/engine/types.ts";
import { CapacityError, CheckpointError, RequestError } from "../../src/errors.ts";
import { goldenDir } from "../support/golden.ts";

const modelDir = join(goldenDir, "models", "tiny_llama_hybrid_gdn");
const skip = !existsSync(modelDir);
if (skip) console.error(`skipped: no golden models in ${goldenDir} (set GRAFT_GOLDEN)`);

async function collect(stream: AsyncIterable<TokenEvent>): Promise<{ ids: number[]; last: TokenEvent }> {
  const ids: number[] = [];
  let last: TokenEvent | undefined;
  for await (const event of stream) {
    ids.push(...event.tokenIds);
    last = event;
  }
  return { ids, last: last! };
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

describe.skipIf(skip)("EngineClient", () => {
  let client: EngineClient;
  beforeAll(async () => {
    client = await startEngine({ modelDir, threads: 1, stateBytes: 1 << 22, maxSequences: 4, maxWaiting: 4 });
  });
  afterAll(async () => {
    await client.close();
    expect(client.alive).toBe(false);
  });

  async function idle(): Promise<void> {
    const stats = await client.stats();
    expect([stats.running, stats.waiting, stats.kvBytesUsed, stats.stateBytesUsed]).toEqual([0, 0, 0, 0]);
  }

  test("streams tokens one by one and ends with usage", async () => {
    const events: TokenEvent[] = [];
    for await (const event of client.generate({ promptIds: [1, 2, 3], maxTokens: 5 })) events.push(event);
    expect(events.length).toBe(5);
    expect(events.map((event) => event.finishReason)).toEqual([null, null, null, null, "length"]);
    expect(events.at(-1)!.usage).toEqual({ promptTokens: 3, completionTokens: 5, cachedTokens: 0 });
    await idle();
  });

  test("several streams at once give what each gives alone", async () => {
    const prompts = [[5], [5, 6], [7, 8, 9]];
    const alone = [];
    for (const promptIds of prompts) alone.push((await collect(client.generate({ promptIds, maxTokens: 20 }))).ids);
    const together = await Promise.all(
      prompts.map(async (promptIds) => (await collect(client.generate({ promptIds, maxTokens: 20 }))).ids),
    );
    expect(together).toEqual(alone);
  });

  test("leaving the loop cancels the sequence", async () => {
    for await (const event of client.generate({ promptIds: [1], maxTokens: 200 })) {
      if (event.usage.completionTokens >= 3) break;
    }
    await idle();
  });

  test("an abort ends the stream with a cancelled event", async () => {
    const abort = new AbortController();
    const stream = client.generate({ promptIds: [1], maxTokens: 200 }, abort.signal);
    let last: TokenEvent | undefined;
    for await (const event of stream) {
      last = event;
      abort.abort();
    }
    expect(last!.finishReason).toBe("cancelled");
    await idle();
  });

  test("return() while a read waits ends that read", async () => {
    const iterator = client.generate({ promptIds: [1], maxTokens: 200 })[Symbol.asyncIterator]();
    const read = iterator.next();
    await iterator.return!();
    expect((await read).done).toBe(true);
    expect((await iterator.next()).done).toBe(true);
    await idle();
  });

  test("a bad request rejects with its code, and others go on", async () => {
    const good = collect(client.generate({ promptIds: [1, 2], maxTokens: 10 }));
    for (const promptIds of [[], [-1], [1e9], [1.5]]) {
      expect(await errorOf(collect(client.generate({ promptIds, maxTokens: 1 })))).toBeInstanceOf(RequestError);
    }
    const unknown = collect(client.generate({ promptIds: [1], maxTokens: 1, hybrid: "nobody" }));
    expect((await errorOf(unknown)).code).toBe("unknown_hybrid");
    expect((await good).ids.length).toBe(10);
  });

  test("beyond the queue's bound requests are refused with CapacityError", async () => {
    const results = await Promise.allSettled(
      Array.from({ length: 40 }, () => collect(client.generate({ promptIds: [3], maxTokens: 30 }))),
    );
    const refused = results.filter((r) => r.status === "rejected");
    expect(refused.length).toBeGreaterThan(0);
    for (const { reason } of refused) expect(reason).toBeInstanceOf(CapacityError);
    const finished = results.filter((r) => r.status === "fulfilled");
    expect(finished.length).toBeGreaterThanOrEqual(4);
    for (const { value } of finished) expect(value.ids.length).toBe(30);
    await idle();
  });

  test("scores a list longer than the queue, in order, also while a stream runs", async () => {
    const stream = collect(client.generate({ promptIds: [9], maxTokens: 100 }));
    const requests = Array.from({ length: 50 }, (_, i) => ({ contextIds: [i % 90], continuationIds: [1, 2] }));
    const results = await client.score(requests);
    const one = await client.score([requests[7]!]);
    expect(results.length).toBe(50);
    expect(results[7]).toEqual(one[0]!);
    expect((await stream).ids.length).toBe(100);
    expect(await client.score([])).toEqual([]);
    expect(await errorOf(client.score([{ contextIds: [], continuationIds: [1] }]))).toBeInstanceOf(RequestError);
    await idle();
  });

  test("a thousand redirections of a name leave a running stream as it began", async () => {
    const numLayers = client.info.numLayers;
    const layers = Array.from({ length: numLayers }, () => null);
    await client.registerHybrid({ name: "task", layers });
    const expected = await collect(client.generate({ promptIds: [4, 5], maxTokens: 150 }));
    const running = collect(client.generate({ hybrid: "task", promptIds: [4, 5], maxTokens: 150 }));
    for (let i = 0; i < 1000; i++) await client.registerHybrid({ name: "task", layers });
    expect(await client.removeHybrid("task")).toBe(true);
    expect(await client.removeHybrid("task")).toBe(false);
    expect((await running).ids).toEqual(expected.ids);
    expect((await client.hybrids()).map((hybrid) => hybrid.name)).toEqual(["base"]);
  });

  test("hybrids that cannot be are refused", async () => {
    expect(await errorOf(client.registerHybrid({ name: "x", layers: [] }))).toBeInstanceOf(RequestError);
    expect((await errorOf(client.registerHybrid({ name: "x", layers: ["gla", "gla"] }))).message).toContain("no pool");
    expect(await errorOf(client.removeHybrid("base"))).toBeInstanceOf(RequestError);
    expect(await errorOf(client.loadPool("/nonexistent"))).toBeInstanceOf(CheckpointError);
  });

  test("the beat stays young", async () => {
    await client.stats();
    expect(client.heartbeatAgeMs).toBeLessThan(1500);
    expect(client.alive).toBe(true);
  });
});

describe.skipIf(skip)("startEngine()", () => {
  test("rejects where there is no model", async () => {
    expect(await errorOf(startEngine({ modelDir: "/nonexistent" }))).toBeInstanceOf(CheckpointError);
  });

  test("after close() streams under way are cancelled and further calls fail", async () => {
    const client = await startEngine({ modelDir, threads: 1, stateBytes: 1 << 22 });
    const stream = client.generate({ promptIds: [1], maxTokens: 250 })[Symbol.asyncIterator]();
    expect((await stream.next()).value.tokenIds.length).toBe(1);
    await client.close();
    let last: IteratorResult<TokenEvent> = await stream.next();
    for (let event = last; !event.done; event = await stream.next()) last = event;
    expect(last.value.finishReason).toBe("cancelled");
    expect((await errorOf(client.stats())).message).toContain("closed");
    expect(client.heartbeatAgeMs).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("TokenStream", () => {
  const event = (finishReason: TokenEvent["finishReason"]): TokenEvent => ({
    tokenIds: [1],
    finishReason,
    usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 },
  });

  test("gives what was pushed before an error, then the error, then the end", async () => {
    const stream = new TokenStream(() => {});
    stream.push(event(null));
    stream.fail(new Error("gone"));
    expect((await stream.next()).value).toEqual(event(null));
    expect((await errorOf(stream.next())).message).toContain("gone");
    expect((await stream.next()).done).toBe(true);
  });

  test("cancels at most once, and not after its end", async () => {
    let cancels = 0;
    const left = new TokenStream(() => cancels++);
    await left.return();
    await left.return();
    expect(cancels).toBe(1);
    const ended = new TokenStream(() => cancels++);
    ended.push(event("stop"));
    ended.abort();
    await ended.return();
    expect(cancels).toBe(1);
  });
});
