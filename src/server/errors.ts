// Every error as the OpenAI error body with its status. It alone maps codes to statuses.

import { CapacityError, CheckpointError, EngineLostError, RequestError } from "../errors.ts";
import { StoreError, type StoreErrorCode, storeErrorFrom } from "../store/store_error.ts";
import { expectation, fieldOf, innermost, type SchemaIssue, shown } from "./fields.ts";

/** An answer that is an error. `param` names the field at fault; `retryAfter` is the seconds to wait where they are known. */
export class HttpError extends Error {
  override name = "HttpError";
  readonly status: number;
  readonly code: string;
  readonly param: string | null;
  readonly retryAfter: number | null;
  constructor(
    status: number,
    code: string,
    message: string,
    param: string | null = null,
    retryAfter: number | null = null,
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
    this.retryAfter = retryAfter;
  }
}

/** A field whose value cannot be honoured: 400. */
export function invalidField(param: string, message: string): HttpError {
  return new HttpError(400, "invalid_value", message, param);
}

/** The time a request had is over: 408, which a client does better not to repeat by itself. */
export function deadlineExceeded(): HttpError {
  return new HttpError(408, "deadline_exceeded", "The request was not complete in the time it had", "timeout_ms");
}

/** What a client is asked to wait for a new engine. */
const RESTART_SECONDS = 2;

/** Codes of RequestError that are not 400. */
const REQUEST_STATUS: Readonly<Record<string, number>> = {
  unknown_model: 404,
  model_not_found: 404,
  unknown_hybrid: 404,
  unknown_job: 404,
  unknown_task: 404,
  job_state: 409,
  pool_in_use: 409,
  nothing_cached: 409,
  session_too_large: 507,
  sessions_off: 404,
  hybrid_unavailable: 503,
  pool_memory: 507,
};

const STORE_STATUS: Readonly<Record<StoreErrorCode, number>> = {
  disk_full: 507,
  read_only: 500,
  locked: 503,
  corrupt: 500,
  schema: 500,
  io: 500,
};

/** What is told to the client; anything unexpected becomes a plain 500 without our own words in it. */
export function toHttpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error;
  if (error instanceof RequestError && error.code === "deadline_exceeded") return deadlineExceeded();
  if (error instanceof RequestError) return new HttpError(REQUEST_STATUS[error.code] ?? 400, error.code, error.message);
  if (error instanceof CapacityError) return new HttpError(429, "rate_limit_exceeded", error.message);
  if (error instanceof EngineLostError) return new HttpError(503, error.code, error.message, null, RESTART_SECONDS);
  if (error instanceof CheckpointError) return new HttpError(400, error.code, error.message);
  const store = error instanceof StoreError ? error : storeErrorFrom("the data folder", error);
  if (store !== null) return new HttpError(STORE_STATUS[store.code], `store_${store.code}`, store.message);
  return new HttpError(500, "internal_error", "The server failed on this request; its log says more");
}

/** What the log should say of a failure beside what the client is told: one line, or the stack of a defect; else null. */
export function logText(error: unknown): string | null {
  const told = toHttpError(error);
  if (error instanceof HttpError || told.status < 500) return null;
  if (told.code !== "internal_error") return told.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** `{ error: { message, type, param, code } }` as OpenAI clients read it. */
export function errorBody(error: HttpError) {
  return { error: { message: error.message, type: errorType(error.status), param: error.param, code: error.code } };
}

export function errorResponse(error: HttpError): Response {
  const headers = new Headers({ "content-type": "application/json" });
  if (error.status === 429 || error.status === 503) headers.set("retry-after", String(error.retryAfter ?? 1));
  if (error.status === 408) headers.set("x-should-retry", "false");
  if (error.status === 401) headers.set("www-authenticate", "Bearer");
  return new Response(JSON.stringify(errorBody(error)), { status: error.status, headers });
}

function errorType(status: number): string {
  if (status === 401) return "authentication_error";
  if (status === 403) return "permission_error";
  if (status === 404) return "not_found_error";
  if (status === 429) return "rate_limit_error";
  if (status === 408) return "timeout_error";
  if (status === 501) return "not_supported_error";
  if (status === 503) return "service_unavailable_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

/** The first complaint of the schema validator, naming the field, the value found and what was expected. */
export function validationError(part: string, issues: readonly SchemaIssue[]): HttpError {
  const issue = issues[0] === undefined ? undefined : innermost(issues[0]);
  if (issue === undefined) return new HttpError(400, "invalid_value", `Invalid ${part}`);
  const field = fieldOf(issue.path);
  if (field === "") return invalidField(part, `Invalid ${part}: expected ${expectation(issue.schema)}`);
  if (issue.message === "Unexpected property") {
    return new HttpError(400, "unknown_parameter", `Unknown parameter "${field}"`, field);
  }
  if (issue.value === undefined) {
    return new HttpError(
      400,
      "missing_parameter",
      `Missing parameter "${field}": expected ${expectation(issue.schema)}`,
      field,
    );
  }
  return invalidField(field, `Invalid "${field}": got ${shown(issue.value)}, expected ${expectation(issue.schema)}`);
}
