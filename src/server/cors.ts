// Which pages of other origins may use the server (none unless set), and the headers that tell their browsers so.
// Credentials are never allowed: a key is a header that the page itself sends.

/** Headers of an answer that a page may read. */
const EXPOSED = [
  "x-request-id",
  "retry-after",
  "location",
  ...["limit", "remaining", "reset"].flatMap((part) => [`x-ratelimit-${part}-requests`, `x-ratelimit-${part}-tokens`]),
].join(", ");
const MAX_AGE_S = 600;

/** Whether `origin` is one of `allowed`, exactly. */
export function allowsOrigin(allowed: readonly string[], origin: string): boolean {
  return allowed.includes("*") || allowed.includes(origin);
}

/** Adds what the browser of a page from an allowed origin needs to see. */
export function addCorsHeaders(headers: Headers, allowed: readonly string[], origin: string | null): void {
  if (allowed.length === 0) return;
  headers.append("vary", "Origin");
  if (origin === null || !allowsOrigin(allowed, origin)) return;
  headers.set("access-control-allow-origin", allowed.includes("*") ? "*" : origin);
  headers.set("access-control-expose-headers", EXPOSED);
}

/** The answer to a browser that asks before it sends, or null when `request` is no such question from an allowed origin. */
export function preflightAnswer(request: Request, allowed: readonly string[]): Response | null {
  const origin = request.headers.get("origin");
  const method = request.headers.get("access-control-request-method");
  if (request.method !== "OPTIONS" || origin === null || method === null) return null;
  if (!allowsOrigin(allowed, origin)) return null;
  const headers = new Headers({
    "access-control-allow-methods": "GET, POST, PUT, DELETE",
    "access-control-max-age": String(MAX_AGE_S),
  });
  // The origin is what is decided here; which headers its page sends makes no difference.
  const asked = request.headers.get("access-control-request-headers");
  if (asked !== null) headers.set("access-control-allow-headers", asked);
  return new Response(null, { status: 204, headers });
}

/** Whether `text` is "*" or an origin as browsers send it. */
export function isOriginSetting(text: string): boolean {
  return text === "*" || (URL.canParse(text) && new URL(text).origin === text);
}
