// The first constrained request of an engine in its own thread: who prepares the vocabulary, and what waits for it.
import { afterEach, describe, expect, test } from "bun:test";
import { join, resolve } from "node:path";
import { startEngine } from "../../src/engine/client.ts";
import { openEngine } from "../../src/engine/load.ts";
import type { ToEngine } from "../../src/engine/protocol.ts";
import { RestartingEngine } from "../../src/engine/restarting_engine.ts";
import type { GenerateRequest, TokenEvent } from "../../src/engine/types.ts";
import { VocabularyGate } from "../../src/engine/vocabulary_gate.ts";
import { RequestError } from "../../src/errors.ts";
import { prepareVocabulary } from "../../src/grammar/background_vocabulary.ts";
import { buildVocabulary } from "../../src/grammar/build_vocabulary.ts";
import { compileGrammar } from "../../src/grammar/compile.ts";
import { modelVocabulary } from "../../src/grammar/model_vocabulary.ts";
import { arraysOf, type VocabularyData } from "../../src/grammar/vocabulary.ts";
import { syntheticVocabulary } from "../grammar/vocabularies.ts";
import { THROWS } from "./faults.ts";

const modelDir = resolve(import.meta.dir, "../../models/tiny");
const constraint = compileGrammar({ kind: "regex", pattern: "[A-Z][a-z]{2,9}( [a-z]{1,8}){2}\\." });
const vocabulary = () => buildVocabulary({ vocabSize: 3, bytesOf: (id) => Uint8Array.of(97 + id) });

describe("the gate", () => {
  const request = (tag: number, fields: Partial<GenerateRequest> = {}): GenerateRequest => ({
    promptIds: [tag],
    maxTokens: 1,
    ...fields,
  });
  function begin() {
    const posted: ToEngine[] = [];
    const failed: [id: number, message: string][] = [];
    const preparing: PromiseWithResolvers<VocabularyData>[] = [];
    const gate = new VocabularyGate({
      prepare: () => {
        preparing.push(Promise.withResolvers());
        return preparing.at(-1)!.promise;
      },
      post: (message) => void posted.push(message),
      fail: (id, error) => void failed.push([id, error.message]),
    });
    const sent = () => posted.map((message) => ("id" in message ? message.id : message.kind));
    return { gate, posted, failed, preparing, sent };
  }

  test("holds only constrained requests, and only until the vocabulary has gone ahead", async () => {
    const { gate, preparing, sent } = begin();
    gate.generate(1, request(1));
    expect(preparing.length).toBe(0);
    gate.generate(2, request(2, { constraint }));
    gate.generate(3, request(3));
    gate.generate(4, request(4, { constraint }));
    expect(sent()).toEqual([1, 3]);
    preparing[0]!.resolve(vocabulary());
    await Bun.sleep(0);
    gate.generate(5, request(5, { constraint }));
    expect(sent()).toEqual([1, 3, "vocabulary", 2, 4, 5]);
    expect(preparing.length).toBe(1);
  });

  test("gives back what is cancelled meanwhile", async () => {
    const { gate, preparing, sent } = begin();
    gate.generate(1, request(1, { constraint }));
    gate.generate(2, request(2, { constraint }));
    const event = gate.cancel(1)!;
    expect([event.finishReason, event.usage.promptTokens]).toEqual(["cancelled", 1]);
    preparing[0]!.resolve(vocabulary());
    await Bun.sleep(0);
    expect(sent()).toEqual(["vocabulary", 2]);
    expect(gate.cancel(2)).toBeNull();
  });

  test("counts the wait towards the deadline, and leaves a wrong one wrong", async () => {
    const { gate, preparing, posted } = begin();
    [10_000, 1, 0, undefined].forEach((deadlineMs, id) => {
      gate.generate(id, request(id, { constraint, ...(deadlineMs === undefined ? {} : { deadlineMs }) }));
    });
    await Bun.sleep(20);
    preparing[0]!.resolve(vocabulary());
    await Bun.sleep(0);
    const left = posted.flatMap((message) => (message.kind === "generate" ? [message.request.deadlineMs] : []));
    expect(left[0]).toBeLessThan(9990);
    expect(left.slice(1)).toEqual([1, 0, undefined]);
  });

  test("a failure ends those that wait, and the next one tries again", async () => {
    const { gate, preparing, failed, sent } = begin();
    gate.generate(1, request(1, { constraint }));
    preparing[0]!.reject(new RequestError("no_tokenizer", "none"));
    await Bun.sleep(0);
    expect(failed).toEqual([[1, "none"]]);
    gate.generate(2, request(2, { constraint }));
    preparing[1]!.resolve(vocabulary());
    await Bun.sleep(0);
    expect(sent()).toEqual(["vocabulary", 2]);
  });
});

describe("the vocabulary", () => {
  test("from the other thread is the one made here", async () => {
    const vocabSize = 4096;
    expect(await prepareVocabulary(modelDir, vocabSize)).toEqual(modelVocabulary(modelDir, vocabSize));
  });

  test("a directory without tokenizer is refused with its code", async () => {
    const refused = await prepareVocabulary(import.meta.dir, 8).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(RequestError);
    expect((refused as RequestError).code).toBe("no_tokenizer");
  });

  test("moves between threads without a copy", () => {
    const source = syntheticVocabulary(3000);
    const data = buildVocabulary({ vocabSize: source.size, bytesOf: (id) => source.bytesOf(id) });
    const expected = structuredClone(data);
    const moved = structuredClone(data, { transfer: arraysOf(data) as ArrayBuffer[] });
    expect(moved).toEqual(expected);
    const views = [data, data.tree, ...data.plain, ...data.plain.map(({ others }) => others)]
      .flatMap((part) => Object.values(part))
      .filter((value) => ArrayBuffer.isView(value));
    expect(views.length).toBe(17);
    expect(views.map((view) => view.byteLength)).toEqual(views.map(() => 0));
  });
});

describe("an engine whose thread cannot read a tokenizer", () => {
  const entry = new URL(join("file://", import.meta.dir, "no_tokenizer_worker.ts"));
  const settings = { modelDir, threads: 1, kvBytes: 1 << 22, stateBytes: 1 << 22 };
  const seeds = [1, 2, 3, 4];
  const constrained = (seed: number): GenerateRequest => ({
    promptIds: [40, 41, 42],
    maxTokens: 60,
    sampling: { temperature: 1, seed },
    constraint,
  });
  let engine: RestartingEngine;
  afterEach(() => engine.close());

  const begin = async () => {
    engine = await RestartingEngine.start(() => startEngine(settings, entry), { log: () => {} });
  };
  const collect = async (request: GenerateRequest, signal?: AbortSignal) => {
    const events: TokenEvent[] = [];
    for await (const event of engine.generate(request, signal)) events.push(event);
    return { ids: events.flatMap(({ tokenIds }) => tokenIds), reason: events.at(-1)?.finishReason };
  };

  test("follows grammars as one that prepares its own vocabulary, also after it was lost", async () => {
    const alone = await openEngine(settings);
    const expected = alone.engine
      .generate(seeds.map(constrained))
      .map(({ tokenIds, finishReason }) => ({ ids: tokenIds, reason: finishReason }));
    alone.close();
    expect(new Set(expected.map(({ reason }) => reason))).toEqual(new Set(["stop"]));
    await begin();
    const all = () => Promise.all(seeds.map((seed) => collect(constrained(seed))));
    expect(await all()).toEqual(expected);
    await collect({ promptIds: [THROWS], maxTokens: 1 }).catch(() => {});
    while (!engine.alive) await Bun.sleep(5);
    expect(engine.restarts).toBe(1);
    expect(await all()).toEqual(expected);
  }, 20_000);

  test("cancels a request that waits for the vocabulary at once, and serves others meanwhile", async () => {
    await begin();
    const abort = new AbortController();
    const waiting = collect(constrained(1), abort.signal);
    const beside = collect({ promptIds: [40], maxTokens: 4 });
    abort.abort();
    expect(await waiting).toEqual({ ids: [], reason: "cancelled" });
    expect((await beside).reason).toBe("length");
    const { running, waiting: queued } = await engine.stats();
    expect([running, queued]).toEqual([0, 0]);
  }, 20_000);
});
