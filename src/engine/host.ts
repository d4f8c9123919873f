// Drives an engine from messages: steps while there is work, reads messages between steps, reports what came of them.
// Knows the protocol, not the thread it runs in.
import type { LinearPool } from "../../models/model.ts";
import { DeviceLostError } from "../errors.ts";
import { keepAliveMs } from "./create.ts";
import type { Engine, StepResult } from "./engine.ts";
import { type CallMessage, type FromEngine, type ToEngine, toWire } from "./protocol.ts";
import type { PoolInfo, ScoreRequest, ScoreResult } from "./types.ts";
import { packEvents } from "./wire_events.ts";

/** What a host drives and whom it tells. */
export interface HostParts {
  readonly engine: Engine;
  readonly post: (message: FromEngine) => void;
  readonly openPool: (directory: string) => LinearPool;
  /** Shows that the thread is alive; called every step. */
  readonly beat: () => void;
}

/** A list of score requests on its way through the engine, a few at a time. */
interface ScoreJob {
  readonly id: number;
  readonly requests: readonly ScoreRequest[];
  readonly results: ScoreResult[];
  next: number;
  numDone: number;
}

/** Loading beside a step takes at most this part of the step's own time, and one piece of work. */
const BESIDE = 0.5;
/** Loading without streams lets messages in after so long. */
const ALONE_MS = 20;
/** How often sequences that wait for weights are looked at. */
const WAITING_MS = 20;

/** Serves one client's messages with one engine. */
export class EngineHost {
  readonly #parts: HostParts;
  /** Client's id by engine's id, and back, of generations. */
  readonly #streams = new Map<number, number>();
  readonly #engineIds = new Map<number, number>();
  readonly #jobs = new Map<number, ScoreJob>();
  /** Which job, and which of its requests, an engine's id scores. */
  readonly #scoring = new Map<number, { job: ScoreJob; index: number }>();
  #wake: (() => void) | null = null;
  #closed = false;

  constructor(parts: HostParts) {
    this.#parts = parts;
  }

  /** Takes one message; never throws: a fault goes to the client as an error. */
  handle(message: Exclude<ToEngine, { kind: "start" | "vocabulary" }>): void {
    if (message.kind === "close") this.#closed = true;
    else if (message.kind === "cancel") this.#cancel(message.id);
    else {
      this.#guarded(message.id, () => {
        if (message.kind === "call") this.#call(message);
        else this.#generate(message);
      });
    }
    this.#wake?.();
  }

  /** Steps until closed, then cancels what runs; the engine is the caller's to close. Between steps control goes back to the event loop, so that messages get in. */
  async run(): Promise<void> {
    const { engine, beat } = this.#parts;
    engine.pacer.wake = () => this.#wake?.();
    while (!this.#closed) {
      beat();
      this.#feed();
      const started = performance.now();
      const computed = engine.hasWork && this.#report(engine.step());
      if (computed) await new Promise((resolve) => setImmediate(resolve));
      // Beside running streams loading takes a part of the time that a step takes; with none to wait, all of it.
      if (engine.pacer.pending) await engine.pacer.grant(computed ? BESIDE * (performance.now() - started) : ALONE_MS);
      else if (!computed) await this.#sleep(engine.hasWork);
    }
    for (const id of [...this.#engineIds.keys()]) this.#cancel(id);
  }

  /** Until something happens; who waits for weights may pass a deadline meanwhile. */
  async #sleep(waiting: boolean): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (waiting) setTimeout(resolve, WAITING_MS);
    });
    this.#wake = null;
  }

  #guarded(id: number, body: () => void): void {
    try {
      body();
    } catch (error) {
      this.#parts.post({ kind: "error", id, error: toWire(error) });
    }
  }

  #generate({ id, request }: Extract<ToEngine, { kind: "generate" }>): void {
    const engineId = this.#parts.engine.add(request);
    this.#streams.set(engineId, id);
    this.#engineIds.set(id, engineId);
  }

  #cancel(id: number): void {
    const { engine, post } = this.#parts;
    const engineId = this.#engineIds.get(id);
    if (engineId !== undefined) {
      const event = engine.cancel(engineId);
      // One that has failed already is in the next step's report.
      if (event === null) return;
      this.#forget(engineId);
      post({ kind: "events", events: packEvents([{ id, event }]) });
      return;
    }
    const job = this.#jobs.get(id);
    if (job !== undefined) this.#endJob(job);
  }

  #call(message: CallMessage): void {
    const { id, name, argument } = message;
    if (name === "score") this.#addJob(id, argument);
    else this.#post(id, this.#answer(message));
  }

  #post(id: number, value: unknown): void {
    const { post } = this.#parts;
    if (value instanceof Promise) {
      value.then(
        (settled) => post({ kind: "value", id, value: settled }),
        (error: unknown) => post({ kind: "error", id, error: toWire(error) }),
      );
    } else post({ kind: "value", id, value });
  }

  #answer(message: Exclude<CallMessage, { name: "score" }>): unknown {
    const { engine, openPool } = this.#parts;
    switch (message.name) {
      case "registerHybrid":
        return engine.registerHybrid(message.argument);
      case "removeHybrid":
        return engine.removeHybrid(message.argument);
      case "hybrids":
        return engine.hybrids();
      case "loadPool":
        return this.#addPool(openPool(message.argument));
      case "unloadPool":
        return engine.removePool(message.argument);
      case "loadHybrid": {
        const { name, keepAliveSeconds } = message.argument;
        return engine.loadHybrid(name, keepAliveSeconds === undefined ? undefined : keepAliveMs(keepAliveSeconds));
      }
      case "unloadHybrid":
        return engine.unloadHybrid(message.argument);
      case "pools":
        return engine.pools();
      case "saveSession":
        return engine.saveSession(message.argument.hybrid, message.argument.tokenIds);
      case "saveSessions":
        return engine.sessions.saveAll();
      case "sessions":
        return engine.sessions.list();
      case "deleteSession":
        return engine.sessions.remove(message.argument);
      case "stats":
        return engine.stats();
    }
  }

  #addPool(pool: LinearPool): PoolInfo {
    try {
      return this.#parts.engine.addPool(pool);
    } catch (error) {
      pool.free();
      throw error;
    }
  }

  #addJob(id: number, requests: readonly ScoreRequest[]): void {
    const job = { id, requests, results: new Array(requests.length), next: 0, numDone: 0 };
    if (requests.length > 0) this.#jobs.set(id, job);
    else this.#parts.post({ kind: "value", id, value: [] });
  }

  /** Keeps at most a batch's worth of score sequences in the engine, so that generations never queue behind a long list. */
  #feed(): void {
    const { engine } = this.#parts;
    for (const job of this.#jobs.values()) {
      while (job.next < job.requests.length) {
        if (this.#scoring.size >= engine.info.maxSequences || !engine.hasRoom) return;
        const index = job.next++;
        try {
          this.#scoring.set(engine.addScore(job.requests[index]!), { job, index });
        } catch (error) {
          this.#failJob(job, error);
          break;
        }
      }
    }
  }

  /** Whether the step did anything. @throws DeviceLostError */
  #report({ events, scores, failed, numPrefillTokens, numDecodeTokens }: StepResult): boolean {
    const { post } = this.#parts;
    // Nothing can go on without the device: this ends the thread, and with it every stream and call.
    const gone = failed.find(({ error }) => error instanceof DeviceLostError);
    if (gone !== undefined) throw gone.error;
    if (events.length > 0) {
      const named = events.map(({ id, event }) => ({ id: this.#streams.get(id)!, event }));
      for (const { id, event } of events) if (event.finishReason !== null) this.#forget(id);
      post({ kind: "events", events: packEvents(named) });
    }
    for (const { id, result } of scores) this.#scored(id, result);
    for (const { id, error } of failed) {
      const scoring = this.#scoring.get(id);
      if (scoring !== undefined) {
        this.#failJob(scoring.job, error);
        continue;
      }
      const stream = this.#streams.get(id);
      this.#forget(id);
      if (stream !== undefined) post({ kind: "error", id: stream, error: toWire(error) });
    }
    return numPrefillTokens + numDecodeTokens + events.length + scores.length + failed.length > 0;
  }

  #scored(engineId: number, result: ScoreResult): void {
    const { job, index } = this.#scoring.get(engineId)!;
    this.#scoring.delete(engineId);
    job.results[index] = result;
    if (++job.numDone < job.requests.length) return;
    this.#jobs.delete(job.id);
    this.#parts.post({ kind: "value", id: job.id, value: job.results });
  }

  #failJob(job: ScoreJob, error: unknown): void {
    if (!this.#jobs.has(job.id)) return;
    this.#endJob(job);
    this.#parts.post({ kind: "error", id: job.id, error: toWire(error) });
  }

  #endJob(job: ScoreJob): void {
    this.#jobs.delete(job.id);
    for (const [engineId, scoring] of [...this.#scoring]) {
      if (scoring.job !== job) continue;
      this.#scoring.delete(engineId);
      this.#parts.engine.cancel(engineId);
    }
  }

  #forget(engineId: number): void {
    const id = this.#streams.get(engineId);
    this.#streams.delete(engineId);
    if (id !== undefined) this.#engineIds.delete(id);
  }
}
