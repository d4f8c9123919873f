// GET /v1/models and /v1/models/{name}: every name that can be asked for.

import { Elysia } from "elysia";
import type { ServerContext } from "../context.ts";
import type { ServedName } from "../hybrid_registry.ts";

export function modelRoutes(context: ServerContext) {
  const view = (served: ServedName) => ({
    id: served.id,
    object: "model",
    created: Math.floor((served.record?.createdAt ?? context.lifecycle.startedAt) / 1000),
    owned_by: "graft",
    root: context.hybrids.backbone,
    hybrid: served.hybrid,
    task: served.record?.task ?? null,
    max_model_len: context.engine.info.maxContext,
  });
  return new Elysia({ normalize: false })
    .get("/v1/models", () => ({ object: "list", data: context.hybrids.names().map(view) }), {
      detail: { tags: ["openai"], summary: "List the names that can be asked for" },
    })
    .get("/v1/models/:model", ({ params }) => view(context.hybrids.resolve(params.model)), {
      detail: { tags: ["openai"], summary: "One name" },
    });
}
