// Composes the routes with what stands in front of them: guards, keys, body reading, errors.

import { openapi } from "@elysiajs/openapi";
import { Elysia } from "elysia";
import { BodyCheck, type CheckedRoute } from "./body_check.ts";
import { chatRoutes } from "./chat/routes.ts";
import { completionRoutes } from "./completions/routes.ts";
import type { ServerContext } from "./context.ts";
import { conversionRoutes } from "./conversions/routes.ts";
import { embeddingRoutes } from "./embeddings/routes.ts";
import { errorResponse, HttpError, logText, toHttpError, validationError } from "./errors.ts";
import type { SchemaIssue } from "./fields.ts";
import { guard, readBody } from "./guards.ts";
import { healthRoutes } from "./health/routes.ts";
import { hybridRoutes } from "./hybrids/routes.ts";
import { modelRoutes } from "./models/routes.ts";
import { recordOf } from "./request_record.ts";
import { responseRoutes } from "./responses/routes.ts";
import { scoreRoutes } from "./score/routes.ts";
import { searchRoutes } from "./searches/routes.ts";
import { sessionRoutes } from "./sessions/routes.ts";
import { taskRoutes } from "./tasks/routes.ts";
import { tokenRoutes } from "./tokens/routes.ts";

/** The whole HTTP application; `version` is shown in its OpenAPI document. */
export function createApp(context: ServerContext, version: string) {
  const bodies = new BodyCheck(() => app.routes as readonly CheckedRoute[]);
  const app = new Elysia({ normalize: false })
    .onRequest(({ request }) => {
      guard(request, context.guards);
      const record = recordOf(request);
      record.admission = context.access.admit(request, new URL(request.url).pathname, record.address);
    })
    .onParse(({ request, contentType }) => readBody(request, contentType, context.guards.maxBodyBytes))
    .onTransform(({ request, route, body }) => {
      dropNulls(body);
      bodies.check(request.method, route, body);
    })
    .onError(({ code, error, request, route }) => {
      const known = knownError(code, error);
      const record = recordOf(request);
      const answer = toHttpError(known);
      record.route = route || "unknown";
      record.errorCode = answer.code;
      const text = logText(known);
      if (text !== null) {
        context.log(text, "error", { request_id: record.id, method: request.method, route: record.route });
      }
      return errorResponse(answer);
    })
    .onTransform(({ request, route }) => {
      recordOf(request).route = route;
    })
    .use(
      openapi({
        path: "/openapi",
        specPath: "/openapi.json",
        provider: null,
        documentation: {
          info: { title: "graft", version, description: "Task-specific hybrids of one backbone, over HTTP" },
        },
      }),
    )
    .use(modelRoutes(context))
    .use(completionRoutes(context))
    .use(chatRoutes(context))
    .use(responseRoutes(context))
    .use(embeddingRoutes())
    .use(scoreRoutes(context))
    .use(hybridRoutes(context))
    .use(sessionRoutes(context))
    .use(taskRoutes(context))
    .use(searchRoutes(context))
    .use(conversionRoutes(context))
    .use(tokenRoutes(context))
    .use(healthRoutes(context));
  return app;
}

/** A field that is null was not given, as OpenAI has it. */
function dropNulls(body: unknown): void {
  if (typeof body !== "object" || body === null || Array.isArray(body)) return;
  const fields = body as Record<string, unknown>;
  for (const key of Object.keys(fields)) if (fields[key] === null) delete fields[key];
}

function knownError(code: unknown, error: unknown): unknown {
  if (code === "NOT_FOUND") return new HttpError(404, "not_found", "There is no such route; see /openapi.json");
  if (code === "PARSE") {
    const cause = error instanceof Error ? error.cause : undefined;
    return cause instanceof HttpError ? cause : new HttpError(400, "invalid_body", "The body cannot be read");
  }
  if (code === "VALIDATION" && error instanceof Error && "all" in error && "type" in error) {
    return validationError(String(error.type), error.all as SchemaIssue[]);
  }
  return error;
}
