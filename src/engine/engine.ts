// The engine: requests in, token events out, one step at a time. It ties the scheduler, the backend that runs batches and
// the registry of hybrids together; it knows token ids, never text, threads or HTTP.
import type { LinearPool } from "../../models/model.ts";
import { KernelError, RequestError } from "../errors.ts";
import type { Backend, Batch, ChunkOutput, Drawn, Scored } from "./batch.ts";
import { Catalog } from "./catalog.ts";
import type { ConstraintFactory } from "./constraint.ts";
import { Counters } from "./counters.ts";
import { generateAll, scoreAll } from "./drain.ts";
import { engineStats } from "./engine_stats.ts";
import type { Hybrid } from "./hybrid.ts";
import type { HybridRegistry } from "./hybrid_registry.ts";
import { OrderedList } from "./ordered_list.ts";
import { Pacer } from "./pacer.ts";
import { PromptsBeside } from "./prompts_beside.ts";
import { generateSequence, type RequestLimits, scoreSequence } from "./requests.ts";
import type { ResidencyLimits, Waiter } from "./residency.ts";
import type { Schedule, Scheduler } from "./scheduler.ts";
import { byDeadline, type Sequence } from "./sequence.ts";
import { Sessions, type SessionsParts } from "./sessions/sessions.ts";
import { StepAhead } from "./step_ahead.ts";
import type { Clock } from "./timings.ts";
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
  type SessionInfo,
  type TokenEvent,
} from "./types.ts";

/** What one step brought, by sequence id. */
export interface StepResult {
  readonly events: readonly { readonly id: number; readonly event: TokenEvent }[];
  readonly scores: readonly { readonly id: number; readonly result: ScoreResult }[];
  /** Sequences that cannot go on, by a fault of the backend, by themselves or for want of their hybrid, and scorings past their deadline. */
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
  /** null: requests with a constraint are refused. */
  readonly constraints: ConstraintFactory | null;
  /** Bytes of k and v of one token in one full-attention layer. */
  readonly kvBytesPerToken: number;
  readonly weightBytes: () => number;
  /** Time inside kernels; null where it is not counted. */
  readonly kernelClock: { readonly seconds: number } | null;
  readonly close: () => void;
  /** Milliseconds, never going back; deadlines, timings and durations of steps are read from it. */
  readonly clock: Clock;
  /** Where prefixes may be saved, and what decides their bits; absent: nowhere. */
  readonly sessions?: Omit<SessionsParts, "sharing" | "turn" | "pageSize">;
  /** Absent: counterparts once loaded stay. */
  readonly residency?: ResidencyLimits;
  /** Whether a step may begin before the tokens of the one before are known: pays where a device computes beside the host. */
  readonly runAhead?: boolean;
}

/** Continuous batching over one loaded model and its hybrids. */
export class Engine {
  readonly info: EngineInfo;
  readonly #parts: EngineParts;
  #closed = false;
  readonly #sequences = new Map<number, Sequence>();
  /** Those that have a deadline, soonest first. */
  readonly #deadlines = new OrderedList(byDeadline);
  readonly #counters = new Counters();
  readonly #catalog: Catalog;
  readonly #sessions: Sessions | null;
  /** Each sequence as somebody who wants its hybrid in memory. */
  readonly #holds = new Map<Sequence, Waiter>();
  /** Sequences whose hybrid could not be loaded, for the next step's report. */
  #unloadable: { id: number; error: Error }[] = [];
  readonly #beside: PromptsBeside;
  readonly #steps: StepAhead;
  /** Turns for work beside the steps; whoever drives the engine grants them. */
  readonly pacer = new Pacer();
  #nextId = 1;

  constructor(parts: EngineParts) {
    this.info = parts.info;
    this.#parts = parts;
    this.#beside = new PromptsBeside(parts.backend, parts.scheduler.pacer, parts.clock);
    this.#steps = new StepAhead(parts.backend, parts.scheduler, this.#counters, parts.runAhead ?? false);
    const limits = parts.residency ?? { maxBytes: Number.POSITIVE_INFINITY, keepAliveMs: Number.POSITIVE_INFINITY };
    this.#catalog = new Catalog(parts.registry, parts.kvBytesPerToken, limits, {
      turn: () => this.pacer.turn(),
      left: (identity) => {
        parts.scheduler.sharing.cache.forget(identity);
        parts.backend.forget(identity);
      },
    });
    const { sharing } = parts.scheduler;
    const turn = () => this.pacer.turn();
    this.#sessions = parts.sessions
      ? new Sessions({ ...parts.sessions, sharing, turn, pageSize: this.info.pageSize })
      : null;
  }

  /** Prefixes on the disk. @throws RequestError where there are to be none */
  get sessions(): Sessions {
    if (this.#sessions === null) throw new RequestError("sessions_off", "Sessions are not saved here");
    return this.#sessions;
  }

  /** Writes the longest cached prefix of these tokens to the disk. @throws RequestError */
  async saveSession(hybrid: string, tokenIds: readonly number[]): Promise<SessionInfo> {
    // Who asks with these tokens begins before the last one: its logits are wanted.
    return this.sessions.save(this.#catalog.get(hybrid), tokenIds.slice(0, -1));
  }

  get hasWork(): boolean {
    return this.#sequences.size > 0 || this.#unloadable.length > 0;
  }

  /** Whether a further request would be queued rather than refused. */
  get hasRoom(): boolean {
    return this.#parts.scheduler.numWaiting < this.info.maxWaiting;
  }

  /** Queues a generation and returns its id. @throws RequestError, CapacityError */
  add(request: GenerateRequest): number {
    const hybrid = this.#catalog.get(request.hybrid ?? BASE_HYBRID);
    const { constraints } = this.#parts;
    return this.#queue(generateSequence(this.#nextId, request, hybrid, this.#limits(hybrid), constraints));
  }

  /**
   * As add(), but all of the prompt save its last token counts as computed, whatever the pools hold in its place: for
   * measuring at a context without computing it. Needs an engine without a prefix cache.
   */
  addAssumed(request: GenerateRequest): number {
    const hybrid = this.#catalog.get(request.hybrid ?? BASE_HYBRID);
    const sequence = generateSequence(this.#nextId, request, hybrid, this.#limits(hybrid), this.#parts.constraints);
    sequence.assumed = sequence.numPrompt - 1;
    return this.#queue(sequence);
  }

  /** Queues a scoring and returns its id. @throws RequestError, CapacityError */
  addScore(request: ScoreRequest): number {
    const hybrid = this.#catalog.get(request.hybrid ?? BASE_HYBRID);
    return this.#queue(scoreSequence(this.#nextId, request, hybrid, this.#limits(hybrid)));
  }

  /** Ends a sequence at once and frees what it held; its last event, or null where it had already ended. */
  cancel(id: number): TokenEvent | null {
    const sequence = this.#sequences.get(id);
    if (sequence === undefined) return null;
    return this.#cut(sequence, "cancelled");
  }

  /** Ends what is past its deadline, computes the next batch and reports what came of it. */
  step(): StepResult {
    const started = this.#parts.clock();
    const report = this.#expire(started);
    const { batch, beside } = this.#next(started, report);
    this.#beside.keep(beside);
    const ran = batch.numRows === 0 || this.#run(batch, started, report);
    // A batch that begins in parts may have had its copies in the one that failed.
    if (!ran && beside !== null) this.#fail(beside, new KernelError("The step before it failed"), report);
    else if (beside !== null) this.#advance(beside, batch.numRows > 0, started, report);
    const { numPrefillTokens, numDecodeTokens } = report;
    if (batch.numRows > 0 || beside !== null) {
      this.#counters.recordStep((this.#parts.clock() - started) / 1000, numPrefillTokens, numDecodeTokens);
    }
    return report;
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
    return this.#catalog.register(spec);
  }

  removeHybrid(name: string): boolean {
    return this.#catalog.remove(name);
  }

  hybrids(): HybridInfo[] {
    return this.#catalog.list();
  }

  /** Brings a hybrid's counterparts into memory, while turns are granted. @throws RequestError */
  loadHybrid(name: string, keepAliveMs?: number): Promise<HybridInfo> {
    return this.#catalog.load(name, keepAliveMs);
  }

  /** Gives a hybrid's counterparts up, at once or when its last sequence ends. @throws RequestError for an unknown name */
  unloadHybrid(name: string): HybridInfo {
    return this.#catalog.unload(name);
  }

  /** Makes a pool's counterparts available to hybrids. @throws RequestError for a pool of another backbone. */
  addPool(pool: LinearPool): PoolInfo {
    return this.#catalog.addPool(pool);
  }

  /** Takes a pool away and frees it when its last sequence has ended. @throws RequestError where a hybrid needs it */
  removePool(id: string): boolean {
    return this.#catalog.removePool(id);
  }

  pools(): PoolInfo[] {
    return this.#catalog.pools();
  }

  /** What addPool() was given; whoever loaded them frees them, after close(). */
  get loadedPools(): LinearPool[] {
    return this.#catalog.loadedPools;
  }

  stats(): EngineStats {
    return engineStats(this.#parts, this.#counters, this.#catalog, this.#sessions?.counts ?? null);
  }

  /** Cancels everything and frees the engine's own memory (not the model's); a second call does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const id of [...this.#sequences.keys()]) this.cancel(id);
    this.#beside.keep(null);
    this.pacer.close(new Error("The engine has been closed"));
    this.#catalog.close();
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
    sequence.ready = false;
    this.#parts.scheduler.add(sequence);
    this.#sequences.set(sequence.id, sequence);
    sequence.accept(this.#parts.clock());
    if (Number.isFinite(sequence.deadlineAt)) this.#deadlines.add(sequence);
    this.#nextId++;
    this.#hold(sequence);
    return sequence.id;
  }

  /** Until its hybrid is in memory a sequence waits. */
  #hold(sequence: Sequence): void {
    const waiter: Waiter = {
      ready: () => {
        const makeReady = () => {
          this.#parts.scheduler.makeReady(sequence);
          this.pacer.wake();
        };
        const restored = sequence.score === null ? (this.#sessions?.seek(sequence) ?? null) : null;
        if (restored === null) makeReady();
        else void restored.then(makeReady);
      },
      failed: (error) => {
        this.#end(sequence);
        this.#unloadable.push({ id: sequence.id, error });
        this.pacer.wake();
      },
    };
    this.#holds.set(sequence, waiter);
    this.#catalog.hold(sequence.hybrid, waiter);
  }

  #end(sequence: Sequence): void {
    this.#parts.scheduler.finish(sequence);
    this.#forget(sequence);
  }

  #forget(sequence: Sequence): void {
    this.#sequences.delete(sequence.id);
    this.#deadlines.remove(sequence);
    const waiter = this.#holds.get(sequence)!;
    this.#holds.delete(sequence);
    this.#catalog.release(sequence.hybrid, waiter);
  }

  /** Ends a sequence between tokens. */
  #cut(sequence: Sequence, finishReason: "cancelled" | "deadline"): TokenEvent {
    this.#end(sequence);
    this.#counters.finished[finishReason]++;
    const timings = sequence.stopwatch.timings(this.#parts.clock());
    return { tokenIds: [], finishReason, usage: sequence.usage, timings };
  }

  #expire(now: number): Report {
    const expired: Report = {
      events: [],
      scores: [],
      failed: this.#unloadable,
      numPrefillTokens: 0,
      numDecodeTokens: 0,
    };
    this.#unloadable = [];
    for (let next = this.#deadlines.items[0]; next && next.deadlineAt <= now; next = this.#deadlines.items[0]) {
      const event = this.#cut(next, "deadline");
      if (next.score === null) expired.events.push({ id: next.id, event });
      else expired.failed.push({ id: next.id, error: new RequestError("deadline_exceeded", LATE) });
    }
    return expired;
  }

  /** Ends the sequences of a batch that have not ended yet. */
  #fail(batch: Batch, cause: unknown, { failed }: Report): void {
    const error = cause instanceof Error ? cause : new Error(String(cause));
    this.#beside.keep(null);
    const open = batch.chunks.filter(({ sequence }) => this.#sequences.has(sequence.id));
    this.#parts.scheduler.fail(batch);
    for (const { sequence } of open) {
      this.#forget(sequence);
      failed.push({ id: sequence.id, error });
    }
  }

  /** What has been begun already, or whatever is to be computed now. */
  #next(started: number, report: Report): Schedule {
    const { begun } = this.#steps;
    if (begun !== null) {
      if (begun.chunks.some(({ sequence }) => this.#sequences.has(sequence.id))) return { batch: begun, beside: null };
      this.#run(begun, started, report);
    }
    return this.#parts.scheduler.schedule();
  }

  /** False where it failed. */
  #run(batch: Batch, started: number, report: Report): boolean {
    try {
      this.#take(batch, this.#steps.run(batch), started, report);
      return true;
    } catch (error) {
      this.#steps.drop();
      this.#fail(batch, error, report);
      return false;
    }
  }

  /** Takes prompts on beside streams, or to their end where there are none. */
  #advance(beside: Batch, streams: boolean, started: number, report: Report): void {
    try {
      for (const { sequence } of beside.chunks) sequence.stopwatch.begin(started);
      const outputs = this.#beside.advance(beside, streams ? this.#parts.clock() - started : null);
      if (outputs === null) return;
      this.#parts.scheduler.advance(beside);
      this.#take(beside, outputs, started, report);
    } catch (error) {
      this.#fail(beside, error, report);
    }
  }

  /** A batch has been computed: its sequences move on, and their tokens go into the report. */
  #take(batch: Batch, outputs: readonly ChunkOutput[], started: number, report: Report): void {
    const now = this.#parts.clock();
    const { events, scores, failed } = report;
    batch.chunks.forEach((chunk, i) => {
      const { sequence, start, count } = chunk;
      // It has ended since the batch was begun.
      if (!this.#sequences.has(sequence.id)) return;
      sequence.stopwatch.begin(started);
      if (count === 1 && start >= sequence.numPrompt) report.numDecodeTokens++;
      else report.numPrefillTokens += count;
      const output = outputs[i];
      if (!output) return;
      try {
        if ("error" in output) throw output.error;
        if ("id" in output) events.push({ id: sequence.id, event: this.#drawn(sequence, output, now) });
        else this.#scored(sequence, start + count - chunk.numOutputs, output, scores);
      } catch (error) {
        failed.push({ id: sequence.id, error: this.#abandon(sequence, error) });
      }
    });
  }

  /** Ends one sequence that cannot go on. Broken logits may come of broken pages or states: then nothing is kept. */
  #abandon(sequence: Sequence, cause: unknown): Error {
    const { scheduler } = this.#parts;
    if (cause instanceof KernelError) scheduler.discard(sequence);
    else scheduler.finish(sequence);
    this.#forget(sequence);
    return cause instanceof Error ? cause : new Error(String(cause));
  }

  #drawn(sequence: Sequence, { id, logprob, top }: Drawn, now: number): TokenEvent {
    sequence.stopwatch.token(now);
    const isFirst = sequence.tokens.length === sequence.numPrompt;
    if (isFirst) this.#counters.promptTokens += sequence.numPrompt;
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
      ...(isFirst || finishReason !== null ? { timings: sequence.stopwatch.timings(now) } : {}),
    };
  }

  /** Keeps the scores of rows from `position` on; the last of them ends the sequence. */
  #scored(sequence: Sequence, position: number, output: Scored, scores: { id: number; result: ScoreResult }[]): void {
    const { from, logprobs, argmax, numTop, top } = sequence.score!;
    const at = position + 1 - from;
    logprobs.set(output.logprobs, at);
    argmax.set(output.argmax, at);
    if (numTop > 0) top.push(...output.top);
    this.#counters.scoredTokens += output.logprobs.length;
    if (sequence.numPending > 0) return;
    this.#counters.promptTokens += sequence.numFed;
    this.#counters.finished.score++;
    this.#end(sequence);
    const greedy = argmax.every((id, i) => id === sequence.tokens[from + i]);
    const result = { logprobs, argmax, greedy, ...(numTop > 0 ? { topLogprobs: top } : {}) };
    scores.push({ id: sequence.id, result });
  }
}

/** What a step brings, as it comes together. */
interface Report {
  readonly events: { id: number; event: TokenEvent }[];
  readonly scores: { id: number; result: ScoreResult }[];
  readonly failed: { id: number; error: Error }[];
  numPrefillTokens: number;
  numDecodeTokens: number;
}

const LATE = "The scoring is past its deadline";
