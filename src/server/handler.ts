// What happens around the application for every request: its record, preflights, headers of the answer, the metrics and
// the log line at its end. Knows no route and no body.

import type { ServerContext } from "./context.ts";
import { addCorsHeaders, preflightAnswer } from "./cors.ts";
import { errorResponse, toHttpError } from "./errors.ts";
import { guard } from "./guards.ts";
import { type RequestRecord, recordOf } from "./request_record.ts";

/** Answers a request that came from `address`. */
export type Handler = (request: Request, address?: string) => Promise<Response>;

/** Routes that are asked every few seconds by machines; they are logged for debugging only. */
const QUIET_ROUTES: ReadonlySet<string> = new Set(["/health", "/ready", "/metrics"]);
const METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]);

/** Puts `app` to work in `context`. */
export function requestHandler(
  app: { fetch(request: Request): Response | Promise<Response> },
  context: ServerContext,
): Handler {
  return async (request, socketAddress = "unknown") => {
    const record = recordOf(request, clientAddress(request, socketAddress, context.trustedProxies));
    record.onEnd(() => logEnd(context, request, record));
    const response = preflight(request, context) ?? (await app.fetch(request));
    record.status = response.status;
    // A number of series that a client cannot drive up: the pattern of the route, and known methods only.
    const method = METHODS.has(request.method) ? request.method : "other";
    context.metrics.http.answered(method, record.route, response.status);
    addHeaders(response.headers, request, record, context);
    record.release();
    return response;
  };
}

function preflight(request: Request, context: ServerContext): Response | null {
  const answer = preflightAnswer(request, context.guards.corsOrigins);
  if (answer === null) return null;
  try {
    guard(request, context.guards);
    return answer;
  } catch (error) {
    return errorResponse(toHttpError(error));
  }
}

function addHeaders(headers: Headers, request: Request, record: RequestRecord, context: ServerContext): void {
  headers.set("x-request-id", record.id);
  headers.set("x-content-type-options", "nosniff");
  for (const [name, value] of record.admission?.headers() ?? []) headers.set(name, value);
  addCorsHeaders(headers, context.guards.corsOrigins, request.headers.get("origin"));
}

/** Behind a proxy that is trusted, the last address of the forwarded list that is not such a proxy itself. */
function clientAddress(request: Request, socketAddress: string, trusted: readonly string[]): string {
  if (!trusted.includes(socketAddress)) return socketAddress;
  const forwarded = (request.headers.get("x-forwarded-for") ?? "").split(",").map((part) => part.trim());
  return forwarded.findLast((part) => /^[0-9a-fA-F.:]{2,45}$/.test(part) && !trusted.includes(part)) ?? socketAddress;
}

function logEnd(context: ServerContext, request: Request, record: RequestRecord): void {
  const usage = record.usage?.() ?? null;
  if (record.errorCode !== null) context.metrics.http.failed(record.errorCode);
  record.admission?.end(usage === null ? 0 : usage.promptTokens + usage.completionTokens);
  context.log("request", QUIET_ROUTES.has(record.route) ? "debug" : "info", {
    request_id: record.id,
    key: record.admission?.name,
    address: record.address,
    method: request.method,
    route: record.route,
    status: record.status,
    error: record.errorCode,
    model: record.model,
    hybrid: record.hybrid,
    prompt_tokens: usage?.promptTokens,
    cached_tokens: usage?.cachedTokens,
    completion_tokens: usage?.completionTokens,
    queue_ms: milliseconds(record.queueSeconds),
    ttft_ms: milliseconds(record.firstTokenSeconds),
    total_ms: milliseconds((performance.now() - record.startedAt) / 1000),
    finish_reason: record.finishReason,
  });
}

function milliseconds(seconds: number | null): number | null {
  return seconds === null ? null : Math.round(seconds * 10_000) / 10;
}
