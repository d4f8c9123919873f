// /health (does the engine's thread live), /ready (may traffic come), /metrics, /v1/stats.

import { Elysia } from "elysia";
import type { ServerContext } from "../context.ts";
import { HttpError } from "../errors.ts";

/** Without a sign of life for this long the engine counts as stuck; a probe sees it within five seconds. */
const HEARTBEAT_LIMIT_MS = 4000;

export function healthRoutes(context: ServerContext) {
  const { engine, lifecycle } = context;
  /** null: the engine lives. */
  const problem = () => {
    if (engine.state !== "running") return `engine_${engine.state}`;
    return engine.heartbeatAgeMs > HEARTBEAT_LIMIT_MS ? "engine_stuck" : null;
  };
  return new Elysia({ normalize: false, detail: { tags: ["operation"] } })
    .get("/health", ({ set }) => {
      const found = problem();
      set.status = found === null ? 200 : 503;
      const age = engine.heartbeatAgeMs;
      return {
        status: found ?? "ok",
        ...(found === null || engine.problem === null ? {} : { reason: engine.problem }),
        engine_heartbeat_age_ms: Number.isFinite(age) ? Math.round(age) : null,
        engine_restarts: engine.restarts,
      };
    })
    .get("/ready", ({ set }) => {
      const status = lifecycle.draining ? "draining" : (problem() ?? "ready");
      set.status = status === "ready" ? 200 : 503;
      return { status };
    })
    .get("/metrics", async () => {
      return new Response(await context.metrics.text(), { headers: { "content-type": context.metrics.contentType } });
    })
    .get("/v1/stats", async () => {
      const found = problem();
      if (found !== null) throw new HttpError(503, found, "The engine does not answer");
      return {
        object: "stats",
        backbone: context.hybrids.backbone,
        started_at: Math.floor(lifecycle.startedAt / 1000),
        active_requests: lifecycle.active,
        info: engine.info,
        engine: await engine.stats(),
      };
    });
}
