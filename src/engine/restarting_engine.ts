// An engine that outlives its thread: a lost or stuck one is replaced by a new one with the same pools and hybrids.
// Looks like any EngineClient, so that nobody above needs to know; streams that were lost end with EngineLostError.

import { DeviceLostError, EngineLostError } from "../errors.ts";
import { type EngineThread, tellable } from "./client.ts";
import type {
  EngineClient,
  EngineInfo,
  EngineState,
  EngineStats,
  GenerateRequest,
  HybridInfo,
  HybridSpec,
  PoolInfo,
  ScoreRequest,
  ScoreResult,
  SessionInfo,
  TokenEvent,
  Variant,
} from "./types.ts";

/** How often the beat is looked at. */
const LOOK_MS = 250;

/** When an engine is given up, and when all of them are. */
export interface RestartOptions {
  /** Without a sign of life for this long a thread counts as stuck and is ended; 0: never (default 60 s). */
  readonly stuckMs?: number;
  /** Starts in a row before the engine stays dead (default 5). */
  readonly maxAttempts?: number;
  /** Pause before the second start of a row; doubled with each (default 500 ms). */
  readonly backoffMs?: number;
  /** An engine that ran for so long ends the row (default 60 s). */
  readonly stableMs?: number;
  readonly log: (message: string, level: "info" | "warn" | "error") => void;
}

/** A pool as the callers know it: its id here stays the same when the engine behind changes. */
interface KeptPool {
  readonly directory: string;
  readonly variant: Variant;
  /** Its id in the running engine; null where that could not load it. */
  innerId: string | null;
}

export class RestartingEngine implements EngineClient {
  readonly #start: () => Promise<EngineThread>;
  readonly #options: Required<RestartOptions>;
  readonly #pools = new Map<string, KeptPool>();
  readonly #hybrids = new Map<string, HybridSpec>();
  readonly #watch: ReturnType<typeof setInterval>;
  #thread: EngineThread | null = null;
  /** Resolves when there is a thread again, or none for good. */
  #back: Promise<void> = Promise.resolve();
  #info: EngineInfo;
  #startedAt = 0;
  #attempts = 0;
  #restarts = 0;
  #poolSerial = 0;
  #closed = false;
  #dead = false;
  #problem: string | null = null;

  /** Starts the first engine; that it cannot is the caller's to handle. @throws what `start` throws */
  static async start(start: () => Promise<EngineThread>, options: RestartOptions): Promise<RestartingEngine> {
    return new RestartingEngine(start, options, await start());
  }

  private constructor(start: () => Promise<EngineThread>, options: RestartOptions, first: EngineThread) {
    this.#start = start;
    this.#options = { stuckMs: 60_000, maxAttempts: 5, backoffMs: 500, stableMs: 60_000, ...options };
    this.#info = first.info;
    this.#adopt(first);
    this.#watch = setInterval(() => this.#look(), LOOK_MS);
    this.#watch.unref();
  }

  get info(): EngineInfo {
    return this.#info;
  }

  get heartbeatAgeMs(): number {
    return this.#thread?.heartbeatAgeMs ?? Number.POSITIVE_INFINITY;
  }

  get alive(): boolean {
    return this.#thread?.alive === true;
  }

  get state(): EngineState {
    if (this.alive) return "running";
    return this.#dead || this.#closed ? "dead" : "restarting";
  }

  get problem(): string | null {
    return this.alive ? null : this.#problem;
  }

  get restarts(): number {
    return this.#restarts;
  }

  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<TokenEvent> {
    if (this.#thread !== null) return this.#thread.generate(request, signal);
    const error = this.#absent();
    return { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }) };
  }

  async score(requests: readonly ScoreRequest[], signal?: AbortSignal): Promise<ScoreResult[]> {
    if (this.#thread === null) throw this.#absent();
    return this.#thread.score(requests, signal);
  }

  async registerHybrid(spec: HybridSpec): Promise<HybridInfo> {
    const kept = this.#pinned(spec);
    const info = await this.#managed((thread) => thread.registerHybrid(this.#innerSpec(kept)));
    this.#hybrids.set(spec.name, kept);
    return info;
  }

  async removeHybrid(name: string): Promise<boolean> {
    this.#hybrids.delete(name);
    return this.#managed((thread) => thread.removeHybrid(name));
  }

  hybrids(): Promise<HybridInfo[]> {
    return this.#managed((thread) => thread.hybrids());
  }

  async loadPool(directory: string): Promise<PoolInfo> {
    const inner = await this.#managed((thread) => thread.loadPool(directory));
    const known = [...this.#pools].find(([, pool]) => pool.innerId === inner.id);
    if (known !== undefined) return { ...inner, id: known[0] };
    const id = `${inner.variant}-${++this.#poolSerial}`;
    this.#pools.set(id, { directory, variant: inner.variant, innerId: inner.id });
    return { ...inner, id };
  }

  async unloadPool(id: string): Promise<boolean> {
    const unloaded = await this.#managed((thread) => thread.unloadPool(this.#innerId(id)));
    this.#pools.delete(id);
    return unloaded;
  }

  loadHybrid(name: string, keepAliveSeconds?: number): Promise<HybridInfo> {
    return this.#managed((thread) => thread.loadHybrid(name, keepAliveSeconds));
  }

  unloadHybrid(name: string): Promise<HybridInfo> {
    return this.#managed((thread) => thread.unloadHybrid(name));
  }

  async pools(): Promise<PoolInfo[]> {
    const inner = new Map((await this.#managed((thread) => thread.pools())).map((pool) => [pool.id, pool]));
    return [...this.#pools].flatMap(([id, { innerId }]) => {
      const pool = inner.get(innerId ?? "");
      return pool === undefined ? [] : [{ ...pool, id }];
    });
  }

  saveSession(hybrid: string, tokenIds: readonly number[]): Promise<SessionInfo> {
    return this.#managed((thread) => thread.saveSession(hybrid, tokenIds));
  }

  saveSessions(): Promise<number> {
    return this.#managed((thread) => thread.saveSessions());
  }

  sessions(): Promise<SessionInfo[]> {
    return this.#managed((thread) => thread.sessions());
  }

  deleteSession(id: string): Promise<boolean> {
    return this.#managed((thread) => thread.deleteSession(id));
  }

  stats(): Promise<EngineStats> {
    return this.#managed((thread) => thread.stats());
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#watch);
    await this.#thread?.close();
    // A start that is under way sees that it is not wanted any more.
    await this.#back;
  }

  /** What changes or lists the engine waits out a restart, and is asked again of the new engine, once. */
  async #managed<T>(ask: (thread: EngineThread) => Promise<T>): Promise<T> {
    await this.#back;
    if (this.#thread === null) throw this.#absent();
    try {
      return await ask(this.#thread);
    } catch (error) {
      if (!(error instanceof EngineLostError) || this.#closed) throw error;
    }
    await this.#back;
    if (this.#thread === null) throw this.#absent();
    return ask(this.#thread);
  }

  #absent(): EngineLostError {
    return this.state === "restarting"
      ? new EngineLostError("engine_restarting", "The engine is being restarted; try again in a moment")
      : new EngineLostError("engine_dead", "The engine does not run");
  }

  /** With every pool it takes named, so that a new engine cannot take another one of the variant. */
  #pinned(spec: HybridSpec): HybridSpec {
    const variants = new Set(spec.layers.filter((layer) => layer !== null));
    const newest = [...variants].flatMap((variant) => {
      const found = [...this.#pools].findLast(([, pool]) => pool.variant === variant);
      return found === undefined ? [] : [[variant, found[0]] as const];
    });
    return { ...spec, pools: { ...Object.fromEntries(newest), ...spec.pools } };
  }

  #innerSpec(spec: HybridSpec): HybridSpec {
    const ids = Object.entries(spec.pools ?? {}).map(([variant, id]) => [variant, this.#innerId(id)]);
    return { ...spec, pools: Object.fromEntries(ids) };
  }

  /** An id that the engine does not have where the pool is unknown, so that it says so. */
  #innerId(id: string): string {
    const pool = this.#pools.get(id);
    return pool === undefined ? id : (pool.innerId ?? `${id} (lost)`);
  }

  #adopt(thread: EngineThread): void {
    this.#thread = thread;
    this.#info = thread.info;
    this.#startedAt = performance.now();
    // Not awaited: the thread's end may come at any time, or never.
    void thread.gone.then((reason) => this.#lost(thread, reason));
  }

  #look(): void {
    const { stuckMs } = this.#options;
    const age = this.heartbeatAgeMs;
    if (stuckMs > 0 && Number.isFinite(age) && age > stuckMs) {
      this.#thread?.kill(`it showed no life for ${Math.round(age / 1000)} s`);
    }
  }

  #lost(thread: EngineThread, reason: Error): void {
    if (this.#closed || this.#thread !== thread) return;
    this.#thread = null;
    if (performance.now() - this.#startedAt > this.#options.stableMs) this.#attempts = 0;
    const cause = reason.cause instanceof Error ? reason.cause : reason;
    this.#problem = tellable(cause);
    this.#options.log(`the engine has stopped: ${cause.message}`, "error");
    if (cause instanceof DeviceLostError) this.#give("a lost device comes back in a new process only");
    else this.#back = this.#restart();
  }

  /** Stays dead. */
  #give(why: string): void {
    this.#dead = true;
    this.#options.log(`the engine stays dead: ${why}`, "error");
  }

  async #restart(): Promise<void> {
    const { maxAttempts, backoffMs, log } = this.#options;
    const since = performance.now();
    while (!this.#closed && this.#attempts < maxAttempts) {
      const attempt = this.#attempts++;
      if (attempt > 0) await Bun.sleep(backoffMs * 2 ** (attempt - 1));
      try {
        const thread = await this.#start();
        await this.#refill(thread);
        if (this.#closed) return await thread.close();
        this.#restarts++;
        this.#adopt(thread);
        log(`the engine runs again after ${((performance.now() - since) / 1000).toFixed(1)} s`, "warn");
        return;
      } catch (error) {
        this.#problem = tellable(error);
        log(`the engine cannot be started: ${error instanceof Error ? error.message : error}`, "error");
        if (error instanceof DeviceLostError) return this.#give("a lost device comes back in a new process only");
      }
    }
    if (this.#closed) return;
    this.#dead = true;
    log(`the engine stays dead after ${maxAttempts} starts`, "error");
  }

  /** Gives a new engine what the old one had; what it refuses is told and left out. */
  async #refill(thread: EngineThread): Promise<void> {
    const { log } = this.#options;
    for (const pool of this.#pools.values()) {
      pool.innerId = null;
      try {
        pool.innerId = (await thread.loadPool(pool.directory)).id;
      } catch (error) {
        if (error instanceof EngineLostError) throw error;
        log(
          `the new engine has no pool "${pool.directory}": ${error instanceof Error ? error.message : error}`,
          "error",
        );
      }
    }
    for (const spec of this.#hybrids.values()) {
      try {
        await thread.registerHybrid(this.#innerSpec(spec));
      } catch (error) {
        if (error instanceof EngineLostError) throw error;
        log(`the new engine has no hybrid ${spec.name}: ${error instanceof Error ? error.message : error}`, "error");
      }
    }
  }
}
