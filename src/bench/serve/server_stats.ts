// What a graft server says of itself between two moments of a load. Other servers say nothing here, and that is no fault.
import type { EngineInfo, EngineStats } from "../../engine/types.ts";
import type { Target } from "./request.ts";

/** What /v1/stats answers, as far as it matters here. */
export interface ServerStats {
  readonly backbone: string;
  readonly active_requests: number;
  readonly info: EngineInfo;
  readonly engine: EngineStats;
}

/** What the engine did between two looks. */
export interface EngineWork {
  readonly steps: number;
  readonly secondsPerStep: number;
  readonly preemptions: number;
  /** Share of the steps' time that was not inside kernels; null where the server does not count it (--time-kernels). */
  readonly outsideKernels: number | null;
  /** Kernel seconds per second of the run: with work at all times, what is missing from 1 is everything else. */
  readonly kernelShare: number | null;
}

/** null where the server has no such route, or not for this key. @throws Error where it cannot be reached or wants a key */
export async function readStats(target: Target): Promise<ServerStats | null> {
  const headers: Record<string, string> = target.apiKey === null ? {} : { authorization: `Bearer ${target.apiKey}` };
  let response: Response;
  try {
    response = await fetch(`${target.url}/v1/stats`, { headers, keepalive: false });
  } catch (cause) {
    throw new Error(`Cannot reach ${target.url}: start a server there, or leave --url out and name a model`, { cause });
  }
  if (response.status === 401) throw new Error(`Cannot use ${target.url}: it answers 401; give its key with --api-key`);
  return response.ok ? ((await response.json()) as ServerStats) : null;
}

/** What the engine did in `wall` seconds; null where either look saw nothing. */
export function workBetween(before: ServerStats | null, after: ServerStats | null, wall: number): EngineWork | null {
  if (before === null || after === null) return null;
  const [first, last] = [before.engine.kernelSeconds, after.engine.kernelSeconds];
  const kernels = first === undefined || last === undefined ? null : last - first;
  const steps = after.engine.steps - before.engine.steps;
  const seconds = after.engine.stepSeconds - before.engine.stepSeconds;
  return {
    steps,
    secondsPerStep: steps === 0 ? 0 : seconds / steps,
    preemptions: after.engine.preemptions - before.engine.preemptions,
    outsideKernels: kernels === null || seconds === 0 ? null : 1 - kernels / seconds,
    kernelShare: kernels === null ? null : kernels / wall,
  };
}
