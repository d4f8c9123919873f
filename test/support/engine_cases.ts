// Schedules on a real hybrid with random weights: whatever an engine is asked for and in whatever company, the logits of
// every generated token are the bytes of a plain run of the same request, alone, cold and whole.
import type { Variant } from "../../models/attention/mixer.ts";
import type { ModelConfig } from "../../models/config.ts";
import type { LinearPool, LoadedModel } from "../../models/model.ts";
import { createRandomModel, createRandomPool } from "../../models/random_model.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { EngineOptions, GenerateRequest } from "../../src/engine/types.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { Random } from "../engine/random.ts";

/** A model of random weights, the hybrids of it that are served, and how its numbers are held. */
export interface CaseModel {
  readonly config: ModelConfig;
  readonly masks: readonly (readonly (Variant | null)[])[];
  readonly dtype: "f32" | "bf16";
  readonly kvDtype?: "f32" | "bf16";
  readonly stateDtype?: "f32" | "bf16";
  /** The longest answer of a case; every plain run is so long. */
  readonly mostTokens: number;
}

/** What has come up in all cases so far. */
export interface CaseTotals {
  requests: number;
  logits: number;
  hits: number;
  preemptions: number;
  cancelled: number;
  ahead: number;
  replayed: number;
}

/** Engines over one model, and the plain runs that they are held against. */
export class EngineCases {
  readonly totals: CaseTotals = {
    requests: 0,
    logits: 0,
    hits: 0,
    preemptions: 0,
    cancelled: 0,
    ahead: 0,
    replayed: 0,
  };
  readonly #ops: Ops;
  readonly #cases: CaseModel;
  readonly #model: LoadedModel;
  readonly #pools: LinearPool[];
  /** Hashes of the logits of a plain run, by request. */
  readonly #plain = new Map<string, bigint[]>();
  /** What of an engine's counters is in the totals already. */
  readonly #seen = new WeakMap<Engine, { preemptions: number; stepsAhead: number; stepsReplayed: number }>();
  #reference: Engine | null = null;
  #collected: bigint[] = [];

  constructor(ops: Ops, cases: CaseModel) {
    this.#ops = ops;
    this.#cases = cases;
    this.#model = createRandomModel(ops, cases.config, { dtype: cases.dtype });
    this.#pools = (["gla", "gdn", "jet"] as const).map((variant) =>
      createRandomPool(ops, this.#model, variant, { dtype: cases.dtype }),
    );
  }

  /** Bytes of k and v of a page of one layer. */
  pageBytes(pageSize: number): number {
    const { numKvHeads, headDim } = this.#cases.config;
    return pageSize * 2 * numKvHeads * headDim * (this.#cases.kvDtype === "bf16" ? 2 : 4);
  }

  /** An engine with every hybrid of the model; `tap` sees a hash of each row of logits that a request needs. */
  open(options: EngineOptions, tap: (id: number, at: number, hash: bigint) => void): Engine {
    const { config, masks, kvDtype = "f32", stateDtype = "f32" } = this.#cases;
    const all = { stateBytes: 1 << 20, maxContext: config.maxPositions, kvDtype, stateDtype, ...options };
    const engine = createEngine(this.#ops, this.#model, all, {
      tap: (id, at, logits) => tap(id, at, BigInt(Bun.hash(logits))),
    });
    for (const pool of this.#pools) engine.addPool(pool);
    for (const layers of masks) engine.registerHybrid({ name: String(layers), layers });
    return engine;
  }

  /** An engine whose requests must give the bytes of plain runs; `add` takes one. */
  openWatched(options: EngineOptions): { engine: Engine; add: (request: GenerateRequest) => number } {
    const requests = new Map<number, GenerateRequest>();
    const engine = this.open(options, (id, at, hash) => {
      const request = requests.get(id)!;
      if (hash !== this.plainRun(request)[at - request.promptIds.length]) {
        throw new Error(`Other logits for token ${at} of ${request.hybrid} ${request.promptIds}`);
      }
      this.totals.logits++;
    });
    const add = (request: GenerateRequest) => {
      this.plainRun(request);
      const id = engine.add(request);
      requests.set(id, request);
      this.totals.requests++;
      return id;
    };
    return { engine, add };
  }

  /** Hashes of logits by generated token. */
  plainRun(request: GenerateRequest): bigint[] {
    const key = `${request.hybrid} ${request.promptIds}`;
    const known = this.#plain.get(key);
    if (known !== undefined) return known;
    const alone = { prefixCacheBytes: 0, maxSequences: 1, prefillInterference: 0, runAhead: false };
    this.#reference ??= this.open(alone, (_, __, hash) => {
      this.#collected.push(hash);
    });
    this.#collected = [];
    const { hybrid, promptIds } = request;
    this.#reference.generate([{ hybrid: hybrid!, promptIds, maxTokens: this.#cases.mostTokens }]);
    this.#plain.set(key, this.#collected);
    return this.#collected;
  }

  /** Steps until nothing is left. `each` is called before every step. */
  finish(engine: Engine, each: (step: number) => void = () => {}): void {
    for (let step = 0; engine.hasWork; step++) {
      each(step);
      this.#step(engine);
    }
    this.#count(engine);
  }

  #step(engine: Engine): void {
    const { failed, events } = engine.step();
    if (failed.length > 0) throw failed[0]!.error;
    for (const { event } of events) {
      if (event.finishReason !== null && event.usage.cachedTokens > 0) this.totals.hits++;
    }
  }

  #count(engine: Engine): void {
    const { kvBytesUsed, stateBytesUsed, preemptions, stepsAhead, stepsReplayed } = engine.stats();
    if (kvBytesUsed + stateBytesUsed > 0) throw new Error(`${kvBytesUsed} + ${stateBytesUsed} bytes are still in use`);
    const seen = this.#seen.get(engine) ?? { preemptions: 0, stepsAhead: 0, stepsReplayed: 0 };
    this.totals.preemptions += preemptions - seen.preemptions;
    this.totals.ahead += stepsAhead - seen.stepsAhead;
    this.totals.replayed += stepsReplayed - seen.stepsReplayed;
    this.#seen.set(engine, { preemptions, stepsAhead, stepsReplayed });
  }

  /** A small random schedule. */
  run(seed: number): void {
    const random = new Random(seed);
    const { config, masks, mostTokens } = this.#cases;
    const pageSize = random.pick([4, 16, 32]);
    // Room for one whole context where every layer is full and little more, so that pages run out.
    const numPages = config.numLayers * Math.ceil(config.maxPositions / pageSize) + random.between(0, 6);
    const { engine, add } = this.openWatched({
      pageSize,
      kvBytes: numPages * this.pageBytes(pageSize),
      stateBytes: 1 << 18,
      maxBatchTokens: random.pick([1, 3, 7, 16, 33, 128]),
      maxSequences: random.between(1, 4),
      prefixCacheBytes: random.pick([0, 20_000, 1 << 20, 1 << 20]),
      snapshotTokens: random.pick([4, 16, 64]),
      prefillInterference: random.pick([0, 2]),
      runAhead: random.chance(0.5),
    });
    const ids: number[] = [];
    const words = (words: Random, count: number) =>
      Array.from({ length: count }, () => words.between(0, config.vocabSize - 1));
    const addOne = () => {
      const text = words(new Random(random.between(0, 1)), 80);
      const shared = random.pick([0, 16, 17, 33, 64]);
      const rest = words(new Random(random.between(0, 1)), random.pick([1, 2, 15]));
      ids.push(
        add({
          hybrid: String(random.pick(masks)),
          promptIds: [...text.slice(0, shared), ...rest],
          maxTokens: random.between(1, mostTokens),
          priority: random.pick([0, 0, 1]),
          ...(random.chance(0.3) ? { boundaries: [Math.max(1, shared)] } : {}),
        }),
      );
    };
    try {
      for (let i = random.between(1, 3); i > 0; i--) addOne();
      this.finish(engine, (step) => {
        if (step < 8 && random.chance(0.3)) addOne();
        if (!random.chance(0.01)) return;
        engine.cancel(random.pick(ids));
        this.totals.cancelled++;
      });
    } finally {
      engine.close();
    }
  }

  close(): void {
    this.#reference?.close();
    for (const pool of this.#pools) pool.free();
    this.#model.free();
  }
}
