// The messages between EngineClient and the engine's thread. Plain data that survives structured cloning.
import { CapacityError, CheckpointError, DeviceLostError, KernelError, RequestError } from "../errors.ts";
import type { VocabularyData } from "../grammar/vocabulary.ts";
import type {
  EngineInfo,
  EngineStats,
  EngineWorkerOptions,
  GenerateRequest,
  HybridInfo,
  HybridSpec,
  PoolInfo,
  ScoreRequest,
  ScoreResult,
  SessionInfo,
} from "./types.ts";
import type { WireEvents } from "./wire_events.ts";

/** What can be asked of the engine beside generating: argument and result of each call. */
export interface Calls {
  score: { argument: readonly ScoreRequest[]; result: ScoreResult[] };
  registerHybrid: { argument: HybridSpec; result: HybridInfo };
  removeHybrid: { argument: string; result: boolean };
  hybrids: { argument: null; result: HybridInfo[] };
  loadPool: { argument: string; result: PoolInfo };
  unloadPool: { argument: string; result: boolean };
  loadHybrid: { argument: { name: string; keepAliveSeconds: number | undefined }; result: HybridInfo };
  unloadHybrid: { argument: string; result: HybridInfo };
  pools: { argument: null; result: PoolInfo[] };
  saveSession: { argument: { hybrid: string; tokenIds: readonly number[] }; result: SessionInfo };
  saveSessions: { argument: null; result: number };
  sessions: { argument: null; result: SessionInfo[] };
  deleteSession: { argument: string; result: boolean };
  stats: { argument: null; result: EngineStats };
}

/** Name of a call. */
export type CallName = keyof Calls;

/** One call with the argument that belongs to its name. */
export type CallMessage = {
  [N in CallName]: {
    readonly kind: "call";
    readonly id: number;
    readonly name: N;
    readonly argument: Calls[N]["argument"];
  };
}[CallName];

/** Ids are the client's choice and never reused. */
export type ToEngine =
  | { readonly kind: "start"; readonly options: EngineWorkerOptions; readonly beat: SharedArrayBuffer }
  /** Comes before the first request with a constraint. */
  | { readonly kind: "vocabulary"; readonly vocabulary: VocabularyData }
  | { readonly kind: "generate"; readonly id: number; readonly request: GenerateRequest }
  | { readonly kind: "cancel"; readonly id: number }
  | CallMessage
  | { readonly kind: "close" };

/** What the engine's thread says. */
export type FromEngine =
  | { readonly kind: "ready"; readonly info: EngineInfo }
  | { readonly kind: "events"; readonly events: WireEvents }
  | { readonly kind: "value"; readonly id: number; readonly value: unknown }
  /** id null: the engine could not start. */
  | { readonly kind: "error"; readonly id: number | null; readonly error: WireError }
  | { readonly kind: "closed" };

/** An error's class, code and words; classes do not survive cloning. */
export interface WireError {
  readonly name: string;
  readonly code: string;
  readonly message: string;
}

/** An error as plain data. */
export function toWire(error: unknown): WireError {
  if (!(error instanceof Error)) return { name: "Error", code: "", message: String(error) };
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  return { name: error.name, code, message: error.message };
}

/** The error again, of its class where that is one of errors.ts. */
export function fromWire({ name, code, message }: WireError): Error {
  if (name === "RequestError") return new RequestError(code, message);
  if (name === "CapacityError") return new CapacityError(message);
  if (name === "CheckpointError") return new CheckpointError(message);
  if (name === "DeviceLostError") return new DeviceLostError(message);
  if (name === "KernelError") return new KernelError(message);
  return Object.assign(new Error(message), { name });
}
