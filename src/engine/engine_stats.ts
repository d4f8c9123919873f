// The engine's counters and gauges as one record, gathered when somebody asks. Changes nothing.
import type { Counters } from "./counters.ts";
import type { EngineParts } from "./engine.ts";
import type { EngineStats } from "./types.ts";

/** What the parts of an engine hold now, and what has been counted. */
export function engineStats(parts: EngineParts, counters: Counters): EngineStats {
  const { scheduler, kvBytesPerToken, registry, kernelClock } = parts;
  const { pages, states, limits, sharing } = scheduler;
  const pageBytes = limits.pageSize * kvBytesPerToken;
  const pools = registry.loadedPools.flatMap((pool) => pool.mixers.map((mixer) => mixer.weightBytes()));
  const { hit, disabled } = sharing.outcomes;
  const began = Object.values(sharing.outcomes).reduce((sum, count) => sum + count, 0);
  return {
    ...counters,
    ...(kernelClock === null ? {} : { kernelSeconds: kernelClock.seconds }),
    finished: { ...counters.finished },
    running: scheduler.numRunning,
    waiting: scheduler.numWaiting,
    preemptions: scheduler.numPreemptions,
    kvBytesUsed: pages.numUsed * pageBytes,
    kvBytesTotal: pages.numPages * pageBytes,
    stateBytesUsed: 4 * (states.floatsUsed - sharing.cache.stateFloats),
    stateBytesTotal: 4 * states.numFloats,
    prefixHits: hit,
    prefixMisses: began - hit - disabled,
    prefixOutcomes: { ...sharing.outcomes },
    prefixQueryTokens: sharing.queryTokens,
    prefixHitTokens: sharing.hitTokens,
    prefixEvictions: sharing.cache.evictions,
    prefixBytes: sharing.cache.bytes,
    prefixSnapshots: sharing.cache.size,
    weightBytes: parts.weightBytes() + pools.reduce((sum, bytes) => sum + bytes, 0),
  };
}
