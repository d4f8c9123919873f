// All metric families of one server in one registry; a scrape asks the engine once. One file per family beside this.

import { collectDefaultMetrics, Registry } from "prom-client";
import type { EngineClient } from "../engine/types.ts";
import type { Store } from "../store/database.ts";
import { engineMetrics } from "./engine_metrics.ts";
import { type HttpMetrics, httpMetrics } from "./http_metrics.ts";
import { jobMetrics } from "./job_metrics.ts";
import { type RequestMetrics, requestMetrics } from "./request_metrics.ts";

/** What routes observe, and the text they serve. */
export interface Metrics {
  readonly requests: RequestMetrics;
  readonly http: HttpMetrics;
  /** Content type of the exposition. */
  readonly contentType: string;
  /** The Prometheus text exposition of now. */
  text(): Promise<string>;
}

/**
 * Registers every family.
 * @param model labels the engine's figures
 * @param settings labels of graft_cache_config_info
 */
export function createMetrics(
  engine: EngineClient,
  store: Store,
  model: string,
  settings: Readonly<Record<string, string | number>> = {},
): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const refreshEngine = engineMetrics(registry, engine, model, settings);
  jobMetrics(registry, store);
  return {
    requests: requestMetrics(registry, engine.info.maxContext),
    http: httpMetrics(registry),
    contentType: registry.contentType,
    async text() {
      await refreshEngine();
      return registry.metrics();
    },
  };
}
