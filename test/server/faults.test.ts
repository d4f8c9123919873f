// What clients do wrong on a real socket, beside a stream that must not notice: bodies and headers too large or never
// ending, bytes that are no text, pipelined requests, thousands at once, readers that leave or crawl; and the drain under load.
// GRAFT_FAULTS multiplies the counts.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { type ServeProcess, ServeSandbox } from "./serve_process.ts";
import { RawSocket, until } from "./sockets.ts";
import { type ErrorJson, json } from "./support.ts";

const model = resolve(import.meta.dir, "../../models/tiny");
const SCALE = Number(process.env.GRAFT_FAULTS ?? 1);
const LONG_MS = 60_000 * SCALE;
const MIB = 2 ** 20;

const sandbox = new ServeSandbox();
let server: ServeProcess;
beforeAll(async () => {
  server = await sandbox.serve(model, ["--max-waiting", "64", "--max-sequences", "16", "--max-body", "1MiB"]);
}, LONG_MS);
afterAll(() => sandbox.dispose());

const post = (path: string, body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}) =>
  fetch(server.url + path, { method: "POST", headers: { "content-type": "application/json", ...headers }, body });
const ask = (body: object) => post("/v1/completions", JSON.stringify(body));
const prompt = [40, 41, 42];
const greedy = { prompt, temperature: 0, ignore_eos: true };

interface Stats {
  engine: { running: number; waiting: number; kvBytesUsed: number; stateBytesUsed: number };
  active_requests: number;
}
const stats = async () => json<Stats>(await fetch(`${server.url}/v1/stats`));
const isIdle = async () => {
  const { engine, active_requests } = await stats();
  return engine.running + engine.waiting + engine.kvBytesUsed + engine.stateBytesUsed + active_requests === 0;
};
/** Resident memory of the server. */
const rss = () =>
  1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, "utf8"))?.[1] ?? Number.NaN);

/** Runs `fault` beside a stream; the stream must say what it says alone. Answers how much memory the server grew. */
async function besideAStream(fault: () => Promise<void>): Promise<number> {
  const alone = await streamed();
  const before = rss();
  const healthy = streamed();
  await fault();
  expect(await healthy).toBe(alone);
  return rss() - before;
}

async function streamed(): Promise<string> {
  const response = await ask({ ...greedy, max_tokens: 300, stream: true });
  const text = await response.text();
  expect(text).toEndWith("data: [DONE]\n\n");
  return [...text.matchAll(/"text":("(?:[^"\\]|\\.)*")/g)].map((match) => JSON.parse(match[1]!) as string).join("");
}

const code = async (response: Response) => (await json<ErrorJson>(response)).error.code;

describe("bytes that no request has", () => {
  test("too large, compressed, not UTF-8, half characters: each a typed 4xx", async () => {
    const large = "x".repeat(200 * MIB);
    const grown = await besideAStream(async () => {
      const answers = await Promise.all([
        ask({ prompt: "\ud800", max_tokens: 1 }),
        post("/v1/completions", new Uint8Array([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d])),
        post("/v1/completions", gzipSync(Buffer.alloc(100 * MIB)), { "content-encoding": "gzip" }),
        post("/v1/completions", "x".repeat(2 * MIB)),
      ]);
      expect(answers.map(({ status }) => status)).toEqual([200, 400, 415, 413]);
      expect(await Promise.all(answers.slice(1).map(code))).toEqual([
        "invalid_utf8",
        "unsupported_encoding",
        "body_too_large",
      ]);
      // The server may hang up while 200 MB are still on their way.
      const status = await post("/v1/completions", large).then(
        (response) => response.status,
        () => 413,
      );
      expect(status).toBe(413);
      const header = await fetch(`${server.url}/v1/models`, { headers: { "x-long": "y".repeat(MIB) } }).then(
        (response) => response.status,
        () => 431,
      );
      expect(header).toBe(431);
    });
    expect(grown).toBeLessThan(50 * MIB);
  });

  test("no HTTP at all, and lengths that lie", async () => {
    const lies = [
      "NONSENSE\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nabcde",
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      "GET /v1/models HTTP/1.1\r\nHost: a b\r\n\r\n",
      "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n",
    ];
    await besideAStream(async () => {
      for (const lie of lies) {
        const socket = new RawSocket(server.url).read().write(lie);
        await until(`${JSON.stringify(lie)} is refused`, () => socket.closed || socket.statuses.length > 0);
        expect([lie, socket.statuses.filter((status) => status < 400)]).toEqual([lie, []]);
        socket.destroy();
      }
    });
  });

  test("several requests written at once are answered in their order, or the connection ends", async () => {
    await besideAStream(async () => {
      const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;
      const quick = new RawSocket(server.url).read();
      quick.write(get("/health") + get("/v1/models/nope") + get("/health"));
      await until("three answers are there", () => quick.statuses.length === 3);
      expect(quick.statuses).toEqual([200, 404, 200]);
      quick.destroy();
      // What is written behind a request that still runs is not kept: the client sees the end and asks again.
      const behind = new RawSocket(server.url).read();
      behind.post("/v1/completions", { ...greedy, max_tokens: 20 }).write(get("/v1/models/nope"));
      await until("it ends", () => behind.closed);
      expect(behind.statuses.filter((status) => status === 404)).toEqual([]);
    });
    await until("everything is free", isIdle);
  });
});

test(
  "a thousand sockets that say little or nothing, and half-open ones",
  async () => {
    const grown = await besideAStream(async () => {
      const sockets = Array.from({ length: 1000 }, (_, i) => {
        const socket = new RawSocket(server.url).read();
        if (i % 4 === 0) return socket;
        if (i % 4 === 1) return socket.write("POST /v1/completions HTTP/1.1\r\nHost: loc");
        if (i % 4 === 2) {
          const head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
          return socket.write(`${head}\r\nContent-Length: 1000\r\n\r\n{"prompt":`);
        }
        socket.write("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n");
        socket.socket.end();
        return socket;
      });
      await until("a new client is served", async () => (await fetch(`${server.url}/v1/models`)).ok);
      for (const socket of sockets) socket.destroy();
    });
    expect(grown).toBeLessThan(50 * MIB);
    await until("everything is free", isIdle);
  },
  LONG_MS,
);

test(
  "thousands of requests at once: each is answered, by its text or 429 with Retry-After; then it is as before",
  async () => {
    const count = 2000 * SCALE;
    const sockets = Array.from({ length: count }, () => new RawSocket(server.url).read());
    await until("all are connected", () => sockets.every(({ socket }) => !socket.connecting));
    for (const socket of sockets) {
      socket.post("/v1/completions", { ...greedy, max_tokens: 8 }, ["Connection: close"]);
    }
    await until("all are answered", () => sockets.every(({ closed }) => closed), LONG_MS);
    const answered = new Map<number, number>();
    for (const { statuses } of sockets) {
      expect(statuses).toHaveLength(1);
      answered.set(statuses[0]!, (answered.get(statuses[0]!) ?? 0) + 1);
    }
    expect([...answered.keys()].filter((status) => status !== 200 && status !== 429)).toEqual([]);
    expect(answered.get(200)).toBeGreaterThanOrEqual(64);
    expect(answered.get(429)).toBeGreaterThan(0);
    for (const { text } of sockets.filter(({ statuses }) => statuses[0] === 429)) {
      expect(text.toLowerCase()).toMatch(/\r\nretry-after: \d+\r\n/);
    }
    const start = performance.now();
    expect((await ask({ ...greedy, max_tokens: 1 })).status).toBe(200);
    expect(performance.now() - start).toBeLessThan(1000);
    await until("everything is free", isIdle);
  },
  LONG_MS,
);

test(
  "clients that leave at any byte leave nothing behind",
  async () => {
    const request = { ...greedy, max_tokens: 200, stream: true };
    let slowest = 0;
    for (let i = 0; i < 60 * SCALE; i++) {
      const socket = new RawSocket(server.url);
      const limit = (i * 37) % 4000;
      let seen = 0;
      const left = new Promise<void>((resolveLeft) => {
        socket.socket.on("data", (chunk) => {
          seen += chunk.length;
          if (seen < limit) return;
          socket.destroy();
          resolveLeft();
        });
        if (limit === 0) setTimeout(() => resolveLeft(socket.destroy()), i % 5);
      });
      socket.post("/v1/completions", i % 3 === 0 ? { ...request, n: 3 } : request);
      await left;
      if (i % 10 === 9) slowest = Math.max(slowest, await until("everything is free", isIdle));
    }
    // Generous for a busy machine: a step takes some milliseconds.
    expect(slowest).toBeLessThan(1000);
  },
  LONG_MS,
);

test(
  "a reader that takes nothing is cut at a bound, and only it",
  async () => {
    const grown = await besideAStream(async () => {
      const crawl = new RawSocket(server.url);
      crawl.socket.pause();
      crawl.post("/v1/completions", { ...greedy, n: 16, max_tokens: 500, logprobs: 20, stream: true });
      await until("its sequences have ended", async () => (await stats()).engine.running <= 1, LONG_MS);
      expect((await ask({ ...greedy, max_tokens: 4 })).status).toBe(200);
      crawl.destroy();
    });
    expect(grown).toBeLessThan(50 * MIB);
    await until("everything is free", isIdle);
  },
  LONG_MS,
);

test(
  "SIGTERM under a hundred streams: not ready at once, all end whole, exit 0",
  async () => {
    const own = new ServeSandbox();
    try {
      const draining = await own.serve(model, ["--max-waiting", "128", "--log-format", "json"]);
      const body = JSON.stringify({ ...greedy, max_tokens: 60, stream: true });
      const init = { method: "POST", headers: { "content-type": "application/json" }, body };
      const streams = await Promise.all(
        Array.from({ length: 100 }, () => fetch(`${draining.url}/v1/completions`, init)),
      );
      const texts = streams.map((response) => response.text());
      draining.signal("SIGTERM");
      await until("it is not ready", async () => (await fetch(`${draining.url}/ready`)).status === 503, 1000);
      const late = await fetch(`${draining.url}/v1/completions`, init);
      expect([late.status, late.headers.get("retry-after")]).toEqual([503, "1"]);
      for (const text of await Promise.all(texts)) {
        expect(text).toContain('"finish_reason":"length"');
        expect(text).toEndWith("data: [DONE]\n\n");
      }
      expect(await draining.exited).toBe(0);
      const lines = draining
        .errors()
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Record<string, unknown>);
      const ended = lines.filter((line) => line.message === "request" && line.status === 200 && line.model === "tiny");
      expect(ended).toHaveLength(100);
      expect(ended[0]).toMatchObject({ completion_tokens: 60, prompt_tokens: 3, finish_reason: "length" });
    } finally {
      await own.dispose();
    }
  },
  LONG_MS,
);

test(
  "SIGHUP reads the keys again; a second SIGTERM cuts the drain short: streams end with cancelled, exit 0",
  async () => {
    const own = new ServeSandbox();
    try {
      const keys = join(own.root, "keys");
      writeFileSync(keys, "someone sk-0123456789\n", { mode: 0o600 });
      const slow = await own.serve(model, ["--isa", "reference", "--api-key-file", keys]);
      slow.signal("SIGHUP");
      await until("the keys are read", () => slow.errors().includes("read 1 API keys"));
      const body = JSON.stringify({ ...greedy, max_tokens: 480, n: 32, stream: true });
      const headers = { "content-type": "application/json", authorization: "Bearer sk-0123456789" };
      const stream = await fetch(`${slow.url}/v1/completions`, { method: "POST", headers, body });
      slow.signal("SIGTERM");
      await until("it drains", () => slow.errors().includes("stopping"));
      slow.signal("SIGTERM");
      const text = await stream.text();
      expect(text).toContain('"finish_reason":"cancelled"');
      expect(await slow.exited).toBe(0);
    } finally {
      await own.dispose();
    }
  },
  LONG_MS,
);
