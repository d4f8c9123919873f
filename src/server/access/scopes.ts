// Which key a request needs, by method and path. Deny by default: what is not listed here is for administrators.

/** What a key may do, each with everything before it: scrape, ask and read lists, change the server. */
export const SCOPES = ["metrics", "user", "admin"] as const;
export type Scope = (typeof SCOPES)[number];

/** Paths that answer without a key, for probes. */
const OPEN = ["GET /health", "GET /ready"];
const METRICS = ["GET /metrics", "GET /v1/stats"];
/** One `*` stands for one segment of a path. */
const USER = [
  "POST /v1/completions",
  "POST /v1/chat/completions",
  "POST /v1/responses",
  "POST /v1/embeddings",
  "POST /v1/score",
  "POST /tokenize",
  "POST /detokenize",
  "GET /openapi.json",
  "GET /v1/models",
  "GET /v1/models/*",
  "GET /v1/hybrids",
  "GET /v1/hybrids/*",
  "GET /v1/tasks",
  "GET /v1/tasks/*",
  "GET /v1/searches",
  "GET /v1/searches/*",
  "GET /v1/searches/*/events",
  "GET /v1/conversions",
  "GET /v1/conversions/*",
  "GET /v1/conversions/*/events",
];

const RULES: readonly (readonly [RegExp, Scope | "none"])[] = [
  [patternOf(OPEN), "none"],
  [patternOf(METRICS), "metrics"],
  [patternOf(USER), "user"],
];

/** The scope that a request needs, "none" for the probes. */
export function neededScope(method: string, path: string): Scope | "none" {
  const asked = `${method === "HEAD" ? "GET" : method} ${path}`;
  return RULES.find(([pattern]) => pattern.test(asked))?.[1] ?? "admin";
}

/** Whether a key of scope `held` opens what needs `needed`. */
export function covers(held: Scope, needed: Scope): boolean {
  return SCOPES.indexOf(held) >= SCOPES.indexOf(needed);
}

function patternOf(routes: readonly string[]): RegExp {
  const escaped = routes.map((route) => route.replaceAll(/[.]/g, "\\.").replaceAll("*", "[^/]+"));
  return new RegExp(`^(?:${escaped.join("|")})$`);
}
