// The engine: requests in, token events out, one step at a time. It ties the scheduler, the backend that runs batches and
// the registry of hybrids together; it knows token ids, never text, threads or HTTP.
import type { LinearPool } from "../../models/model.ts";
import type { Backend, Batch, ChunkOutput, Drawn, Scored } from "./batch.ts";
import { Counters } from "./counters.ts";
import { generateAll, scoreAll } from "./drain.ts";
import { type Hybrid, hybridInfo } from "./hybrid.ts";
import type { HybridRegistry } from "./hybrid_registry.ts";
import { generateSequence, type RequestLimits, scoreSequence } from "./requests.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";
import {
  BASE_HYBRID,
  type EngineInfo,
  type EngineStats,
  type GenerateRequest,
  type GenerateResult,
  type HybridInfo,
  type HybridSpec,
  type PoolInfo,
  type ScoreRequest,
  type ScoreResult,
  type TokenEvent,
} from "./types.ts";

/** What one step brought, by sequence id. */
export interface StepResult {
  readonly events: readonly { readonly id: number; readonly event: TokenEvent }[];
  readonly scores: readonly { readonly id: number; readonly result: ScoreResult }[];
  /** Sequences ended by a fault of the backend. */
  readonly failed: readonly { readonly id: number; readonly error: Error }[];
  readonly numPrefillTokens: number;
  readonly numDecodeTokens: number;
}

/** What an engine is made of; create.ts builds it for a loaded model. */
export interface EngineParts {
  readonly info: EngineInfo;
  readonly scheduler: Scheduler;
  readonly backend: Backend;
  readonly registry: HybridRegistry;
  /** Bytes of k and v of one token in one full-attention layer. */
  readonly kvBytesPerToken: number;
  readonly weightBytes: () => number;
  readonly close: () => void;
}

/** Continuous batching over one loaded model and its hybrids. */
export class Engine {
  readonly info: EngineInfo;
  readonly #parts: EngineParts;
  #closed = false;
  readonly #sequences = new Map<number, Sequence>();
  readonly #counters = new Counters();
  #nextId = 1;

  constructor(parts: EngineParts) {
    this.info = parts.info;
    this.#parts = parts;
  }

  get hasWork(): boolean {
    return this.#sequences.size > 0;
  }

  /** Whether a further request would be queued rather than refused. */
  get hasRoom(): boolean {
    return this.#parts.scheduler.numWaiting < this.info.maxWaiting;
  }

  /** Queues a generation and returns its id. @throws RequestError, CapacityError */
  add(request: GenerateRequest): number {
    const hybrid = this.#parts.registry.get(request.hybrid ?? BASE_HYBRID);
    return this.#queue(generateSequence(this.#nextId, request, hybrid, this.#limits(hybrid)));
  }

  /** Queues a scoring and returns its id. @throws RequestError, CapacityError */
  addScore(request: ScoreRequest): number {
    const hybrid = this.#parts.registry.get(request.hybrid ?? BASE_HYBRID);
    return this.#queue(scoreSequence(this.#nextId, request, hybrid, this.#limits(hybrid)));
  }

  /** Ends a sequence at once and frees what it held; its last event, or null where it had already ended. */
  cancel(id: number): TokenEvent | null {
    const sequence = this.#sequences.get(id);
    if (sequence === undefined) return null;
    this.#end(sequence);
    this.#counters.finished.cancelled++;
    return { tokenIds: [], finishReason: "cancelled", usage: sequence.usage };
  }

  /** Computes the next batch and reports what came of it. */
  step(): StepResult {
    const started = performance.now();
    const batch = this.#parts.scheduler.schedule();
    if (batch.numRows === 0) return EMPTY_STEP;
    let outputs: ChunkOutput[];
    try {
      outputs = this.#parts.backend.run(batch);
    } catch (error) {
      return this.#fail(batch, error);
    }
    this.#parts.scheduler.advance(batch);
    return this.#publish(batch, outputs, started);
  }

  /** Runs requests to their end; only for an engine that nobody else uses. @throws RequestError, KernelError */
  generate(requests: readonly GenerateRequest[]): GenerateResult[] {
    return generateAll(this, requests);
  }

  /** Scores requests; only for an engine that nobody else uses. Independent of how they share batches. @throws as generate() */
  score(requests: readonly ScoreRequest[]): ScoreResult[] {
    return scoreAll(this, requests);
  }

  /** Takes effect for the next request; a running sequence keeps what it began with. @throws RequestError */
  registerHybrid(spec: HybridSpec): HybridInfo {
    return hybridInfo(this.#parts.registry.register(spec), this.#parts.kvBytesPerToken);
  }

  removeHybrid(name: string): boolean {
    return this.#parts.registry.remove(name);
  }

  hybrids(): HybridInfo[] {
    return this.#parts.registry.list().map((hybrid) => hybridInfo(hybrid, this.#parts.kvBytesPerToken));
  }

  /** Makes a pool's counterparts available to hybrids. @throws RequestError for a pool of another backbone. */
  addPool(pool: LinearPool): PoolInfo {
    return this.#parts.registry.addPool(pool);
  }

  pools(): PoolInfo[] {
    return this.#parts.registry.pools();
  }

  /** What addPool() was given; whoever loaded them frees them, after close(). */
  get loadedPools(): LinearPool[] {
    return this.#parts.registry.loadedPools;
  }

  stats(): EngineStats {
    const { scheduler, kvBytesPerToken, registry } = this.#parts;
    const { pages, states, limits, sharing } = scheduler;
    const pageBytes = limits.pageSize * kvBytesPerToken;
    const pools = registry.loadedPools.flatMap((pool) => pool.mixers.map((mixer) => mixer.weightBytes()));
    return {
      ...this.#counters,
      finished: { ...this.#counters.finished },
      running: scheduler.numRunning,
      waiting: scheduler.numWaiting,
      preemptions: scheduler.numPreemptions,
      kvBytesUsed: pages.numUsed * pageBytes,
      kvBytesTotal: pages.numPages * pageBytes,
      stateBytesUsed: 4 * (states.floatsUsed - sharing.cache.stateFloats),
      stateBytesTotal: 4 * states.numFloats,
      prefixHits: sharing.hits,
      prefixMisses: sharing.misses,
      prefixQueryTokens: sharing.queryTokens,
      prefixHitTokens: sharing.hitTokens,
      prefixEvictions: sharing.cache.evictions,
      prefixBytes: sharing.cache.bytes,
      prefixSnapshots: sharing.cache.size,
      weightBytes: this.#parts.weightBytes() + pools.reduce((sum, bytes) => sum + bytes, 0),
    };
  }

  /** Cancels everything and frees the engine's own memory (not the model's); a second call does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const id of [...this.#sequences.keys()]) this.cancel(id);
    this.#parts.close();
  }

  /** One sequence alone must fit into the KV pool, so a small pool shortens the context of hybrids that use it. */
  #limits(hybrid: Hybrid): RequestLimits {
    const { vocabSize, maxContext, pageSize } = this.info;
    const { numPages } = this.#parts.scheduler.limits;
    const tokens = hybrid.numFull === 0 ? maxContext : Math.floor(numPages / hybrid.numFull) * pageSize;
    return { vocabSize, maxContext: Math.min(maxContext, tokens) };
  }

  #queue(sequence: Sequence): number {
    this.#parts.scheduler.add(sequence);
    this.#sequences.set(sequence.id, sequence);
    this.#nextId++;
    return sequence.id;
  }

  #end(sequence: Sequence): void {
    this.#parts.scheduler.finish(sequence);
    this.#sequences.delete(sequence.id);
  }

  #fail(batch: Batch, cause: unknown): StepResult {
    const error = cause instanceof Error ? cause : new Error(String(cause));
    this.#parts.scheduler.fail(batch);
    const failed = batch.chunks.map(({ sequence }) => {
      this.#sequences.delete(sequence.id);
      return { id: sequence.id, error };
    });
    return { ...EMPTY_STEP, failed };
  }

  #publish(batch: Batch, outputs: readonly ChunkOutput[], started: number): StepResult {
    const events: { id: number; event: TokenEvent }[] = [];
    const scores: { id: number; result: ScoreResult }[] = [];
    let numDecodeTokens = 0;
    batch.chunks.forEach((chunk, i) => {
      const { sequence, start, count } = chunk;
      if (count === 1 && start >= sequence.numPrompt) numDecodeTokens++;
      const output = outputs[i];
      if (!output) return;
      if ("id" in output) events.push({ id: sequence.id, event: this.#drawn(sequence, output) });
      else this.#scored(sequence, start + count - chunk.numOutputs, output, scores);
    });
    const numPrefillTokens = batch.numRows - numDecodeTokens;
    this.#counters.recordStep((performance.now() - started) / 1000, numPrefillTokens, numDecodeTokens);
    return { events, scores, failed: [], numPrefillTokens, numDecodeTokens };
  }

  #drawn(sequence: Sequence, { id, logprob, top }: Drawn): TokenEvent {
    if (sequence.tokens.length === sequence.numPrompt) this.#counters.promptTokens += sequence.numPrompt;
    const finishReason = sequence.append(id);
    this.#counters.generatedTokens++;
    if (finishReason !== null) {
      this.#end(sequence);
      this.#counters.finished[finishReason]++;
    }
    const { numLogprobs } = sequence.sampling;
    return {
      tokenIds: [id],
      ...(numLogprobs >= 0 ? { logprobs: [logprob] } : {}),
      ...(numLogprobs > 0 ? { topLogprobs: [top] } : {}),
      finishReason,
      usage: sequence.usage,
    };
  }

  /** Keeps the scores of rows from `position` on; the last of them ends the sequence. */
  #scored(sequence: Sequence, position: number, output: Scored, scores: { id: number; result: ScoreResult }[]): void {
    const { from, logprobs, argmax } = sequence.score!;
    const at = position + 1 - from;
    logprobs.set(output.logprobs, at);
    argmax.set(output.argmax, at);
    this.#counters.scoredTokens += output.logprobs.length;
    if (sequence.numPending > 0) return;
    this.#counters.promptTokens += sequence.numFed;
    this.#counters.finished.score++;
    this.#end(sequence);
    const greedy = argmax.every((id, i) => id === sequence.tokens[from + i]);
    scores.push({ id: sequence.id, result: { logprobs, argmax, greedy } });
  }
}

const EMPTY_STEP: StepResult = { events: [], scores: [], failed: [], numPrefillTokens: 0, numDecodeTokens: 0 };
