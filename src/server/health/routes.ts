// /health (does the engine's thread live), /ready (may traffic come), /metrics, /v1/stats.

import { Elysia } from "elysia";
import type { ServerContext } from "../context.ts";
import { HttpError } from "../errors.ts";

/** Without a sign of life for this long the engine counts as dead. */
const HEARTBEAT_LIMIT_MS = 5000;

export function healthRoutes(context: ServerContext) {
  const alive = () => context.engine.alive && context.engine.heartbeatAgeMs <= HEARTBEAT_LIMIT_MS;
  return new Elysia({ normalize: false, detail: { tags: ["operation"] } })
    .get("/health", ({ set }) => {
      const ok = alive();
      set.status = ok ? 200 : 503;
      return { status: ok ? "ok" : "engine_dead", engine_heartbeat_age_ms: Math.round(context.engine.heartbeatAgeMs) };
    })
    .get("/ready", ({ set }) => {
      const status = context.lifecycle.draining ? "draining" : alive() ? "ready" : "engine_dead";
      set.status = status === "ready" ? 200 : 503;
      return { status };
    })
    .get("/metrics", async () => {
      return new Response(await context.metrics.text(), { headers: { "content-type": context.metrics.contentType } });
    })
    .get("/v1/stats", async () => {
      if (!context.engine.alive) throw new HttpError(503, "engine_dead", "The engine does not run");
      return {
        object: "stats",
        backbone: context.hybrids.backbone,
        started_at: Math.floor(context.lifecycle.startedAt / 1000),
        active_requests: context.lifecycle.active,
        info: context.engine.info,
        engine: await context.engine.stats(),
      };
    });
}
