// A server context over a fake engine and a real store in a temporary folder, and a tokenizer of single bytes.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { STEP_TOKEN_BOUNDS } from "../../src/engine/counters.ts";
import type {
  EngineClient,
  EngineState,
  EngineStats,
  GenerateRequest,
  HybridInfo,
  HybridSpec,
  PoolInfo,
  Residence,
  ScoreRequest,
  ScoreResult,
  SessionInfo,
  TokenEvent,
} from "../../src/engine/types.ts";
import { CapacityError, RequestError } from "../../src/errors.ts";
import { BackgroundCompiler } from "../../src/grammar/background_compiler.ts";
import { ChangeWatcher } from "../../src/jobs/change_watcher.ts";
import { JobSupervisor, type SupervisorOptions } from "../../src/jobs/supervisor.ts";
import { createMetrics } from "../../src/metrics/metrics.ts";
import { Access } from "../../src/server/access/access.ts";
import { NO_LIMITS, parseKeys, plainKeys } from "../../src/server/access/key_file.ts";
import { createApp } from "../../src/server/app.ts";
import type { ServerContext } from "../../src/server/context.ts";
import { LOOPBACK_HOSTS } from "../../src/server/guards.ts";
import { type Handler, requestHandler } from "../../src/server/handler.ts";
import { HybridRegistry } from "../../src/server/hybrid_registry.ts";
import { Lifecycle } from "../../src/server/lifecycle.ts";
import { createLog } from "../../src/server/log.ts";
import type { ModelText } from "../../src/server/model_text.ts";
import { Store } from "../../src/store/database.ts";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";

export const EOS = 256;
export const NUM_LAYERS = 4;

/** A tokenizer whose ids are bytes, with <eos> = 256. */
export function byteTokenizer(): Tokenizer {
  const vocab: Record<string, number> = {};
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    vocab[String.fromCodePoint(printable ? byte : next++)] = byte;
  }
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const definition = {
    added_tokens: [{ id: EOS, content: "<eos>", special: true, normalized: false }],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: "BPE", vocab, merges: [], unk_token: null },
  };
  return new Tokenizer({ definition, config: { eos_token: "<eos>" } });
}

/** Answers with scripted ids, one event each; says what was asked and what was cancelled. */
export class FakeEngine implements EngineClient {
  readonly info = {
    vocabSize: 257,
    maxContext: 64,
    numLayers: NUM_LAYERS,
    layerTypes: Array.from({ length: NUM_LAYERS }, () => "full_attention" as const),
    maxBatchTokens: 512,
    maxSequences: 4,
    maxWaiting: 8,
    pageSize: 32,
    device: { kind: "cpu", name: "scripted", isa: "none", threads: 1, passedOver: null } as const,
  };
  /** What is generated before the end token; by default the prompt backwards. */
  reply: (request: GenerateRequest) => number[] = (request) => [...request.promptIds].reverse();
  /** Tokens after which generation waits for release() or a cancel. */
  holdAfter = Number.POSITIVE_INFINITY;
  full = false;
  alive = true;
  readonly restarts = 0;
  problem: string | null = null;
  heartbeatAgeMs = 10;
  readonly requests: GenerateRequest[] = [];
  readonly scored: ScoreRequest[] = [];
  cancelled = 0;
  active = 0;
  readonly registered = new Map<string, HybridSpec>();
  readonly loadedPools: string[] = [];
  /** Hybrids whose counterparts are in memory. */
  readonly resident = new Set<string>();
  readonly saved: SessionInfo[] = [];
  #release: (() => void)[] = [];

  get state(): EngineState {
    return this.alive ? "running" : "dead";
  }

  release(): void {
    this.holdAfter = Number.POSITIVE_INFINITY;
    for (const wake of this.#release.splice(0)) wake();
  }

  async *generate(request: GenerateRequest, signal?: AbortSignal): AsyncGenerator<TokenEvent> {
    if (this.full) throw new CapacityError("The engine's queue is full: 8 requests wait, try again later");
    this.requests.push(request);
    this.active++;
    let ended = false;
    try {
      const ids = [...this.reply(request), EOS];
      const stopAt = ids.findIndex((id) => request.stopIds?.includes(id) === true);
      for (const [i, id] of ids.entries()) {
        if (i >= this.holdAfter) await this.#wait(signal);
        const usage = { promptTokens: request.promptIds.length, completionTokens: i + 1, cachedTokens: 0 };
        if (signal?.aborted === true) {
          yield { tokenIds: [], finishReason: "cancelled", usage };
          return;
        }
        const reason = i === stopAt ? "stop" : i + 1 === request.maxTokens || i + 1 === ids.length ? "length" : null;
        ended = reason !== null;
        const timings = { queueSeconds: 0, prefillSeconds: 0.25, decodeSeconds: 0.5 };
        yield { tokenIds: [id], finishReason: reason, usage, timings, ...logprobsOf(request, id) };
        if (reason !== null) return;
      }
    } finally {
      this.active--;
      if (!ended) this.cancelled++;
    }
  }

  #wait(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return Promise.resolve();
    return new Promise((resolve) => {
      this.#release.push(resolve);
      signal?.addEventListener("abort", () => resolve(), { once: true });
    });
  }

  /** Each id's log-probability is -id / 256; the most likely id, and the only one on top, is the one that stood before. */
  async score(requests: readonly ScoreRequest[]): Promise<ScoreResult[]> {
    this.scored.push(...requests);
    return requests.map(({ contextIds, continuationIds, topLogprobs = 0 }) => {
      const before = [contextIds.at(-1)!, ...continuationIds].slice(0, -1);
      return {
        logprobs: Float32Array.from(continuationIds, (id) => -id / 256),
        argmax: Int32Array.from(before),
        greedy: before.every((id, i) => id === continuationIds[i]),
        ...(topLogprobs === 0 ? {} : { topLogprobs: before.map((id) => [{ id, logprob: -id / 256 }]) }),
      };
    });
  }

  async registerHybrid(spec: HybridSpec): Promise<HybridInfo> {
    const missing = spec.layers.find(
      (layer) => layer !== null && !this.loadedPools.some((pool) => pool.includes(layer)),
    );
    if (missing) throw new RequestError("no_pool", `There is no loaded pool of variant "${missing}"`);
    this.registered.set(spec.name, spec);
    return this.#info(spec);
  }

  async removeHybrid(name: string): Promise<boolean> {
    return this.registered.delete(name);
  }

  async hybrids(): Promise<HybridInfo[]> {
    const base = { name: "base", layers: this.info.layerTypes.map(() => null) };
    return [base, ...this.registered.values()].map((spec) => this.#info(spec));
  }

  #info(spec: HybridSpec): HybridInfo {
    const numLinear = spec.layers.filter((layer) => layer !== null).length;
    const loaded = numLinear === 0 || this.resident.has(spec.name);
    const residence: Residence = {
      state: loaded ? "loaded" : "unloaded",
      loadedBytes: loaded ? 100 * numLinear : 0,
      totalBytes: 100 * numLinear,
      lastUsed: null,
      expiresAt: null,
    };
    const kvBytesPerToken = 64 * (4 - numLinear);
    return { name: spec.name, layers: spec.layers, numLinear, kvBytesPerToken, stateBytes: 0, residence };
  }

  async loadPool(directory: string): Promise<PoolInfo> {
    this.loadedPools.push(directory);
    return { id: directory, variant: "gla", directory, numLayers: NUM_LAYERS, loadedLayers: 0, loadedBytes: 0 };
  }

  async unloadPool(): Promise<boolean> {
    return false;
  }

  async loadHybrid(name: string): Promise<HybridInfo> {
    this.resident.add(name);
    return this.#find(name);
  }

  async unloadHybrid(name: string): Promise<HybridInfo> {
    this.resident.delete(name);
    return this.#find(name);
  }

  #find(name: string): HybridInfo {
    const spec = this.registered.get(name);
    if (spec === undefined) throw new RequestError("unknown_hybrid", `Cannot find hybrid "${name}"`);
    return this.#info(spec);
  }

  async saveSession(hybrid: string, tokenIds: readonly number[]): Promise<SessionInfo> {
    const info = {
      id: `s${this.saved.length}`,
      hybrid,
      tokens: tokenIds.length,
      bytes: 100,
      createdAt: 1,
      lastUsed: 1,
    };
    this.saved.push({ ...info, problem: null });
    return this.saved.at(-1)!;
  }

  async saveSessions(): Promise<number> {
    return 0;
  }

  async sessions(): Promise<SessionInfo[]> {
    return this.saved;
  }

  async deleteSession(id: string): Promise<boolean> {
    const at = this.saved.findIndex((one) => one.id === id);
    return at >= 0 && this.saved.splice(at, 1).length > 0;
  }

  async pools(): Promise<PoolInfo[]> {
    return [];
  }

  async stats(): Promise<EngineStats> {
    return {
      running: this.active,
      waiting: 0,
      steps: 7,
      stepsAhead: 2,
      stepsReplayed: 3,
      replayProblem: null,
      preemptions: 0,
      promptTokens: 11,
      generatedTokens: 13,
      scoredTokens: 0,
      finished: { stop: 2, length: 1, deadline: 0, cancelled: 0, score: 0 },
      kvBytesUsed: 50,
      kvBytesTotal: 100,
      stateBytesUsed: 0,
      stateBytesTotal: 0,
      recurrentBytesUsed: 0,
      convBytesUsed: 0,
      prefixHits: 3,
      prefixMisses: 4,
      prefixOutcomes: { hit: 3, cold: 1, other_hybrid: 1, no_state: 1, evicted: 1, too_short: 0, disabled: 0 },
      prefixQueryTokens: 60,
      prefixHitTokens: 40,
      prefixEvictions: 1,
      prefixBytes: 512,
      prefixSnapshots: 2,
      weightBytes: 1000,
      weightBytesByKind: { checkpoint: 900, gla: 100, gdn: 0, jet: 0 },
      hybridLoads: 1,
      hybridUnloads: 0,
      sessions: null,
      stepSeconds: 0.5,
      stepsByTokens: [1, 2, ...new Array(STEP_TOKEN_BOUNDS.length - 1).fill(0)],
      stepTokens: 9,
      lastStepSeconds: 0.01,
      lastStepPrefillTokens: 0,
      lastStepDecodeTokens: 1,
    };
  }

  async close(): Promise<void> {
    this.alive = false;
  }
}

function logprobsOf(request: GenerateRequest, id: number): Pick<TokenEvent, "logprobs" | "topLogprobs"> {
  if (request.logprobs === undefined) return {};
  const top = Array.from({ length: request.logprobs }, (_, i) => ({ id: (id + i) % 256, logprob: -0.5 - i }));
  return { logprobs: [-0.5], ...(request.logprobs > 0 ? { topLogprobs: [top] } : {}) };
}

/** Everything a route test needs; dispose() removes the folder. */
export interface TestServer {
  readonly app: ReturnType<typeof createApp>;
  readonly context: ServerContext;
  readonly engine: FakeEngine;
  readonly store: Store;
  /** Lines of JSON. */
  readonly logged: string[];
  readonly handle: Handler;
  get(path: string, headers?: Record<string, string>): Promise<Response>;
  send(method: string, path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
  dispose(): Promise<void>;
}

export interface TestServerOptions {
  /** One key of scope admin. */
  readonly apiKey?: string;
  /** Lines of a key file. */
  readonly keys?: string;
  readonly corsOrigins?: readonly string[];
  readonly trustedProxies?: readonly string[];
  /** In place of the fake engine. */
  readonly realEngine?: EngineClient;
  readonly clock?: () => number;
  readonly withoutTokenizer?: boolean;
  readonly maxBodyBytes?: number;
  readonly requestTimeoutMs?: number;
  readonly jobs?: Partial<SupervisorOptions>;
  readonly aliases?: Record<string, string>;
}

/** A server for the backbone "tiny" with a pool of "gla" counterparts. */
export async function testServer(options: TestServerOptions = {}): Promise<TestServer> {
  const folder = mkdtempSync(join(tmpdir(), "graft-server-"));
  const store = Store.open(folder);
  store.models.put({ name: "tiny", path: folder, architecture: null, numLayers: NUM_LAYERS, fingerprint: null });
  store.pools.put({ backbone: "tiny", variant: "gla", path: join(folder, "pools", "gla"), recipe: {} });
  const engine = new FakeEngine();
  const served = options.realEngine ?? engine;
  const changes = new ChangeWatcher(store);
  const hybrids = new HybridRegistry(served, store, "tiny", { aliases: options.aliases ?? {} });
  const jobs = new JobSupervisor(store, {
    command: () => [process.execPath, "-e", "setInterval(() => {}, 1000)"],
    graceMs: 200,
    onChange: () => {
      changes.notify();
      void hybrids.sync();
    },
    ...options.jobs,
  });
  const tokenizer = options.withoutTokenizer === true ? null : byteTokenizer();
  const none = {
    bosId: null,
    doSample: null,
    temperature: null,
    topP: null,
    topK: null,
    minP: null,
    maxNewTokens: null,
  };
  const text: ModelText = {
    tokenizer,
    encode: async (given, special) => tokenizer!.encode(given, special),
    close: () => {},
    template: tokenizer === null ? null : new ChatTemplate({}),
    defaults: { eosIds: [EOS], ...none },
    stopIds: [EOS],
  };
  const logged: string[] = [];
  const access = new Access(NO_LIMITS, options.clock);
  if (options.apiKey !== undefined) access.setKeys(plainKeys([options.apiKey], NO_LIMITS));
  if (options.keys !== undefined) access.setKeys(parseKeys(options.keys, "the test", NO_LIMITS));
  const grammars = new BackgroundCompiler();
  const context: ServerContext = {
    engine: served,
    text,
    grammars,
    store,
    jobs,
    changes,
    hybrids,
    metrics: createMetrics(served, store, "tiny"),
    lifecycle: new Lifecycle(),
    requestTimeoutMs: options.requestTimeoutMs ?? null,
    guards: {
      corsOrigins: options.corsOrigins ?? [],
      allowedHosts: LOOPBACK_HOSTS,
      maxBodyBytes: options.maxBodyBytes ?? 1 << 20,
    },
    access,
    trustedProxies: options.trustedProxies ?? [],
    log: createLog("json", "debug", (line) => void logged.push(line)),
  };
  await hybrids.sync();
  const app = createApp(context, "0.0.0");
  const handle = requestHandler(app, context);
  return {
    app,
    handle,
    context,
    engine,
    store,
    logged,
    get: (path, headers = {}) => handle(new Request(`http://localhost${path}`, { headers })),
    send: (method, path, body, headers = {}) =>
      handle(
        new Request(`http://localhost${path}`, {
          method,
          headers: { "content-type": "application/json", ...headers },
          body: typeof body === "string" ? body : JSON.stringify(body),
        }),
      ),
    async dispose() {
      grammars.close();
      await jobs.stop();
      changes.close();
      store.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** The JSON of a response, typed by the reader. */
export async function json<T = Record<string, unknown>>(response: Response): Promise<T> {
  return (await response.json()) as T;
}

export interface ErrorJson {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

/** The data lines of a server-sent event stream. */
export async function sseData(response: Response): Promise<string[]> {
  const text = await response.text();
  return text
    .split("\n\n")
    .filter((block) => block.startsWith("data: "))
    .map((block) => block.slice("data: ".length));
}
