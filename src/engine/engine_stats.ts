// The engine's counters and gauges as one record, gathered when somebody asks. Changes nothing.
import type { Catalog } from "./catalog.ts";
import type { Counters } from "./counters.ts";
import type { EngineParts } from "./engine.ts";
import type { EngineStats, SessionCounts } from "./types.ts";

/** What the parts of an engine hold now, and what has been counted. */
export function engineStats(
  parts: EngineParts,
  counters: Counters,
  catalog: Catalog,
  sessions: SessionCounts | null,
): EngineStats {
  const { scheduler, kvBytesPerToken, kernelClock } = parts;
  const { pages, states, limits, sharing } = scheduler;
  const pageBytes = limits.pageSize * kvBytesPerToken;
  const weights = { checkpoint: parts.weightBytes(), gla: 0, gdn: 0, jet: 0 };
  for (const { variant, mixers } of catalog.loadedPools) {
    for (const mixer of mixers) weights[variant] += mixer.weightBytes();
  }
  const { hit, disabled } = sharing.outcomes;
  const began = Object.values(sharing.outcomes).reduce((sum, count) => sum + count, 0);
  const stateBytes = 4 * (states.floatsUsed - sharing.cache.stateFloats);
  const convBytes = 4 * scheduler.running.reduce((sum, { hybrid }) => sum + hybrid.convFloats, 0);
  return {
    ...counters,
    ...(kernelClock === null ? {} : { kernelSeconds: kernelClock.seconds }),
    finished: { ...counters.finished },
    stepsByTokens: [...counters.stepsByTokens],
    running: scheduler.numRunning,
    waiting: scheduler.numWaiting,
    stepsReplayed: parts.backend.numReplayed,
    replayProblem: parts.backend.replayProblem,
    preemptions: scheduler.numPreemptions,
    kvBytesUsed: pages.numUsed * pageBytes,
    kvBytesTotal: pages.numPages * pageBytes,
    stateBytesUsed: stateBytes,
    recurrentBytesUsed: stateBytes - convBytes,
    convBytesUsed: convBytes,
    stateBytesTotal: 4 * states.numFloats,
    prefixHits: hit,
    prefixMisses: began - hit - disabled,
    prefixOutcomes: { ...sharing.outcomes },
    prefixQueryTokens: sharing.queryTokens,
    prefixHitTokens: sharing.hitTokens,
    prefixEvictions: sharing.cache.evictions,
    prefixBytes: sharing.cache.bytes,
    prefixSnapshots: sharing.cache.size,
    weightBytes: weights.checkpoint + weights.gla + weights.gdn + weights.jet,
    weightBytesByKind: weights,
    hybridLoads: catalog.counts.loads,
    hybridUnloads: catalog.counts.unloads,
    sessions,
  };
}
