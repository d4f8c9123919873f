// Parts of the server by themselves: event streams, merged generators, statuses of errors, the drain.
import { expect, test } from "bun:test";
import { CapacityError, CheckpointError, KernelError, RequestError } from "../../src/errors.ts";
import { errorBody, errorResponse, HttpError, logText, toHttpError } from "../../src/server/errors.ts";
import { expectation, fieldOf } from "../../src/server/fields.ts";
import { isLoopback } from "../../src/server/guards.ts";
import { Lifecycle } from "../../src/server/lifecycle.ts";
import { listen } from "../../src/server/listener.ts";
import { mergeIterables } from "../../src/server/merge.ts";
import { formatEvent, type SseEvent, sseResponse } from "../../src/server/sse.ts";
import { StoreError } from "../../src/store/store_error.ts";

const never = () => new Request("http://localhost/");
const noError = (): SseEvent[] => [];

test("an event ends with its blank line, and data of several lines stays one event", () => {
  expect(formatEvent({ data: "a" })).toBe("data: a\n\n");
  expect(formatEvent({ data: "a\nb", event: "e", id: 3 })).toBe("event: e\nid: 3\ndata: a\ndata: b\n\n");
});

test("a silent stream is filled with pings and goes on", async () => {
  let speak = () => {};
  const silence = new Promise<void>((resolve) => {
    speak = resolve;
  });
  async function* source(): AsyncGenerator<SseEvent> {
    await silence;
    yield { data: "late" };
  }
  const reader = sseResponse(never(), source, noError, { pingMs: 5, stallMs: 60_000 }).body!.getReader();
  const decoder = new TextDecoder();
  const read = async () => decoder.decode((await reader.read()).value);
  expect(await read()).toBe(": ping\n\n");
  expect(await read()).toBe(": ping\n\n");
  speak();
  let text = await read();
  while (text === ": ping\n\n") text = await read();
  expect(text).toBe("data: late\n\n");
  expect((await reader.read()).done).toBe(true);
});

test("a reader that leaves wakes a source that waits", async () => {
  let ended = false;
  async function* source(signal: AbortSignal): AsyncGenerator<SseEvent> {
    try {
      yield { data: "one" };
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    } finally {
      ended = true;
    }
  }
  const reader = sseResponse(never(), source, noError).body!.getReader();
  await reader.read();
  await reader.cancel();
  expect(ended).toBe(true);
});

test("a slow reader is not written ahead of", async () => {
  let made = 0;
  async function* source(): AsyncGenerator<SseEvent> {
    for (; made < 1000; made++) yield { data: "x".repeat(1024) };
  }
  const reader = sseResponse(never(), source, noError).body!.getReader();
  await reader.read();
  await reader.read();
  expect(made).toBeLessThan(2 * 66);
  await reader.cancel();
});

test("mergeIterables() yields as values come and ends all when one throws", async () => {
  const ended: string[] = [];
  async function* count(name: string, until: number, fail = false): AsyncGenerator<string> {
    try {
      for (let i = 0; i < until; i++) yield `${name}${i}`;
      if (fail) throw new Error(`${name} broke`);
    } finally {
      ended.push(name);
    }
  }
  expect(await Array.fromAsync(mergeIterables([count("a", 2), count("b", 3)], () => {}))).toEqual([
    "a0",
    "b0",
    "a1",
    "b1",
    "b2",
  ]);
  ended.length = 0;
  let aborted = 0;
  const merged = mergeIterables([count("c", 100), count("d", 1, true)], () => aborted++);
  await expect(Array.fromAsync(merged)).rejects.toThrow("d broke");
  expect([ended.sort(), aborted]).toEqual([["c", "d"], 1]);
});

test("errors have their status, type and headers, and defects tell nothing", () => {
  const cases: readonly [Error, number, string][] = [
    [new RequestError("bad", "m"), 400, "invalid_request_error"],
    [new RequestError("unknown_job", "m"), 404, "not_found_error"],
    [new RequestError("job_state", "m"), 409, "invalid_request_error"],
    [new CapacityError("m"), 429, "rate_limit_error"],
    [new CheckpointError("m"), 400, "invalid_request_error"],
    [new KernelError("m"), 500, "server_error"],
    [new StoreError("disk_full", "m"), 507, "server_error"],
    [new StoreError("locked", "m"), 503, "service_unavailable_error"],
    [Object.assign(new Error("x"), { code: "SQLITE_FULL" }), 507, "server_error"],
    [new TypeError("x is not a function"), 500, "server_error"],
  ];
  for (const [error, status, type] of cases) {
    const known = toHttpError(error);
    expect([error.message, known.status, errorBody(known).error.type]).toEqual([error.message, status, type]);
  }
  expect(toHttpError(new TypeError("secret")).message).not.toContain("secret");
  expect(toHttpError(new KernelError("0xdeadbeef")).message).not.toContain("dead");
  expect(errorResponse(new HttpError(429, "c", "m")).headers.get("retry-after")).toBe("1");
  expect(errorResponse(new HttpError(401, "c", "m")).headers.get("www-authenticate")).toBe("Bearer");
});

test("the log has a stack of defects only", () => {
  expect(logText(new HttpError(503, "shutting_down", "The server is stopping"))).toBeNull();
  expect(logText(new RequestError("x", "Not so"))).toBeNull();
  expect(logText(new StoreError("disk_full", "the disk is full"))).toBe("the disk is full");
  expect(logText(new TypeError("oops"))).toMatch(/TypeError: oops\n +at /);
});

test("fields and expectations read as people write them", () => {
  expect([fieldOf("/stop/3"), fieldOf("/messages/0/content"), fieldOf("/a~1b")]).toEqual([
    "stop[3]",
    "messages[0].content",
    "a/b",
  ]);
  expect(expectation({ type: "string", maxLength: 5 })).toBe("text of at most 5 characters");
  expect(expectation({ type: "array", minItems: 1 })).toBe("a list of at least 1 entries");
});

test("loopback is what only this machine reaches", () => {
  expect(["127.0.0.1", "127.9.9.9", "localhost", "::1"].map(isLoopback)).toEqual([true, true, true, true]);
  expect(["0.0.0.0", "::", "10.0.0.1", "127.evil.example"].map(isLoopback)).toEqual([false, false, false, false]);
});

test("a drain ends when the last request does, however often it says so", async () => {
  const lifecycle = new Lifecycle();
  const [first, second] = [lifecycle.begin(), lifecycle.begin()];
  const drained = lifecycle.drain();
  expect(() => lifecycle.begin()).toThrow("stopping");
  first();
  first();
  expect(lifecycle.active).toBe(1);
  second();
  await drained;
  expect(lifecycle.active).toBe(0);
});

test("a request whose Host header is no host gets a 400 and not a stack trace", async () => {
  const listener = listen("127.0.0.1", 0, 1 << 20);
  try {
    listener.serve(() => new Response("fine"));
    const { port } = new URL(listener.url);
    const status = async (head: string) => {
      const { promise, resolve } = Promise.withResolvers<string>();
      const data = (_socket: unknown, bytes: Buffer) => resolve(bytes.toString());
      const socket = await Bun.connect({ hostname: "127.0.0.1", port: Number(port), socket: { data } });
      socket.write(`GET /health HTTP/1.1\r\n${head}\r\n\r\n`);
      const answer = await promise;
      socket.end();
      return answer;
    };
    expect(await status("Host: localhost")).toStartWith("HTTP/1.1 200");
    for (const host of ["", "a b", "[::1", "localhost:99999999"]) {
      const answer = await status(`Host: ${host}`);
      expect(answer).toStartWith("HTTP/1.1 400");
      expect(answer).toContain('"code":"invalid_host"');
    }
  } finally {
    await listener.close(0);
  }
});
