// Absurd sizes and names against a running server: refused by limits, nothing large is allocated, nothing outside the
// store is opened, and a stream beside it all says what it says alone.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { resolve } from "node:path";
import { type ServeProcess, ServeSandbox } from "./serve_process.ts";
import { type ErrorJson, sseData } from "./support.ts";

const model = resolve(import.meta.dir, "../../models/tiny");
const LONG_MS = 60_000;
const MIB = 2 ** 20;

const sandbox = new ServeSandbox();
let server: ServeProcess;
beforeAll(async () => {
  server = await sandbox.serve(model);
}, LONG_MS);
afterAll(() => sandbox.dispose());

const post = (path: string, body: string) =>
  fetch(server.url + path, { method: "POST", headers: { "content-type": "application/json" }, body });

async function streamedText(): Promise<string> {
  const body = { prompt: "the cat", max_tokens: 400, temperature: 0, ignore_eos: true, stream: true };
  const data = await sseData(await post("/v1/completions", JSON.stringify(body)));
  expect(data.at(-1)).toBe("[DONE]");
  return data
    .slice(0, -1)
    .map((one) => (JSON.parse(one) as { choices: { text: string }[] }).choices[0]!.text)
    .join("");
}

/** Peak memory of the server so far. */
function peakBytes(): number {
  const line = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${server.pid}/status`, "utf8"));
  return Number(line![1]) * 1024;
}

const chat = { messages: [{ role: "user", content: "x" }] };
const many = <T>(count: number, one: (i: number) => T) => Array.from({ length: count }, (_, i) => one(i));
const biases = Object.fromEntries(many(100_000, (i) => [String(i), 1]));

/** Route, body, the field that is named. */
const absurd: readonly (readonly [string, object, string])[] = [
  ["/v1/completions", { prompt: "x", n: 1_000_000 }, "n"],
  ["/v1/completions", { prompt: "x", best_of: 1_000_000 }, "best_of"],
  ["/v1/completions", { prompt: "x", max_tokens: 2 ** 31 }, "max_tokens"],
  ["/v1/completions", { prompt: "x", logprobs: 10_000 }, "logprobs"],
  ["/v1/completions", { prompt: "x", stop: many(10_000, (i) => `s${i}`) }, "stop"],
  ["/v1/completions", { prompt: "x", logit_bias: biases }, "logit_bias"],
  ["/v1/completions", { prompt: many(100_000, () => "x") }, "prompt"],
  ["/v1/completions", { prompt: many(1_000_000, () => 1) }, "prompt"],
  ["/v1/completions", { prompt: "x".repeat(4 * MIB) }, "prompt"],
  ["/v1/chat/completions", { ...chat, n: 1_000_000 }, "n"],
  ["/v1/chat/completions", { ...chat, max_completion_tokens: 2 ** 31 }, "max_completion_tokens"],
  ["/v1/chat/completions", { ...chat, logprobs: true, top_logprobs: 10_000 }, "top_logprobs"],
  ["/v1/chat/completions", { ...chat, logit_bias: biases }, "logit_bias"],
  ["/v1/chat/completions", { messages: many(100_000, () => chat.messages[0]) }, "messages"],
  [
    "/v1/chat/completions",
    { ...chat, tools: many(10_000, (i) => ({ type: "function", function: { name: `f${i}` } })) },
    "tools",
  ],
  ["/v1/responses", { input: many(100_000, () => chat.messages[0]) }, "input"],
  ["/v1/responses", { input: "x", max_output_tokens: 2 ** 31 }, "max_output_tokens"],
  ["/v1/score", { context: "x", continuations: many(100_000, () => "y") }, "continuations"],
  ["/tokenize", { prompt: "x".repeat(4 * MIB) }, "prompt"],
];

test(
  "absurd sizes are refused by name without large allocations, and a stream beside them is not disturbed",
  async () => {
    const alone = await streamedText();
    // What a server needs for bodies of that size at all, it has had once.
    await post("/v1/completions", JSON.stringify({ prompt: "x".repeat(4 * MIB), unknown: 1 }));
    const beside = streamedText();
    for (const [path, body, field] of absurd) {
      const before = peakBytes();
      const response = await post(path, JSON.stringify(body));
      const { error } = (await response.json()) as ErrorJson;
      expect([field, response.status, error.param]).toEqual([field, 400, field]);
      expect(error.message.length).toBeLessThan(1000);
      expect((peakBytes() - before) / MIB).toBeLessThan(64);
    }
    expect(await beside).toBe(alone);
  },
  LONG_MS,
);

describe("names that are paths", () => {
  const names = [
    "..",
    "../..",
    "../../../../etc/passwd",
    "/etc/passwd",
    "%2e%2e",
    "%2e%2e%2fgraft.db",
    "..%5c..",
    "tiny/../tiny",
    "tiny:../../x",
    "a\0b",
    "CON",
    "C:\\Windows",
    ".",
    "",
    " ",
    "a\nb",
    "名前",
    "ü",
    "\u202etiny",
    "x".repeat(4096),
  ];

  test("as a model: 400 or 404, in OpenAI's form", async () => {
    for (const name of names) {
      for (const [path, body] of [
        ["/v1/completions", { prompt: "x" }],
        ["/v1/chat/completions", chat],
        ["/v1/responses", { input: "x" }],
        ["/v1/score", { context: "x", continuations: ["y"] }],
        ["/tokenize", { prompt: "x" }],
      ] as const) {
        const response = await post(path, JSON.stringify({ ...body, model: name }));
        expect([400, 404]).toContain(response.status);
        expect(((await response.json()) as ErrorJson).error.param).toBe("model");
      }
    }
  });

  test("as a part of an address, raw and encoded: never more than is served", async () => {
    for (const name of names.filter((one) => one !== "")) {
      for (const prefix of ["/v1/models/", "/v1/hybrids/", "/v1/tasks/", "/v1/searches/"]) {
        for (const target of [prefix + encodeURIComponent(name), prefix + name.replaceAll(/[^!-~]/g, "%00")]) {
          const answer = await rawGet(target);
          expect(answer).not.toContain("root:");
          const status = Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]);
          // Dots that lead back to what is served show that.
          if (status === 200) expect(answer).toMatch(/"object":"(list|model)"/);
          else expect([400, 404]).toContain(status);
        }
      }
    }
  });
});

/** A GET with the target as it stands: fetch() would resolve dots by itself. */
function rawGet(target: string): Promise<string> {
  const { hostname, port } = new URL(server.url);
  return new Promise((done, fail) => {
    const socket = connect(Number(port), hostname, () => {
      socket.write(`GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
    });
    const chunks: Buffer[] = [];
    socket.on("data", (chunk) => chunks.push(Buffer.from(chunk)));
    socket.on("error", fail);
    socket.on("close", () => done(Buffer.concat(chunks).toString()));
  });
}
