// The examples of docs/http_api.md are requests the server takes, with answers of the form it gives; every route is named.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestServer, testServer } from "./support.ts";

const docs = readFileSync(join(import.meta.dir, "../../docs/http_api.md"), "utf8");
const EXAMPLE = /```http\n(\w+) (\S+)\n([\s\S]*?)```\n```json\n([\s\S]*?)```/g;

let server: TestServer;
beforeAll(async () => {
  server = await testServer();
  (server.engine.info as { maxContext: number }).maxContext = 4096;
  // A constrained text is a call; log-probabilities are asked of two tokens.
  server.engine.reply = ({ constraint }) =>
    constraint === undefined
      ? [...Buffer.from("Hello! How can I help?")]
      : [...Buffer.from('<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>')];
});
afterAll(() => server.dispose());

/** Where two values differ in form: other kinds, other fields. Texts and numbers may differ. */
function differences(shown: unknown, got: unknown, at: string): string[] {
  const kind = (value: unknown) => (value === null ? "null" : Array.isArray(value) ? "list" : typeof value);
  if (kind(shown) !== kind(got)) return [`${at}: shown ${kind(shown)}, got ${kind(got)}`];
  if (Array.isArray(shown)) {
    if (shown.length === 0 || (got as unknown[]).length === 0) return [];
    return differences(shown[0], (got as unknown[])[0], `${at}[0]`);
  }
  // The keys of alternatives are tokens.
  if (typeof shown !== "object" || shown === null || at.endsWith("top_logprobs[0]")) return [];
  const [a, b] = [shown as Record<string, unknown>, got as Record<string, unknown>];
  const keys = Object.keys(a).sort();
  if (keys.join() !== Object.keys(b).sort().join()) return [`${at}: shown ${keys.join()}, got ${Object.keys(b)}`];
  return keys.flatMap((key) => differences(a[key], b[key], `${at}.${key}`));
}

test("every example is answered in the form that is shown", async () => {
  /** Ids of the page by what they are here. */
  const ids = new Map<string, string>();
  let examples = 0;
  for (const [, method, path, body, answer] of docs.matchAll(EXAMPLE)) {
    const last = path!.split("/").at(-1)!;
    const response = await server.send(
      method!,
      path!.replace(last, ids.get(last) ?? last),
      body === "" ? undefined : JSON.parse(body!),
    );
    const got = (await response.json()) as Record<string, unknown>;
    const shown = JSON.parse(answer!) as Record<string, unknown>;
    expect(differences(shown, got, `${method} ${path}`)).toEqual([]);
    expect(response.ok).toBe(!("error" in shown) || shown.error === null);
    if (typeof shown.id === "string") ids.set(shown.id, String(got.id));
    examples++;
  }
  expect(examples).toBeGreaterThan(18);
});

test("every route is on the page", () => {
  const missing = server.app.routes
    .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, "{$1}")}`)
    .filter((route) => !/\/openapi|\/events/.test(route) && !docs.includes(route))
    // One is enough of what is said of "one" of a kind.
    .filter(
      (route) => !/^GET \/v1\/(models|searches|conversions)\/\{/.test(route) && !/^DELETE \/v1\/hybrids/.test(route),
    );
  expect(missing).toEqual([]);
});
