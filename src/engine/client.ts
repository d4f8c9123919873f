// The engine seen from another thread: starts the worker, turns its messages into streams and promises, watches its beat.
// Makes no native call, so the thread that answers HTTP can hold it.
import { DeviceLostError, EngineLostError, KernelError, RequestError } from "../errors.ts";
import { prepareVocabulary } from "../grammar/background_vocabulary.ts";
import { workerUrl } from "../text/worker_url.ts";
import { type CallName, type Calls, type FromEngine, fromWire, type ToEngine } from "./protocol.ts";
import { TokenStream } from "./token_stream.ts";
import type {
  EngineClient,
  EngineInfo,
  EngineState,
  EngineStats,
  EngineWorkerOptions,
  GenerateRequest,
  HybridInfo,
  HybridSpec,
  PoolInfo,
  ScoreRequest,
  ScoreResult,
  SessionInfo,
  TokenEvent,
} from "./types.ts";
import { type GateParts, VocabularyGate } from "./vocabulary_gate.ts";
import { unpackEvents } from "./wire_events.ts";

/** How often the beat is looked at; the age it gives is off by at most this. */
const WATCH_MS = 250;
const CLOSE_MS = 5000;

interface PendingCall {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** An engine in a thread that can be ended by force. */
export interface EngineThread extends EngineClient {
  /** Resolves with the reason once the thread is gone, however it ended. */
  readonly gone: Promise<Error>;
  /** Ends the thread where it stands; what runs fails with EngineLostError. */
  kill(why: string): void;
}

/**
 * Starts an engine in its own thread and waits until its model is loaded.
 * @param entry the thread's code, when it is not the engine's own
 * @throws RequestError, CheckpointError, KernelError
 */
export async function startEngine(
  options: EngineWorkerOptions,
  entry: URL = workerUrl(import.meta.url, "worker.ts", "engine/worker.ts"),
): Promise<EngineThread> {
  const worker = new Worker(entry);
  const beat = new SharedArrayBuffer(4);
  const info = await new Promise<EngineInfo>((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<FromEngine>) => {
      if (data.kind === "ready") resolve(data.info);
      if (data.kind === "error") reject(fromWire(data.error));
    };
    worker.onerror = (event) => reject(new KernelError(`Cannot start the engine: ${event.message}`));
    worker.postMessage({ kind: "start", options, beat } satisfies ToEngine);
  }).catch((error) => {
    worker.terminate();
    throw error;
  });
  const prepare = () => prepareVocabulary(options.modelDir, info.vocabSize);
  return new WorkerEngineClient(worker, info, new Int32Array(beat), prepare);
}

/** What may be told to anyone who asks how the engine is: no paths. */
export function tellable(cause: unknown): string | null {
  return cause instanceof KernelError || cause instanceof RequestError ? cause.message : null;
}

class WorkerEngineClient implements EngineThread {
  readonly info: EngineInfo;
  readonly restarts = 0;
  readonly gone: Promise<Error>;
  readonly #worker: Worker;
  readonly #beat: Int32Array;
  readonly #watch: ReturnType<typeof setInterval>;
  readonly #gate: VocabularyGate;
  readonly #streams = new Map<number, TokenStream>();
  readonly #calls = new Map<number, PendingCall>();
  #nextId = 1;
  #lastBeat = -1;
  #lastBeatAt = 0;
  #stopped: Error | null = null;
  #onClosed: (() => void) | null = null;
  #onGone: (reason: Error) => void = () => {};

  constructor(worker: Worker, info: EngineInfo, beat: Int32Array, prepare: GateParts["prepare"]) {
    this.#worker = worker;
    this.info = info;
    this.#beat = beat;
    this.gone = new Promise((resolve) => {
      this.#onGone = resolve;
    });
    this.#gate = new VocabularyGate({
      prepare,
      post: (message, transfer) => this.#post(message, transfer),
      fail: (id, error) => this.#fail(id, error),
    });
    this.#look();
    this.#watch = setInterval(() => this.#look(), WATCH_MS);
    this.#watch.unref();
    worker.onmessage = ({ data }: MessageEvent<FromEngine>) => this.#receive(data);
    worker.onerror = (event) => this.#lose(new Error(event.message));
    worker.addEventListener("close", () => this.#lose(new Error("its thread has ended")));
  }

  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<TokenEvent> {
    return { [Symbol.asyncIterator]: () => this.#open(request, signal) };
  }

  score(requests: readonly ScoreRequest[], signal?: AbortSignal): Promise<ScoreResult[]> {
    return this.#call("score", requests, signal);
  }

  registerHybrid(spec: HybridSpec): Promise<HybridInfo> {
    return this.#call("registerHybrid", spec);
  }

  removeHybrid(name: string): Promise<boolean> {
    return this.#call("removeHybrid", name);
  }

  hybrids(): Promise<HybridInfo[]> {
    return this.#call("hybrids", null);
  }

  loadPool(directory: string): Promise<PoolInfo> {
    return this.#call("loadPool", directory);
  }

  unloadPool(id: string): Promise<boolean> {
    return this.#call("unloadPool", id);
  }

  loadHybrid(name: string, keepAliveSeconds?: number): Promise<HybridInfo> {
    return this.#call("loadHybrid", { name, keepAliveSeconds });
  }

  unloadHybrid(name: string): Promise<HybridInfo> {
    return this.#call("unloadHybrid", name);
  }

  pools(): Promise<PoolInfo[]> {
    return this.#call("pools", null);
  }

  saveSession(hybrid: string, tokenIds: readonly number[]): Promise<SessionInfo> {
    return this.#call("saveSession", { hybrid, tokenIds });
  }

  saveSessions(): Promise<number> {
    return this.#call("saveSessions", null);
  }

  sessions(): Promise<SessionInfo[]> {
    return this.#call("sessions", null);
  }

  deleteSession(id: string): Promise<boolean> {
    return this.#call("deleteSession", id);
  }

  stats(): Promise<EngineStats> {
    return this.#call("stats", null);
  }

  get heartbeatAgeMs(): number {
    if (this.#stopped !== null) return Number.POSITIVE_INFINITY;
    this.#look();
    return performance.now() - this.#lastBeatAt;
  }

  get alive(): boolean {
    return this.#stopped === null;
  }

  get state(): EngineState {
    return this.alive ? "running" : "dead";
  }

  get problem(): string | null {
    return this.#stopped === null ? null : tellable(this.#stopped.cause);
  }

  kill(why: string): void {
    this.#lose(new Error(why));
    this.#worker.terminate();
  }

  async close(): Promise<void> {
    if (this.#stopped !== null) return;
    const closed = new Promise<void>((resolve) => {
      this.#onClosed = resolve;
      setTimeout(resolve, CLOSE_MS).unref();
    });
    this.#post({ kind: "close" });
    await closed;
    this.#stop(new KernelError("The engine has been closed"));
    this.#worker.terminate();
  }

  #open(request: GenerateRequest, signal: AbortSignal | undefined): TokenStream {
    const id = this.#nextId++;
    const stream = new TokenStream(() => this.#cancel(id));
    if (this.#stopped !== null) {
      stream.fail(this.#stopped);
      return stream;
    }
    this.#streams.set(id, stream);
    this.#gate.generate(id, request);
    if (signal?.aborted) stream.abort();
    else signal?.addEventListener("abort", () => stream.abort(), { once: true });
    return stream;
  }

  #cancel(id: number): void {
    const event = this.#gate.cancel(id);
    if (event === null) this.#post({ kind: "cancel", id });
    else {
      this.#streams.get(id)?.push(event);
      this.#streams.delete(id);
    }
  }

  #call<N extends CallName>(
    name: N,
    argument: Calls[N]["argument"],
    signal?: AbortSignal,
  ): Promise<Calls[N]["result"]> {
    if (this.#stopped !== null) return Promise.reject(this.#stopped);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#post({ kind: "call", id, name, argument } as ToEngine);
      const abort = () => {
        if (!this.#calls.delete(id)) return;
        this.#post({ kind: "cancel", id });
        reject(signal?.reason instanceof Error ? signal.reason : new Error("Aborted"));
      };
      if (signal?.aborted) abort();
      else signal?.addEventListener("abort", abort, { once: true });
    });
  }

  #receive(message: FromEngine): void {
    if (message.kind === "events") {
      for (const { id, event } of unpackEvents(message.events)) {
        this.#streams.get(id)?.push(event);
        if (event.finishReason !== null) this.#streams.delete(id);
      }
    } else if (message.kind === "value") {
      this.#calls.get(message.id)?.resolve(message.value);
      this.#calls.delete(message.id);
    } else if (message.kind === "closed") {
      this.#onClosed?.();
    } else if (message.kind === "error") {
      const error = fromWire(message.error);
      if (message.id === null) this.#lose(error);
      else this.#fail(message.id, error);
    }
  }

  #fail(id: number, error: Error): void {
    this.#streams.get(id)?.fail(error);
    this.#streams.delete(id);
    this.#calls.get(id)?.reject(error);
    this.#calls.delete(id);
  }

  #post(message: ToEngine, transfer: ArrayBufferLike[] = []): void {
    if (this.#stopped === null) this.#worker.postMessage(message, transfer as ArrayBuffer[]);
  }

  #lose(cause: Error): void {
    if (cause instanceof DeviceLostError) {
      const message = "The device was lost; the server has to be started again";
      this.#stop(new EngineLostError("engine_dead", message, { cause }));
      return;
    }
    const message = "The engine stopped while it worked on this request; send it again";
    this.#stop(new EngineLostError("engine_restarted", message, { cause }));
  }

  /** The thread is gone: everything under way fails with the reason. */
  #stop(reason: Error): void {
    if (this.#stopped !== null) return;
    this.#stopped = reason;
    clearInterval(this.#watch);
    this.#onClosed?.();
    this.#onGone(reason);
    for (const stream of this.#streams.values()) stream.fail(reason);
    for (const call of this.#calls.values()) call.reject(reason);
    this.#streams.clear();
    this.#calls.clear();
  }

  #look(): void {
    const beat = Atomics.load(this.#beat, 0);
    if (beat === this.#lastBeat) return;
    this.#lastBeat = beat;
    this.#lastBeatAt = performance.now();
  }
}
