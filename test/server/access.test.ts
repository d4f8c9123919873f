// Who may do what: every route against no key, wrong keys and lesser keys; limits per key; guessing; the key file;
// pages of other origins; names that are paths.
import { afterEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Access } from "../../src/server/access/access.ts";
import { findKey, NO_LIMITS, parseKeys } from "../../src/server/access/key_file.ts";
import { followKeys } from "../../src/server/access/key_source.ts";
import { neededScope } from "../../src/server/access/scopes.ts";
import { type ErrorJson, json, type TestServer, type TestServerOptions, testServer } from "./support.ts";

const ADMIN = "sk-admin-0123456789";
const USER = "sk-user-0123456789";
const SCRAPER = "sk-scrape-0123456789";
const KEYS = `# name key scope
ops    ${ADMIN}   admin
alice  ${USER}    # a comment
prom   ${SCRAPER} metrics
`;

let server: TestServer;
const start = async (options: TestServerOptions) => {
  server = await testServer(options);
};
afterEach(() => server?.dispose());
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const complete = (headers: Record<string, string>, body: object = { prompt: "ab" }) =>
  server.send("POST", "/v1/completions", body, headers);

describe("every route of the application", () => {
  const concrete = (path: string) => path.replaceAll(/:\w+/g, "x").replaceAll("*", "x");
  const ask = (method: string, path: string, headers: Record<string, string>) =>
    server.send(method === "ALL" ? "GET" : method, concrete(path), method === "GET" ? undefined : {}, headers);

  test("needs a key, the whole right key, in the header", async () => {
    await start({ keys: KEYS });
    const routes = server.app.routes.filter(({ path }) => !["/health", "/ready"].includes(path));
    expect(routes.length).toBeGreaterThan(20);
    // No more than may fail before the address is shut out: one server per kind of wrong key.
    const wrong: [string, string, Record<string, string>][] = [
      ["none", "", {}],
      ["wrong", "", bearer("sk-wrong-0123456789")],
      ["prefix", "", bearer(ADMIN.slice(0, -1))],
      ["longer", "", bearer(`${ADMIN}9`)],
      ["digest", "", bearer(new Bun.CryptoHasher("sha256").update(ADMIN).digest("hex"))],
      ["scheme", "", { authorization: `Basic ${ADMIN}` }],
      ["bare", "", { authorization: ADMIN }],
      ["query", `?api_key=${ADMIN}&key=${ADMIN}&access_token=${ADMIN}`, {}],
      ["x-api-key", "", { "x-api-key": ADMIN }],
    ];
    for (const [kind, query, headers] of wrong) {
      for (const [i, { method, path }] of routes.entries()) {
        if (i % 20 === 0) {
          await server.dispose();
          await start({ keys: KEYS });
        }
        const response = await ask(method, path + query, headers);
        expect([kind, method, path, response.status]).toEqual([kind, method, path, 401]);
        expect(response.headers.get("www-authenticate")).toBe("Bearer");
      }
    }
  });

  test("that changes the server refuses a user's key, that a user needs takes it", async () => {
    await start({ keys: KEYS });
    const open: string[] = [];
    for (const { method, path } of server.app.routes) {
      const { status } = await ask(method, path, bearer(USER));
      expect(status).not.toBe(401);
      if (status !== 403) open.push(`${method} ${path}`);
    }
    const asking = /^POST \/(v1\/(completions|chat\/completions|responses|embeddings|score)|tokenize|detokenize)$/;
    const reading = /^GET /;
    expect(open.filter((route) => !asking.test(route) && !reading.test(route))).toEqual([]);
    for (const needed of ["POST /v1/completions", "POST /v1/chat/completions", "GET /v1/models", "GET /v1/hybrids"]) {
      expect(open).toContain(needed);
    }
    for (const change of ["POST /v1/hybrids", "DELETE /v1/tasks/:name", "POST /v1/searches", "POST /v1/conversions"]) {
      expect(open).not.toContain(change);
      expect(server.app.routes.map(({ method, path }) => `${method} ${path}`)).toContain(change);
    }
  });

  test("is open to an administrator, and only figures to a scraper", async () => {
    await start({ keys: KEYS });
    const forScraper: string[] = [];
    for (const { method, path } of server.app.routes.filter((route) => !route.path.endsWith("/events"))) {
      expect([401, 403]).not.toContain((await ask(method, path, bearer(ADMIN))).status);
      const { status } = await ask(method, path, bearer(SCRAPER));
      expect(status).not.toBe(401);
      if (status !== 403) forScraper.push(path);
    }
    expect(forScraper.toSorted()).toEqual(["/health", "/metrics", "/ready", "/v1/stats"]);
  });

  test("that nobody listed is for administrators, also under a name that looks like another", () => {
    const odd = [
      "POST /v1/anything",
      "GET /v1/hybrids/a/b",
      "GET //v1/models",
      "GET /v1/models/",
      "GET /V1/models",
      "GET /v1/models%2f",
      "POST /health",
      "GET /health/",
      "DELETE /v1/models/x",
      "POST /v1/completions/",
    ];
    const scope = (route: string) => neededScope(...(route.split(" ") as [string, string]));
    expect(odd.filter((route) => scope(route) !== "admin")).toEqual([]);
  });
});

test("a key is never in the log nor in an error", async () => {
  await start({ keys: KEYS });
  const texts: string[] = [];
  for (const key of [ADMIN, USER, "sk-wrong-0123456789"]) {
    for (const path of ["/v1/completions", `/v1/nothing?key=${key}`, "/v1/hybrids"]) {
      const response = await server.send("POST", path, { prompt: "x", model: 5 }, bearer(key));
      texts.push(await response.text(), JSON.stringify([...response.headers]));
    }
  }
  const said = texts.concat(server.logged).join("\n");
  expect(said).toContain('"key":"alice"');
  for (const key of [ADMIN, USER, "sk-wrong-0123456789"]) expect(said).not.toContain(key);
});

test("ten thousand guesses learn nothing, and shut out neither other addresses nor who proved a key", async () => {
  let now = 0;
  await start({ keys: KEYS, clock: () => now });
  const from = (address: string, key: string) =>
    server.handle(new Request("http://localhost/v1/models", { headers: bearer(key) }), address);
  expect((await from("10.0.0.9", USER)).status).toBe(200);
  const statuses = new Map<number, number>();
  for (let i = 0; i < 10_000; i++) {
    // The last guess is right, and not told to be.
    const { status } = await from("10.0.0.9", i === 9_999 ? ADMIN : `sk-guess-${i}-${USER.slice(0, i % 18)}`);
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
  }
  expect(Object.fromEntries(statuses)).toEqual({ 401: 30, 429: 9970 });
  const refused = await from("10.0.0.9", ADMIN);
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "2"]);
  expect((await json<ErrorJson>(refused)).error.code).toBe("too_many_failures");
  // Behind one address: who had shown a key before goes on.
  expect((await from("10.0.0.9", USER)).status).toBe(200);
  expect((await from("10.0.0.10", ADMIN)).status).toBe(200);
  now += 2000;
  expect((await from("10.0.0.9", ADMIN)).status).toBe(200);
  // A /64 of IPv6 is one guesser.
  for (let i = 0; i < 30; i++) await from(`2001:db8::${i.toString(16)}`, "sk-wrong-0123456789");
  expect((await from("2001:db8::ffff", ADMIN)).status).toBe(429);
  expect((await from("2001:db8:0:1::1", ADMIN)).status).toBe(200);
});

test("behind a trusted proxy the forwarded address counts, and from nobody else", async () => {
  await start({ keys: KEYS, trustedProxies: ["10.0.0.1"] });
  const from = (socket: string, forwarded: string, key: string) => {
    const headers = { ...bearer(key), "x-forwarded-for": forwarded };
    return server.handle(new Request("http://localhost/v1/models", { headers }), socket);
  };
  for (let i = 0; i < 31; i++) await from("10.0.0.1", `9.9.9.${i}, 192.0.2.1`, "sk-wrong-0123456789");
  expect((await from("10.0.0.1", "192.0.2.1", USER)).status).toBe(429);
  expect((await from("10.0.0.1", "192.0.2.2", USER)).status).toBe(200);
  expect((await from("10.0.0.7", "192.0.2.1", USER)).status).toBe(200);
  expect(server.logged.filter((line) => line.includes('"address":"192.0.2.1"'))).toHaveLength(32);
});

describe("limits of a key", () => {
  test("requests per minute: 429 with the time to wait, headers as OpenAI has them, others not affected", async () => {
    let now = 0;
    await start({ keys: `a ${USER} user rpm=3\nb ${ADMIN} user`, clock: () => now });
    const seen: [number, string | null, string | null][] = [];
    for (let i = 0; i < 5; i++) {
      const { status, headers } = await complete(bearer(USER));
      seen.push([status, headers.get("x-ratelimit-remaining-requests"), headers.get("x-ratelimit-reset-requests")]);
    }
    expect(seen).toEqual([
      [200, "2", "20s"],
      [200, "1", "40s"],
      [200, "0", "1m0s"],
      [429, null, null],
      [429, null, null],
    ]);
    const refused = await complete(bearer(USER));
    expect(refused.headers.get("retry-after")).toBe("20");
    expect((await json<ErrorJson>(refused)).error).toMatchObject({ type: "rate_limit_error", param: "requests" });
    expect((await complete(bearer(ADMIN))).headers.get("x-ratelimit-limit-requests")).toBeNull();
    now += 19_000;
    expect((await complete(bearer(USER))).headers.get("retry-after")).toBe("1");
    now += 1000;
    expect((await complete(bearer(USER))).status).toBe(200);
  });

  test("tokens per minute are charged when they are known, also of a stream that is left", async () => {
    let now = 0;
    await start({ keys: `a ${USER} user tpm=60`, clock: () => now });
    const first = await complete(bearer(USER), { prompt: "x".repeat(30) });
    expect(first.headers.get("x-ratelimit-limit-tokens")).toBe("60");
    // 30 tokens of prompt, 16 of answer.
    expect((await complete(bearer(USER))).headers.get("x-ratelimit-remaining-tokens")).toBe("14");
    now += 60_000;
    server.engine.holdAfter = 5;
    const stream = await complete(bearer(USER), { prompt: "y".repeat(40), max_tokens: 20, stream: true });
    const reader = stream.body!.getReader();
    let seen = "";
    while (seen.split("\n\n").length <= 5) seen += new TextDecoder().decode((await reader.read()).value);
    await reader.cancel();
    server.engine.release();
    const left = (await complete(bearer(USER))).headers.get("x-ratelimit-remaining-tokens");
    expect(Number(left)).toBe(60 - 45);
    await complete(bearer(USER), { prompt: "z".repeat(40) });
    const refused = await complete(bearer(USER));
    expect(refused.status).toBe(429);
    expect((await json<ErrorJson>(refused)).error.param).toBe("tokens");
    now += 1000 * Number(refused.headers.get("retry-after"));
    expect((await complete(bearer(USER))).status).toBe(200);
  });

  test("requests at once: a place is free again when the stream has ended", async () => {
    await start({ keys: `a ${USER} user concurrent=2` });
    server.engine.holdAfter = 1;
    const streams = [];
    for (let i = 0; i < 2; i++) streams.push(await complete(bearer(USER), { prompt: "ab", stream: true }));
    const refused = await complete(bearer(USER));
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "1"]);
    server.engine.release();
    for (const stream of streams) expect(await stream.text()).toEndWith("[DONE]\n\n");
    expect((await complete(bearer(USER))).status).toBe(200);
  });

  test("an error frees its place and its tokens", async () => {
    await start({ keys: `a ${USER} user concurrent=1 tpm=50` });
    for (let i = 0; i < 5; i++) expect((await complete(bearer(USER), { prompt: 5 })).status).toBe(400);
    expect((await complete(bearer(USER))).headers.get("x-ratelimit-remaining-tokens")).toBe("50");
  });
});

describe("the key file", () => {
  test("reads names, scopes, limits and comments", () => {
    const limits = { ...NO_LIMITS, requestsPerMinute: 7 };
    const keys = parseKeys(
      `\n# c\r\n a ${USER}\nb ${ADMIN} admin tpm=5 rpm=0 # x\nc ${SCRAPER} concurrent=2`,
      "f",
      limits,
    );
    expect(keys.map(({ name, scope, limits: own }) => [name, scope, ...Object.values(own)])).toEqual([
      ["a", "user", 7, null, null],
      ["b", "admin", null, 5, null],
      ["c", "user", 7, null, 2],
    ]);
    expect(findKey(keys, ADMIN)?.name).toBe("b");
    expect(findKey(keys, ADMIN.slice(1))).toBeNull();
    expect(findKey([], "")).toBeNull();
  });

  test("a broken line is named by its number, its words never are", () => {
    const broken: [string, RegExp][] = [
      ["secretword", /line 1 has no key/],
      [`a ${USER}\nb short`, /line 2 has a key that is not 8 to 512/],
      [`sec/retword! ${USER}`, /line 1 has an unusable name/],
      [`a ${USER} secretword`, /line 1 has an unknown scope, expected metrics, user, admin/],
      [`a ${USER} user secretword=1`, /line 1 has an unknown option/],
      [`a ${USER} user constructor=1`, /line 1 has an unknown option/],
      [`a ${USER} user rpm=-1`, /line 1 has an unknown option/],
      [`a ${USER}\nb ${USER}`, /holds one key twice/],
      [`a ${USER}\na ${ADMIN}`, /gives one name to two keys/],
    ];
    for (const [text, expected] of broken) {
      let said = "";
      try {
        parseKeys(text, '"keys"', NO_LIMITS);
      } catch (error) {
        said = String(error);
      }
      expect(said).toMatch(expected);
      expect(said).not.toMatch(/secretword|retword|sk-/);
    }
  });

  test("is read again when it changes or on demand; a broken one changes nothing; others who can read it are told", async () => {
    const folder = mkdtempSync(join(tmpdir(), "graft-keys-"));
    const file = join(folder, "keys");
    const access = new Access(NO_LIMITS);
    const lines: string[] = [];
    const admits = (key: string) => {
      try {
        access.admit(new Request("http://x/v1/models", { headers: bearer(key) }), "/v1/models", "a");
        return true;
      } catch {
        return false;
      }
    };
    writeFileSync(file, `a ${USER}\n`, { mode: 0o600 });
    const source = followKeys(access, { keys: [ADMIN], file, limits: NO_LIMITS }, (line) => void lines.push(line));
    try {
      expect([admits(USER), admits(ADMIN), admits(SCRAPER)]).toEqual([true, true, false]);
      expect(lines).toEqual([]);
      writeFileSync(`${file}.new`, `a ${SCRAPER}\n`, { mode: 0o600 });
      renameSync(`${file}.new`, file);
      for (let i = 0; i < 300 && !admits(SCRAPER); i++) await Bun.sleep(10);
      expect([admits(USER), admits(ADMIN), admits(SCRAPER)]).toEqual([false, true, true]);
      writeFileSync(file, "nothing");
      source.reload();
      expect(lines.at(-1)).toMatch(/^the API keys stay as they are: Cannot read keys from .* line 1 has no key/);
      expect(admits(SCRAPER)).toBe(true);
      chmodSync(file, 0o644);
      source.reload();
      expect(lines.join("\n")).toContain("others on this machine can read the API keys");
      rmSync(file);
      source.reload();
      expect(admits(SCRAPER)).toBe(true);
    } finally {
      source.close();
      rmSync(folder, { recursive: true });
    }
  });
});

describe("pages of other origins", () => {
  const preflight = (origin: string) =>
    server.handle(
      new Request("http://localhost/v1/chat/completions", {
        method: "OPTIONS",
        headers: {
          origin,
          "access-control-request-method": "POST",
          "access-control-request-headers": "authorization, content-type, x-stainless-os",
        },
      }),
    );
  const corsHeaders = (response: Response) =>
    [...response.headers].filter(([name]) => name.startsWith("access-control")).map(([name]) => name);

  test("are refused unless set, and no header invites them", async () => {
    await start({ keys: KEYS });
    expect((await preflight("https://evil.example")).status).toBe(403);
    const response = await complete({ ...bearer(USER), origin: "https://evil.example" });
    expect([response.status, corsHeaders(response)]).toEqual([403, []]);
    expect(corsHeaders(await complete(bearer(USER)))).toEqual([]);
  });

  test("are let in exactly as set, without credentials, and still need a key", async () => {
    const origin = "https://chat.example.org";
    await start({ keys: KEYS, corsOrigins: [origin] });
    const asked = await preflight(origin);
    expect(asked.status).toBe(204);
    expect(asked.headers.get("access-control-allow-origin")).toBe(origin);
    expect(asked.headers.get("access-control-allow-headers")).toContain("x-stainless-os");
    expect(asked.headers.get("access-control-allow-credentials")).toBeNull();
    const answered = await complete({ ...bearer(USER), origin });
    expect([answered.status, answered.headers.get("access-control-allow-origin")]).toEqual([200, origin]);
    expect(answered.headers.get("vary")).toContain("Origin");
    expect((await complete({ origin })).status).toBe(401);
    for (const other of ["http://chat.example.org", `${origin}:8443`, `${origin}.evil.example`, "null"]) {
      expect([other, (await preflight(other)).status]).toEqual([other, 403]);
      expect((await complete({ ...bearer(USER), origin: other })).status).toBe(403);
    }
  });

  test("any origin: *, never with credentials", async () => {
    await start({ corsOrigins: ["*"] });
    const response = await complete({ origin: "https://anything.example" });
    expect(response.headers.get("access-control-allow-origin")).toBe("*");
    expect(response.headers.get("access-control-allow-credentials")).toBeNull();
    // A name of another site that is pointed at this machine stays refused.
    const rebound = new Request("http://localhost/v1/models", { headers: { host: "evil.example" } });
    expect((await server.handle(rebound)).status).toBe(403);
  });
});

test("names that are paths name nothing", async () => {
  await start({});
  const names = [
    "..",
    "../..",
    "%2e%2e%2f",
    "/etc/passwd",
    "a\0b",
    "CON",
    "x".repeat(4096),
    "ŧ̈i\u202eny",
    "tiny:../a",
    "~",
  ];
  for (const name of names) {
    const statuses = [
      (await complete({}, { prompt: "x", model: name })).status,
      (await server.send("POST", "/v1/hybrids", { name, replace: [0], variant: "gla" })).status,
      (await server.send("POST", "/v1/tasks", { name, documents: [{ context: "a", completion: "b" }] })).status,
      (await server.get(`/v1/models/${encodeURIComponent(name)}`)).status,
      (await server.get(`/v1/tasks/${encodeURIComponent(name)}`)).status,
    ];
    const outside = statuses.filter((status) => status !== 400 && status !== 404);
    // A harmless name such as CON is a name like another: its file lies in the store's own folder.
    if (name !== "CON") expect([name, outside]).toEqual([name, []]);
  }
  for (const { path } of server.store.tasks.list()) expect(path.startsWith(server.store.dir.tasks)).toBe(true);
});
