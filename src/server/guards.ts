// What is checked before any route: where the request claims to come from, its key, and how large its body is.
// Deny by default: only the probes are open.

import { createHash, timingSafeEqual } from "node:crypto";
import { HttpError } from "./errors.ts";

/** Settings of the guards, fixed at start. */
export interface GuardSettings {
  /** Required as `Authorization: Bearer KEY` when set. */
  readonly apiKey: string | null;
  /** Host names a request may be addressed to; null allows any (a server that listens beyond loopback). */
  readonly allowedHosts: readonly string[] | null;
  readonly maxBodyBytes: number;
}

/** Paths that answer without a key, for probes. */
const OPEN_PATHS: ReadonlySet<string> = new Set(["/health", "/ready"]);

/** Names under which a loopback server may be addressed; anything else is another site's name pointed at it. */
export const LOOPBACK_HOSTS: readonly string[] = ["localhost", "127.0.0.1", "[::1]", "::1"];

/** Whether listening on `host` is reachable from this machine only. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** @throws HttpError when the request must not go further. */
export function guard(request: Request, settings: GuardSettings): void {
  const url = new URL(request.url);
  checkOrigin(request, url, settings.allowedHosts);
  checkKey(request, url.pathname, settings.apiKey);
  const length = Number(request.headers.get("content-length") ?? "0");
  if (length > settings.maxBodyBytes) throw bodyTooLarge(settings.maxBodyBytes);
}

function checkOrigin(request: Request, url: URL, allowed: readonly string[] | null): void {
  const host = hostName(request.headers.get("host") ?? url.host);
  if (allowed !== null && !allowed.includes(host)) {
    throw new HttpError(403, "host_not_allowed", `Host "${host}" is not served here; allow it with --allowed-host`);
  }
  const origin = request.headers.get("origin");
  if (origin === null) return;
  const originHost = URL.canParse(origin) ? new URL(origin).hostname : origin;
  if (originHost !== host && !(allowed ?? []).includes(originHost)) {
    throw new HttpError(403, "origin_not_allowed", `Origin "${originHost}" may not use this server`);
  }
}

/** `[::1]` of `[::1]:8000`, lower case. */
function hostName(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, "");
}

function checkKey(request: Request, path: string, apiKey: string | null): void {
  if (apiKey === null || OPEN_PATHS.has(path)) return;
  const given = /^Bearer (.+)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  if (given !== undefined && timingSafeEqual(digest(given), digest(apiKey))) return;
  throw new HttpError(401, "invalid_api_key", given === undefined ? "An API key is required" : "The API key is wrong");
}

/** Equal lengths for the comparison, whatever was sent. */
function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function bodyTooLarge(limit: number): HttpError {
  return new HttpError(413, "body_too_large", `The body is larger than ${limit} bytes`);
}

/**
 * Reads a body up to the limit, whatever its headers say: JSON, or text where the content type says so.
 * @throws HttpError 413 beyond the limit, 400 for broken UTF-8 or JSON
 */
export async function readBody(request: Request, contentType: string, maxBytes: number): Promise<unknown> {
  const bytes = await readBytes(request, maxBytes);
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

async function readBytes(request: Request, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of request.body ?? []) {
    total += chunk.byteLength;
    if (total > maxBytes) throw bodyTooLarge(maxBytes);
    chunks.push(chunk);
  }
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
}
