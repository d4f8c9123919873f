// The records that cross the engine's border: requests, results, hybrids, counters, and the two faces of the engine
// (Engine in its own thread, EngineClient from another). Token ids only: no text, no HTTP, no tensors.
import type { Variant } from "../../models/attention/mixer.ts";
import type { DeviceKind, DeviceName, Isa } from "../ops/library.ts";
import type { ConstraintSpec } from "./constraint.ts";
import type { PrefixOutcome } from "./prefix_outcome.ts";

export type { PrefixOutcome, Variant };

/** The hybrid every engine begins with: each layer keeps the token mixer that the checkpoint itself holds. */
export const BASE_HYBRID = "base";

/**
 * How the next token is drawn. Absent fields take the values shown. The logits are changed in this order: repetition
 * penalty, presence and frequency penalty, bias, constraint; then come temperature, topK, topP and minP.
 */
export interface SamplingParams {
  /** 0 = the most likely token (default 0). */
  temperature?: number;
  /** Nucleus mass in (0, 1]; 1 = off (default 1). */
  topP?: number;
  /** Keep the k most likely tokens; 0 = off (default 0). */
  topK?: number;
  /** Drop tokens below minP times the top probability; 0 = off (default 0). */
  minP?: number;
  /** Integer 0..2^53-1; the randomness is a function of (seed, choice, position) alone (default 0). */
  seed?: number;
  /** -2..2, taken once from the logit of every token that has been generated; 0 = off (default 0). */
  presencePenalty?: number;
  /** -2..2, taken from a logit as often as its token has been generated; 0 = off (default 0). */
  frequencyPenalty?: number;
  /** 0.000001..2: a token of the prompt or the text has its logit divided by it, or multiplied if negative; 1 = off (default 1). */
  repetitionPenalty?: number;
  /** Added to the logits of these ids: (id, -100..100), no id twice (default none). */
  logitBias?: readonly (readonly [id: number, bias: number])[];
}

/** One sequence to generate. */
export interface GenerateRequest {
  /** Name of a registered hybrid (default "base"); the sequence keeps it even if the name is redirected meanwhile. */
  hybrid?: string;
  /** At least one token id and at most maxContext of them, each in 0..vocabSize-1. */
  promptIds: readonly number[] | Int32Array;
  /** At least 1; the sequence also ends, with "length", where the model's context or the KV pool ends. */
  maxTokens: number;
  sampling?: SamplingParams;
  /** Generation ends with "stop" after one of these (end-of-text ids); the id itself is reported as the last token. */
  stopIds?: readonly number[];
  /** Index among the n choices of one prompt (default 0). */
  choice?: number;
  /**
   * Report log-probabilities: 0 = of the chosen token only, k > 0 = also of the k most likely (at most 20). They are the
   * model's own: of softmax(logits) before penalties, bias, constraint and temperature.
   */
  logprobs?: number;
  /**
   * Lower goes first, an integer (default 0); among equals the earlier request does. It decides who begins, who gets the
   * rows of a step, and who gives way: a waiting sequence may preempt running ones of a worse priority, never of its own.
   * The order is strict: a steady load of better priority holds worse ones back until it ebbs (deadlineMs bounds that).
   */
  priority?: number;
  /**
   * Token counts, 1 to the prompt's, at which messages end: states are kept there too, so that a conversation whose last
   * turns are written differently the next time still resumes at the last message that is the same. A few of many are used.
   */
  boundaries?: readonly number[];
  /** Milliseconds from acceptance after which it ends with "deadline", waiting or running, at the next step (default: none). */
  deadlineMs?: number;
  /** What the text must look like; needs an engine with a ConstraintFactory. */
  constraint?: ConstraintSpec;
}

/** Why a sequence ended; "cancelled" also covers a sequence cut by close(). */
export type FinishReason = "stop" | "length" | "deadline" | "cancelled";

/**
 * Where the time of a sequence went: until it first took part in a step, from then to its first token, and from there to
 * its end. A time in which it was preempted counts to the part that it fell into. Parts not reached are 0.
 */
export interface Timings {
  queueSeconds: number;
  prefillSeconds: number;
  decodeSeconds: number;
}

/** A token and its natural logarithm of probability. */
export interface TokenLogprob {
  id: number;
  logprob: number;
}

/** Tokens of one request so far. */
export interface Usage {
  promptTokens: number;
  completionTokens: number;
  /** Prompt tokens whose state was taken from a cache instead of computed. */
  cachedTokens: number;
}

/** New tokens of one sequence. The last event of a sequence, and only it, has a finishReason. */
export interface TokenEvent {
  /** At least one id, except in a "cancelled" or "deadline" event. */
  tokenIds: number[];
  /** Beside each id, where the request asked for logprobs: natural logarithm under the model's own softmax(logits). */
  logprobs?: number[];
  /** Beside each id, where the request asked for logprobs > 0: most likely first. */
  topLogprobs?: TokenLogprob[][];
  finishReason: FinishReason | null;
  usage: Usage;
  /** In the event of the first token and in the last event, up to then. */
  timings?: Timings;
}

/** A whole generation, as Engine.generate() returns it. */
export interface GenerateResult {
  tokenIds: number[];
  logprobs?: number[];
  topLogprobs?: TokenLogprob[][];
  finishReason: FinishReason;
  usage: Usage;
}

/** Log-probabilities of a given continuation after a context, in one forward pass over contextIds ++ continuationIds. */
export interface ScoreRequest {
  hybrid?: string;
  /** At least one id (give the prefix token where the text is empty). */
  contextIds: readonly number[] | Int32Array;
  /** At least one id; context + continuation - 1 tokens must fit in maxContext. */
  continuationIds: readonly number[] | Int32Array;
  /** As in a GenerateRequest. */
  priority?: number;
  /** As in a GenerateRequest; what is past it fails with the RequestError "deadline_exceeded". */
  deadlineMs?: number;
  /** Also report the k most likely ids at each continuation position: 0 to 20 (default 0). */
  topLogprobs?: number;
}

/** What a scored continuation got. */
export interface ScoreResult {
  /** One per continuation id, natural logarithm. */
  logprobs: Float32Array;
  /** The most likely id at each continuation position (lowest id wins a tie). */
  argmax: Int32Array;
  /** Whether every continuation id is the most likely one: greedy decoding would write exactly this continuation. */
  greedy: boolean;
  /** One list per continuation id, most likely first; where the request asked for them. */
  topLogprobs?: TokenLogprob[][];
}

/** A hybrid as a mask over the shared backbone. */
export interface HybridSpec {
  name: string;
  /** Per layer: null keeps the checkpoint's own token mixer, a variant takes that layer's counterpart from a pool. */
  layers: readonly (Variant | null)[];
  /** Which loaded pool serves a variant (id from loadPool); default: the pool of that variant loaded last. */
  pools?: { readonly [V in Variant]?: string };
}

/** Where the counterparts that a hybrid needs are. A hybrid without any is always "loaded". */
export interface Residence {
  /** "unloading": it leaves the memory when the last sequence of it ends. */
  state: "unloaded" | "queued" | "loading" | "loaded" | "unloading";
  /** Bytes of its counterparts in memory, layers that other hybrids brought there included, and of all of them. */
  loadedBytes: number;
  totalBytes: number;
  /** Milliseconds since 1970: its last use, and when it leaves the memory if it rests until then; null = not fixed. */
  lastUsed: number | null;
  expiresAt: number | null;
}

/** A registered hybrid and what a sequence of it costs. */
export interface HybridInfo {
  name: string;
  layers: readonly (Variant | null)[];
  /** Number of layers that run linear attention, the checkpoint's own included. */
  numLinear: number;
  /** Memory of one sequence: KV cache per token, and fixed recurrent + convolution state. */
  kvBytesPerToken: number;
  stateBytes: number;
  residence: Residence;
}

/** A pool whose counterparts hybrids may use. */
export interface PoolInfo {
  id: string;
  variant: Variant;
  directory: string;
  numLayers: number;
  /** Layers in memory, and their bytes. */
  loadedLayers: number;
  loadedBytes: number;
}

/** A computed prefix on the disk. */
export interface SessionInfo {
  id: string;
  /** Name of the hybrid when it was saved. */
  hybrid: string;
  tokens: number;
  bytes: number;
  /** Milliseconds since 1970. */
  createdAt: number;
  lastUsed: number;
  /** Why this engine cannot use it; null where it can, for the mixers it was saved with. */
  problem: string | null;
}

/** What became of sessions since the start. */
export interface SessionCounts {
  saved: number;
  restored: number;
  restoredTokens: number;
  /** Restores that came to nothing: the file was damaged or gone, or there was no room for it in the pools. */
  failed: { damaged: number; no_room: number; gone: number };
}

/** Facts about the loaded model that requests are checked against. */
export interface EngineInfo {
  vocabSize: number;
  maxContext: number;
  numLayers: number;
  /** What each layer of the checkpoint itself is. */
  layerTypes: readonly ("full_attention" | Variant)[];
  maxBatchTokens: number;
  maxSequences: number;
  maxWaiting: number;
  pageSize: number;
  device: DeviceDescription;
  /** How a device's memory was divided; absent where the machine's was not. */
  memory?: DeviceMemoryInfo;
}

/** What the kernels run on. */
export interface DeviceDescription {
  kind: "cpu" | "cuda";
  name: string;
  /** Instruction set of the kernels, or compute capability of the device. */
  isa: string;
  /** Compute threads, or multiprocessors. */
  threads: number;
  /** Why a choice left to graft did not fall on a CUDA device, or null. */
  passedOver: string | null;
}

/** Bytes of a device, once and for all: what is planned for each use, and the part of the free memory to use at all. */
export interface DeviceMemoryInfo {
  totalBytes: number;
  freeBytes: number;
  fraction: number;
  weightBytes: number;
  workspaceBytes: number;
  kvBytes: number;
  stateBytes: number;
  poolBytes: number;
}

/** Counters since the start and gauges of now. Times in seconds, sizes in bytes. */
export interface EngineStats {
  running: number;
  waiting: number;
  steps: number;
  /** Of them, those begun before the tokens of the one before were known, and those replayed from a recording. */
  stepsAhead: number;
  stepsReplayed: number;
  /** Why a step that repeats could not be recorded or replayed, the last time; null: nothing was against it. */
  replayProblem: string | null;
  preemptions: number;
  promptTokens: number;
  generatedTokens: number;
  scoredTokens: number;
  /** Finished sequences by reason ("score" = a score request done). */
  finished: Record<FinishReason | "score", number>;
  /** Held by sequences; what only the prefix cache keeps is free to them and not counted. The same for states. */
  kvBytesUsed: number;
  kvBytesTotal: number;
  stateBytesUsed: number;
  stateBytesTotal: number;
  /** What stateBytesUsed consists of. */
  recurrentBytesUsed: number;
  convBytesUsed: number;
  /** Generations that began with a cached prefix, or without one. */
  prefixHits: number;
  prefixMisses: number;
  /** Generations that began, by what the cache had for them; "hit", and why it had nothing. */
  prefixOutcomes: Record<PrefixOutcome, number>;
  /** Their prompt tokens, and those of them that were cached. */
  prefixQueryTokens: number;
  prefixHitTokens: number;
  /** Kept prefixes dropped for lack of room. */
  prefixEvictions: number;
  /** Bytes of pages and states that the prefix cache keeps; a page that a sequence uses as well is counted too. */
  prefixBytes: number;
  prefixSnapshots: number;
  /** All weights in memory. */
  weightBytes: number;
  /** Of them, those of the checkpoint itself, and the counterparts by variant. */
  weightBytesByKind: Record<"checkpoint" | Variant, number>;
  /** Hybrids whose counterparts were loaded, and given up. */
  hybridLoads: number;
  hybridUnloads: number;
  /** null: the engine saves none. */
  sessions: SessionCounts | null;
  stepSeconds: number;
  /** Steps by their token rows: how many had at most each bound of STEP_TOKEN_BOUNDS and more than the one before. */
  stepsByTokens: number[];
  /** Token rows of all steps. */
  stepTokens: number;
  /** Inside the kernel library since the engine's start, loading included; only with EngineWorkerOptions.timeKernels. */
  kernelSeconds?: number;
  lastStepSeconds: number;
  /** Rows of the last step: prompt rows and decode rows. */
  lastStepPrefillTokens: number;
  lastStepDecodeTokens: number;
}

/** Settings fixed when the engine starts. Absent fields take the values shown. */
export interface EngineOptions {
  /**
   * Budget of the KV page pool; default: what maxSequences whole contexts need, at most an eighth of the machine's
   * memory and 2 GiB.
   */
  kvBytes?: number;
  /**
   * Budget of the recurrent and convolution states; default: twice what maxSequences of linear layers need, at most a
   * sixteenth of the machine's memory and 1 GiB.
   */
  stateBytes?: number;
  /** Token rows of one step (default 512). */
  maxBatchTokens?: number;
  /**
   * While streams decode, a step takes at most about that many times what it would take without prompt rows, by what the
   * steps before it took; prompts get at least one row of it. 0 = prompts take the whole budget, or from 1 up (default 2).
   */
  prefillInterference?: number;
  /** Sequences that run at once (default 64). */
  maxSequences?: number;
  /** Sequences that may wait; beyond it a request is refused with CapacityError (default 256). */
  maxWaiting?: number;
  /** Tokens of one KV page, 1 to 1024 (default 32). */
  pageSize?: number;
  /**
   * Whether a step may begin before the tokens of the one before are known; default: on a CUDA device, which computes while
   * the host takes them in.
   */
  runAhead?: boolean;
  /** Whether decode steps that repeat are recorded and replayed where the kernel library can (default true). */
  recordSteps?: boolean;
  /** default f32; of an engine that is opened with its model, on a CUDA device bf16 */
  kvDtype?: "f32" | "bf16";
  /**
   * Type in which recurrent states are kept between tokens (default f32). bf16 takes little more than half the memory
   * and the traffic of a decode step; arithmetic is float32 either way, and every path gives the same bits.
   */
  stateDtype?: "f32" | "bf16";
  /** Bytes of computed prefixes kept for later requests, within the two budgets above (default: half of both; 0 = none). */
  prefixCacheBytes?: number;
  /** Recurrent states are kept every so many tokens, rounded up to whole pages (default 512), and where prompts end. */
  snapshotTokens?: number;
  /** Upper limit of the context; default: the model's own. */
  maxContext?: number;
  /** Bytes of counterparts that may be in memory; hybrids at rest leave to make room (default: no limit). */
  poolBytes?: number;
  /** Seconds that a hybrid's counterparts stay in memory after its last use; -1 = until room is needed (default), 0 = not at all. */
  keepAliveSeconds?: number;
  /** Where computed prefixes may be saved, and how many bytes of them; absent: nowhere. */
  sessions?: { directory: string; maxBytes: number };
}

/** Settings of an engine in its own thread. */
export interface EngineWorkerOptions extends EngineOptions {
  /** Model directory (Hugging Face layout). */
  modelDir: string;
  /** Dtype of linear weights in memory; default: the checkpoint's (f16 becomes f32), on a CUDA device bf16. */
  weightDtype?: "f32" | "bf16";
  /** Kernel threads; 0 or absent = all cores. */
  threads?: number;
  /** Part of a CUDA device's free memory to use (default 0.9); the processor's is not divided. */
  memoryFraction?: number;
  /** Where the kernels run; absent = the processor. */
  device?: DeviceName | DeviceKind;
  /** Instruction set of the kernels; absent or "auto" = the best this processor has. */
  isa?: Isa | "auto";
  /** Folder with other builds of the kernel libraries; for tests. */
  directory?: string;
  /** Where to write the embedded kernel libraries when the temporary folder does not allow execution. */
  extractTo?: string;
  /** Count the time inside kernels, at a small cost per call. */
  timeKernels?: boolean;
  /** Pool directories to load at the start. */
  pools?: readonly string[];
}

/** "restarting": lost, and a new one is being started; "dead": lost for good, or closed. */
export type EngineState = "running" | "restarting" | "dead";

/**
 * The engine seen from another thread. Every method may reject with RequestError (a bad request), CapacityError (the
 * queue is full), CheckpointError (a bad pool), KernelError, or EngineLostError (it stopped meanwhile).
 */
export interface EngineClient {
  readonly info: EngineInfo;
  /**
   * Streams one sequence. Leaving the loop early (break, return, throw) or aborting the signal cancels the sequence
   * within one engine step; after an abort the stream ends with a "cancelled" event.
   */
  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<TokenEvent>;
  /** Results in the order of the requests, independent of what else runs. */
  score(requests: readonly ScoreRequest[], signal?: AbortSignal): Promise<ScoreResult[]>;
  /** Adds a hybrid or redirects its name; running sequences keep what they began with. */
  registerHybrid(spec: HybridSpec): Promise<HybridInfo>;
  /** False where the name is unknown. Running sequences are not disturbed. */
  removeHybrid(name: string): Promise<boolean>;
  hybrids(): Promise<HybridInfo[]>;
  /**
   * Makes a pool's counterparts available to hybrids. Weights are read when a request or loadHybrid() needs them, layer by
   * layer, in short turns between steps. A pool that is there already is not added again.
   */
  loadPool(directory: string): Promise<PoolInfo>;
  /**
   * Takes a pool away; its weights leave the memory when the last sequence that uses them ends. False where the id is
   * unknown; RequestError "pool_in_use" where a registered hybrid still needs it.
   */
  unloadPool(id: string): Promise<boolean>;
  pools(): Promise<PoolInfo[]>;
  /**
   * Brings a hybrid's counterparts into memory before the first request does; `keepAliveSeconds` in place of the engine's
   * from now on. RequestError "pool_memory" where they are larger than the limit, "hybrid_unavailable" where they cannot be read;
   * the same errors end a request that needs them.
   */
  loadHybrid(name: string, keepAliveSeconds?: number): Promise<HybridInfo>;
  /** Gives a hybrid's counterparts up: at once, or when its last sequence ends. The next request brings them back. */
  unloadHybrid(name: string): Promise<HybridInfo>;
  /**
   * Writes the longest cached prefix that a request of these tokens can begin with to the disk, from where it comes back when a request begins with it and
   * the cache does not have it. RequestError "nothing_cached", "session_too_large" or "sessions_off".
   */
  saveSession(hybrid: string, tokenIds: readonly number[]): Promise<SessionInfo>;
  /** Saves all that is cached, as far as there is room; answers how many prefixes. */
  saveSessions(): Promise<number>;
  /** Most recently used first. */
  sessions(): Promise<SessionInfo[]>;
  /** False where the id is unknown. */
  deleteSession(id: string): Promise<boolean>;
  stats(): Promise<EngineStats>;
  /** Milliseconds since the engine's thread last showed life; it does so at least every second, and every step. */
  readonly heartbeatAgeMs: number;
  /** Whether the engine's thread still runs; false after close() or a crash. */
  readonly alive: boolean;
  readonly state: EngineState;
  /** Why it does not run, where that can be told to anyone; null while it does. */
  readonly problem: string | null;
  /** How often a lost engine was replaced by a new one. */
  readonly restarts: number;
  /** Cancels what runs and ends the thread. */
  close(): Promise<void>;
}
