// graft bench serve: what is sent and when, what counts as an answer, how figures follow from records, and a whole run.
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { figuresOf } from "../../src/bench/serve/figures.ts";
import { runLoad } from "../../src/bench/serve/load.ts";
import { arrivals, datasetRequests, randomRequests, readDataset } from "../../src/bench/serve/prompts.ts";
import { type RequestRecord, readEvents, sendRequest } from "../../src/bench/serve/request.ts";
import type { EngineWork } from "../../src/bench/serve/server_stats.ts";
import { distributionOf } from "../../src/bench/statistics.ts";
import { objectivesIn } from "../../src/cli/bench_serve_flags.ts";
import { startCli } from "../support/cli.ts";

const root = mkdtempSync(join(tmpdir(), "graft-bench-serve-"));
afterAll(() => rmSync(root, { recursive: true }));

const lengths = { input: 20, output: 10, rangeRatio: 0.5, prefix: 4, vocabSize: 50 };
const settings = { ignoreEos: true, temperature: 0 };

test("random requests have their lengths, share the prefix and nothing else, and follow from the seed", () => {
  const requests = randomRequests(200, ["a", "b"], lengths, 7);
  const prompts = requests.map(({ prompt }) => prompt as number[]);
  expect(new Set(prompts.map((ids) => ids.slice(0, 4).join())).size).toBe(1);
  expect(new Set(prompts.map((ids) => ids.slice(4, 12).join())).size).toBe(200);
  const sizes = prompts.map((ids) => ids.length - 4);
  expect([Math.min(...sizes), Math.max(...sizes)]).toEqual([10, 30]);
  expect(requests.map(({ model }) => model).slice(0, 3)).toEqual(["a", "b", "a"]);
  expect(requests.every(({ maxTokens }) => maxTokens >= 5 && maxTokens <= 15)).toBe(true);
  expect(randomRequests(200, ["a", "b"], lengths, 7)).toEqual(requests);
  const other = randomRequests(200, ["a", "b"], lengths, 8).map(({ prompt }) =>
    (prompt as number[]).slice(0, 4).join(),
  );
  expect(other[0]).not.toBe(prompts[0]!.slice(0, 4).join());
});

test.each([0.25, 1, 9])(
  "arrivals with burstiness %p have the rate and the spread of a gamma distribution",
  (burstiness) => {
    const at = arrivals(20_001, 50, burstiness, 3);
    const gaps = at.slice(1).map((time, i) => time - at[i]!);
    const mean = gaps.reduce((a, b) => a + b, 0) / gaps.length;
    const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length;
    expect(mean * 50).toBeCloseTo(1, 1);
    // The squared coefficient of variation of a gamma distribution is 1 / shape.
    expect((variance / mean ** 2) * burstiness).toBeGreaterThan(0.9);
    expect((variance / mean ** 2) * burstiness).toBeLessThan(1.1);
    expect(arrivals(3, Number.POSITIVE_INFINITY, 1, 1)).toEqual([0, 0, 0]);
  },
);

test("a dataset is read with its line numbers and taken in another order for another seed", () => {
  const path = join(root, "prompts.jsonl");
  writeFileSync(path, '{"prompt": "one"}\n\n{"prompt": [1, 2], "max_tokens": 5}\n{"prompt": "three"}\n');
  const dataset = readDataset(path);
  expect(dataset[1]).toEqual({ prompt: [1, 2], maxTokens: 5 });
  const taken = datasetRequests(6, ["m"], dataset, 9, 1);
  expect(
    taken
      .slice(0, 3)
      .map(({ prompt }) => prompt)
      .sort(),
  ).toEqual([[1, 2], "one", "three"].sort());
  expect(taken.slice(3)).toEqual(taken.slice(0, 3));
  expect(taken.find(({ prompt }) => prompt === "one")!.maxTokens).toBe(9);
  const orders = new Set([1, 2, 3, 4, 5, 6].map((seed) => JSON.stringify(datasetRequests(3, ["m"], dataset, 9, seed))));
  expect(orders.size).toBeGreaterThan(1);
  for (const [line, why] of [
    ["{", "it is no JSON"],
    ['{"prompt": []}', '"prompt" is neither'],
    ['{"prompt": "x", "max_tokens": 0}', '"max_tokens" is no positive'],
  ]) {
    writeFileSync(path, `{"prompt": "one"}\n${line}\n`);
    expect(() => readDataset(path)).toThrow(`${path}:2: ${why}`);
  }
});

test("events are read whole wherever the stream is cut", async () => {
  const text = 'data: {"a":"ö"}\r\n\r\n: ping\n\ndata: [DONE]\n\n';
  const bytes = new TextEncoder().encode(text);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const found: string[] = [];
    const parts = [bytes.slice(0, cut), bytes.slice(cut)];
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const part of parts) controller.enqueue(part);
        controller.close();
      },
    });
    await readEvents(body, (data) => found.push(data));
    expect(found).toEqual(['{"a":"ö"}', "[DONE]"]);
  }
});

/** A stream of `count` tokens of a prompt of 3, with what a case changes. */
function stream(count: number, change: { done?: boolean; reason?: string; usage?: number; ids?: number } = {}): string {
  const { done = true, reason = "length", usage = count, ids = 1 } = change;
  const event = (body: object) => `data: ${JSON.stringify(body)}\n\n`;
  const tokens = Array.from({ length: count }, (_, i) =>
    event({
      choices: [{ text: "x", token_ids: new Array(ids).fill(7), finish_reason: i + 1 === count ? reason : null }],
    }),
  );
  const counts = { prompt_tokens: 3, completion_tokens: usage, prompt_tokens_details: { cached_tokens: 1 } };
  return `${tokens.join("")}${event({ choices: [], usage: counts })}${done ? "data: [DONE]\n\n" : ""}`;
}

const answers: [string, () => Response, string | null][] = [
  ["whole", () => new Response(stream(4)), null],
  ["cut", () => new Response(stream(4, { done: false })), "stream cut"],
  ["short", () => new Response(stream(2)), "2 tokens of 4"],
  ["miscounted", () => new Response(stream(4, { ids: 2 })), "8 token ids, usage says 4"],
  ["cancelled", () => new Response(stream(4, { reason: "cancelled" })), "finish_reason cancelled"],
  ["refused", () => Response.json({ error: { code: "queue_full" } }, { status: 429 }), "http 429 queue_full"],
  ["failed", () => new Response('data: {"error":{"code":"engine_dead"}}\n\ndata: [DONE]\n\n'), "error engine_dead"],
  ["garbled", () => new Response("data: {\n\n"), "unreadable event"],
];

test.each(answers)("an answer that is %s", async (_, answer, failure) => {
  using server = Bun.serve({ port: 0, fetch: answer });
  const target = { url: `http://127.0.0.1:${server.port}`, apiKey: "k" };
  const record = await sendRequest(target, { model: "m", prompt: [1, 2, 3], maxTokens: 4 }, settings);
  expect(record.failure).toBe(failure);
  if (failure !== null) return;
  expect(record).toMatchObject({ promptTokens: 3, cachedTokens: 1, outputTokens: 4, numEvents: 6, ids: [] });
  expect(record.gaps.length).toBe(3);
  expect(record.ttft).toBeLessThanOrEqual(record.e2e);
});

test("a load keeps its concurrency and its times, and survives a server that is not there", async () => {
  let [active, peak] = [0, 0];
  using server = Bun.serve({
    port: 0,
    async fetch() {
      peak = Math.max(peak, ++active);
      await Bun.sleep(5);
      active--;
      return new Response(stream(4));
    },
  });
  const requests = Array.from({ length: 20 }, () => ({ model: "m", prompt: [1, 2, 3], maxTokens: 4 }));
  const plan = { requests, arrivals: requests.map(() => 0), maxConcurrency: 3, settings };
  const target = { url: `http://127.0.0.1:${server.port}`, apiKey: null };
  const seen: number[] = [];
  const result = await runLoad(target, plan, (done) => seen.push(done));
  expect([peak, result.peakConcurrency]).toEqual([3, 3]);
  expect(seen).toEqual(requests.map((_, i) => i + 1));
  expect(figuresOf(result, {})).toMatchObject({ successful: 20, failed: 0, inputTokens: 60, outputTokens: 80 });

  const spread = await runLoad(
    target,
    { ...plan, requests: requests.slice(0, 3), arrivals: [0, 0.02, 0.06] },
    () => {},
  );
  expect(spread.seconds).toBeGreaterThan(0.06);
  server.stop(true);
  const gone = figuresOf(await runLoad(target, { ...plan, requests: requests.slice(0, 2) }, () => {}), {});
  expect(gone).toMatchObject({ failures: { connection: 2 }, successful: 0, ttft: null, outputTokensPerSecond: 0 });
});

test("figures follow from the records by their definitions", () => {
  const record = (ttft: number, gaps: number[], failure: string | null = null): RequestRecord => {
    const e2e = gaps.reduce((a, b) => a + b, ttft);
    const outputTokens = gaps.length + 1;
    return {
      model: "m",
      failure,
      ttft,
      e2e,
      gaps,
      promptTokens: 10,
      cachedTokens: 0,
      outputTokens,
      numEvents: 5,
      ids: [],
    };
  };
  const records = [record(10, [2, 4]), record(30, [6, 6]), record(99, [1], "stream cut"), record(20, [])];
  const result = { records, seconds: 2, peakConcurrency: 4, clientSeconds: 0.5 };
  const figures = figuresOf(result, objectivesIn(["ttft:25,itl:4"]));
  expect(figures).toMatchObject({ successful: 3, failed: 1, failures: { "stream cut": 1 }, inputTokens: 30 });
  expect(figures).toMatchObject({ outputTokens: 7, outputTokensPerSecond: 3.5, totalTokensPerSecond: 18.5 });
  expect(figures.tpot).toMatchObject({ mean: 4.5, max: 6 });
  expect(figures.itl).toMatchObject({ mean: 4.5, median: 4, max: 6 });
  expect(figures).toMatchObject({ goodput: 1, clientShare: 0.25 });
  expect(figuresOf(result, {}).goodput).toBeNull();
  expect(distributionOf([5, 1, 3])).toEqual({ mean: 3, median: 3, p90: 5, p99: 5, max: 5 });
  expect(() => objectivesIn(["tftt:1"])).toThrow('Invalid value for --goodput: "tftt:1"');
});

test("a whole run against a server of its own, over two hybrids", async () => {
  const words = ["--max-concurrency", "1,4", "--num-prompts", "8", "--random-input-len", "24", "--repeats", "2"];
  const rest = [
    "--random-output-len",
    "6",
    "--model",
    "tiny,tiny:gdn-half",
    "-o",
    "json",
    "--save",
    join(root, "s.json"),
  ];
  const place = ["--", "--threads", "1", "--time-kernels"];
  const run = await startCli(["bench", "serve", "--shape", "tiny", ...words, ...rest, ...place]).finished;
  expect(run.stderr).not.toContain("error");
  const rows = JSON.parse(run.stdout) as Record<string, number | string | object>[];
  expect(rows.map(({ load }) => load)).toEqual(["c=1", "c=1", "c=4", "c=4"]);
  for (const row of rows) {
    expect(row).toMatchObject({ successful: 8, failed: 0, inputTokens: 192, cachedTokens: 0, outputTokens: 48 });
    const { preemptions, outsideKernels, kernelShare } = row.server as unknown as EngineWork;
    expect(preemptions).toBe(0);
    expect(outsideKernels).toBeGreaterThan(0);
    expect(outsideKernels).toBeLessThan(1);
    expect(kernelShare).toBeLessThan(1);
  }
  expect(new Set(rows.map(({ seed }) => seed)).size).toBe(4);
  expect(JSON.parse(readFileSync(join(root, "s.json"), "utf8")).runs).toEqual(rows);
  expect(run.status).toBe(0);
});

test.each([
  [[], "Name one server to measure"],
  [["m", "--url", "http://127.0.0.1:1"], "Name one server to measure"],
  [["m", "--goodput", "ttft"], 'Invalid value for --goodput: "ttft"'],
  [["m", "--max-concurrency", "0"], 'Invalid value for --max-concurrency: "0"'],
  [["m", "--max-concurrency", "8,300"], 'Invalid value for --max-concurrency: "300", expected at most 256'],
])("bench serve %p is refused", async (words, message) => {
  const { status, stderr } = await startCli(["bench", "serve", ...words]).finished;
  expect(stderr).toContain(message);
  expect(status).toBe(2);
});

test("a server that cannot be had is one line", async () => {
  const gone = await startCli(["bench", "serve", "--url", "http://127.0.0.1:1"]).finished;
  expect(gone.stderr).toContain("Cannot reach http://127.0.0.1:1");
  const none = await startCli(["bench", "serve", "no-such-model", "--data-dir", root]).finished;
  expect(none.stderr).toContain('Cannot find model "no-such-model"');
  expect([gone.status, none.status]).toEqual([1, 1]);
});

test("lengths that the context cannot hold are refused before anything is sent", async () => {
  const words = ["--random-input-len", "8000", "--random-output-len", "900", "--random-range-ratio", "0.5"];
  using server = Bun.serve({ port: 0, fetch: () => Response.json({ info: { maxContext: 13_000 }, backbone: "m" }) });
  const url = ["--url", `http://127.0.0.1:${server.port}`];
  const { status, stderr } = await startCli(["bench", "serve", ...url, ...words]).finished;
  expect(stderr).toContain("Prompt and answer have up to 13350 tokens, the server's context holds 13000");
  expect(status).toBe(2);
});
