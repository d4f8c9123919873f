// What is checked of every request beside its key: where it claims to come from, and how large its body is.

import { allowsOrigin } from "./cors.ts";
import { HttpError } from "./errors.ts";

/** Settings of the guards, fixed at start. */
export interface GuardSettings {
  /** Host names a request may be addressed to; null allows any (a server that listens beyond loopback). */
  readonly allowedHosts: readonly string[] | null;
  /** Origins of pages that may use this server beside its own; "*" allows any. */
  readonly corsOrigins: readonly string[];
  readonly maxBodyBytes: number;
}

/** Names under which a loopback server may be addressed; anything else is another site's name pointed at it. */
export const LOOPBACK_HOSTS: readonly string[] = ["localhost", "127.0.0.1", "[::1]", "::1"];

/** Whether listening on `host` is reachable from this machine only. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** @throws HttpError when the request must not go further */
export function guard(request: Request, settings: GuardSettings): void {
  checkSource(request, settings);
  const encoding = request.headers.get("content-encoding") ?? "identity";
  if (encoding.toLowerCase() !== "identity") {
    throw new HttpError(415, "unsupported_encoding", "A compressed body is not taken; send it as it is");
  }
  const length = Number(request.headers.get("content-length") ?? "0");
  if (length > settings.maxBodyBytes) throw bodyTooLarge(settings.maxBodyBytes);
}

function checkSource(request: Request, { allowedHosts, corsOrigins }: GuardSettings): void {
  const host = (request.headers.get("host") ?? new URL(request.url).host).toLowerCase();
  const name = host.replace(/:\d+$/, "");
  if (allowedHosts !== null && !allowedHosts.includes(name)) {
    throw new HttpError(403, "host_not_allowed", `Host "${name}" is not served here; allow it with --allowed-host`);
  }
  const origin = request.headers.get("origin");
  if (origin === null || allowsOrigin(corsOrigins, origin)) return;
  if (URL.canParse(origin) && new URL(origin).host === host) return;
  throw new HttpError(403, "origin_not_allowed", "Pages of this origin may not use the server; see --cors-origin");
}

function bodyTooLarge(limit: number): HttpError {
  return new HttpError(413, "body_too_large", `The body is larger than ${limit} bytes`);
}

/** A body that is slower than this in all is not waited for. */
const BODY_TIMEOUT_MS = 60_000;

/**
 * Reads a body up to the limit, whatever its headers say: JSON, or text where the content type says so.
 * @throws HttpError 413 beyond the limit, 408 when it takes too long, 400 for broken UTF-8 or JSON
 */
export async function readBody(
  request: Request,
  contentType: string,
  maxBytes: number,
  timeoutMs: number = BODY_TIMEOUT_MS,
): Promise<unknown> {
  const bytes = await readBytes(request, maxBytes, timeoutMs);
  // Nothing sent is "no body", which only routes without one accept.
  if (bytes.byteLength === 0) return null;
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new HttpError(400, "invalid_utf8", "The body is not UTF-8 text");
  }
  if (TEXT_TYPES.has(contentType.split(";")[0]!.trim().toLowerCase())) return text;
  if (nestsDeeperThan(bytes, MAX_DEPTH)) {
    throw new HttpError(400, "invalid_json", `The body nests more than ${MAX_DEPTH} lists and objects in each other`);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new HttpError(400, "invalid_json", `The body is not valid JSON: ${why}`);
  }
}

/** Checking a value against a schema takes time that grows with the square of its depth; no request needs much. */
const MAX_DEPTH = 64;

/** Whether brackets outside of strings are open more than `limit` deep anywhere in the JSON text. */
function nestsDeeperThan(json: Uint8Array, limit: number): boolean {
  const [quote, backslash] = [0x22, 0x5c];
  let depth = 0;
  let inText = false;
  for (let i = 0; i < json.length; i++) {
    const byte = json[i]!;
    if (inText) {
      if (byte === backslash) i++;
      else if (byte === quote) inText = false;
    } else if (byte === quote) inText = true;
    else if (byte === 0x5b || byte === 0x7b) {
      if (++depth > limit) return true;
    } else if (byte === 0x5d || byte === 0x7d) depth--;
  }
  return false;
}

/** Bodies taken as they are: task files posted line by line. */
const TEXT_TYPES: ReadonlySet<string> = new Set([
  "text/plain",
  "application/jsonl",
  "application/x-ndjson",
  "application/x-jsonlines",
  "application/octet-stream",
]);

async function readBytes(request: Request, maxBytes: number, timeoutMs: number): Promise<Uint8Array> {
  if (request.body === null) return new Uint8Array();
  const reader = request.body.getReader();
  const chunks: Uint8Array[] = [];
  let total = 0;
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    void reader.cancel();
  }, timeoutMs);
  try {
    for (let next = await reader.read(); next.done !== true; next = await reader.read()) {
      total += next.value.byteLength;
      if (total > maxBytes) {
        void reader.cancel();
        throw bodyTooLarge(maxBytes);
      }
      chunks.push(next.value);
    }
  } finally {
    clearTimeout(timer);
  }
  if (late) throw new HttpError(408, "body_too_slow", `The body did not arrive within ${timeoutMs / 1000} s`);
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
}
