// Every metric by name: that it exists with vLLM's meaning and bounds, that it moves, that its parts add up, and that no
// client can grow the number of series.
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { startEngine } from "../../src/engine/client.ts";
import { type TestServer, testServer } from "./support.ts";

let server: TestServer;
afterEach(() => server.dispose());

/** All samples of a scrape by name with labels, as text: number. */
async function scrape(): Promise<Map<string, number>> {
  const text = await (await server.get("/metrics")).text();
  const samples = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(samples.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.split(" ").at(-1))]));
}

const one = (samples: Map<string, number>, name: string) => samples.get(`${name}{model_name="tiny"}`);
const bounds = (samples: Map<string, number>, name: string) =>
  [...samples.keys()]
    .filter((key) => key.startsWith(`${name}_bucket{`))
    .map((key) => Number(/le="([^"]+)"/.exec(key)![1]!.replace("+Inf", "Infinity")));

const HISTOGRAMS = [
  "graft_time_to_first_token_seconds",
  "graft_inter_token_latency_seconds",
  "graft_request_time_per_output_token_seconds",
  "graft_e2e_request_latency_seconds",
  "graft_request_queue_time_seconds",
  "graft_request_inference_time_seconds",
  "graft_request_prefill_time_seconds",
  "graft_request_decode_time_seconds",
  "graft_request_prompt_tokens",
  "graft_request_generation_tokens",
  "graft_request_params_n",
  "graft_request_params_max_tokens",
  "graft_iteration_tokens_total",
];

describe("with a real engine", () => {
  beforeEach(async () => {
    const modelDir = resolve(import.meta.dir, "../../models/tiny");
    const realEngine = await startEngine({ modelDir, threads: 1, kvBytes: 1 << 22, stateBytes: 1 << 22 });
    server = await testServer({ realEngine });
  });
  afterEach(() => server.context.engine.close());

  test("each histogram and counter moves, and the times of a request add up", async () => {
    const before = await scrape();
    const body = { prompt: [40, 41, 42], max_tokens: 12, ignore_eos: true, temperature: 0 };
    for (let i = 0; i < 3; i++) await (await server.send("POST", "/v1/completions", body)).json();
    const after = await scrape();
    const grown = (name: string) => (one(after, name) ?? 0) - (one(before, name) ?? 0);
    for (const name of HISTOGRAMS) expect([name, grown(`${name}_count`) > 0]).toEqual([name, true]);
    expect(grown("graft_prompt_tokens_total")).toBe(9);
    expect(grown("graft_generation_tokens_total")).toBe(36);
    expect(grown("graft_request_prompt_tokens_sum")).toBe(9);
    expect(grown("graft_request_generation_tokens_sum")).toBe(36);
    expect(grown("graft_request_params_max_tokens_sum")).toBe(36);
    expect(grown("graft_time_to_first_token_seconds_count")).toBe(3);
    expect(grown("graft_inter_token_latency_seconds_count")).toBe(33);
    expect(grown("graft_request_time_per_output_token_seconds_count")).toBe(3);
    expect(grown("graft_prefix_cache_queries_total")).toBe(9);
    expect(after.get('graft_request_success_total{model_name="tiny",finished_reason="length"}')).toBe(3);
    // e2e = queue + prefill + decode + what the server adds, which is never negative and here not much.
    const sum = (name: string) => grown(`graft_${name}_sum`);
    const parts =
      sum("request_queue_time_seconds") + sum("request_prefill_time_seconds") + sum("request_decode_time_seconds");
    const rest = sum("e2e_request_latency_seconds") - parts;
    expect(rest).toBeGreaterThanOrEqual(0);
    expect(rest).toBeLessThan(0.5);
    expect(sum("request_inference_time_seconds")).toBeCloseTo(
      sum("request_prefill_time_seconds") + sum("request_decode_time_seconds"),
      9,
    );
    // Steps hold each prompt token and each token fed back: the last one of a sequence never is.
    expect(sum("iteration_tokens_total")).toBe(9 + 33);
    expect(grown("graft_iteration_tokens_total_count")).toBe(grown("graft_engine_steps_total"));
  });

  test("a text that ends at a stop string is counted with its times too", async () => {
    const whole = await server.send("POST", "/v1/completions", {
      prompt: [40, 41, 42],
      max_tokens: 12,
      ignore_eos: true,
      temperature: 0,
    });
    const { choices } = (await whole.json()) as { choices: { text: string }[] };
    const stop = choices[0]!.text.slice(0, 1);
    await server.send("POST", "/v1/completions", { prompt: [40, 41, 42], temperature: 0, ignore_eos: true, stop });
    const samples = await scrape();
    for (const name of ["queue", "prefill", "decode", "inference"]) {
      expect(one(samples, `graft_request_${name}_time_seconds_count`)).toBe(2);
    }
    expect(one(samples, "graft_e2e_request_latency_seconds_count")).toBe(2);
  });
});

describe("with a scripted engine", () => {
  beforeEach(async () => {
    server = await testServer();
  });

  test("bounds are vLLM's", async () => {
    await server.send("POST", "/v1/completions", { prompt: "ab" });
    const samples = await scrape();
    const first = bounds(samples, "graft_time_to_first_token_seconds");
    expect(first).toHaveLength(22 + 1);
    expect([first[0], first[21]]).toEqual([0.001, 2560]);
    const token = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80];
    for (const name of ["graft_inter_token_latency_seconds", "graft_request_time_per_output_token_seconds"]) {
      expect(bounds(samples, name).filter((le) => le >= 0.01)).toEqual([...token, Number.POSITIVE_INFINITY]);
    }
    const request = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680];
    for (const part of ["e2e_request_latency", "request_queue_time", "request_prefill_time", "request_decode_time"]) {
      expect(bounds(samples, `graft_${part}_seconds`).slice(0, -1)).toEqual(request);
    }
    expect(bounds(samples, "graft_request_prompt_tokens").slice(0, -1)).toEqual([1, 2, 5, 10, 20, 50]);
    expect(bounds(samples, "graft_request_params_n").slice(0, -1)).toEqual([1, 2, 5, 10, 20]);
    const steps = bounds(samples, "graft_iteration_tokens_total");
    expect(steps).toEqual([
      ...Array.from({ length: 15 }, (_, i) => 2 ** i).filter((n) => n !== 2 && n !== 4),
      Infinity,
    ]);
    const cumulative = (le: string) => samples.get(`graft_iteration_tokens_total_bucket{le="${le}",model_name="tiny"}`);
    expect(["1", "8", "+Inf"].map(cumulative)).toEqual([1, 3, 3]);
  });

  test("gauges and counters of the engine are there, with settings as labels", async () => {
    const samples = await scrape();
    const names = [
      "num_requests_running",
      "num_requests_waiting",
      "kv_cache_usage_perc",
      "kv_cache_bytes",
      "state_bytes",
      "prefix_cache_bytes",
      "weight_bytes",
      "prefix_cache_queries_total",
      "prefix_cache_hits_total",
      "num_preemptions_total",
      "engine_restarts_total",
      "engine_up",
    ];
    for (const name of names) expect([name, one(samples, `graft_${name}`) !== undefined]).toEqual([name, true]);
    const info = [...samples.keys()].find((key) => key.startsWith("graft_cache_config_info"));
    expect(info).toContain('page_size="32"');
    expect(info).toContain('max_sequences="4"');
  });

  test("docs/operation.md names each of them, and none that is not there", async () => {
    await server.send("POST", "/v1/completions", { prompt: "ab" });
    await server.get("/nowhere");
    server.store.jobs.add({ id: "job-1", kind: "search", origin: "terminal", args: [], subject: {} });
    const text = await (await server.get("/metrics")).text();
    const shown = [...text.matchAll(/^# TYPE (graft_\w+) /gm)].map((match) => match[1]!);
    const page = readFileSync(resolve(import.meta.dir, "../../docs/operation.md"), "utf8");
    const told = new Set([...page.matchAll(/`(graft_\w+)(?:\{[\w,]+\})?`/g)].map((match) => match[1]!));
    expect([...told].filter((name) => !shown.includes(name))).toEqual([]);
    // What only helps to look into a defect is not in the table.
    const details = /^graft_(last_step_|step_seconds|engine_steps|scored_tokens|sequences_finished|prefix_cache_)/;
    expect(shown.filter((name) => !told.has(name) && !details.test(name))).toEqual([]);
  });

  test("errors are counted by code, in a stream too", async () => {
    await server.send("POST", "/v1/completions", { prompt: 5 });
    await server.get("/nowhere");
    server.engine.full = true;
    await server.send("POST", "/v1/completions", { prompt: "x" });
    const samples = await scrape();
    expect(samples.get('graft_http_errors_total{code="invalid_value"}')).toBe(1);
    expect(samples.get('graft_http_errors_total{code="not_found"}')).toBe(1);
    expect(samples.get('graft_http_errors_total{code="rate_limit_exceeded"}')).toBe(1);
    expect(samples.get('graft_http_requests_total{method="GET",route="unknown",status="404"}')).toBe(1);
  });

  test("no client makes series: not by paths, names, methods or a thousand hybrids", async () => {
    const ask = async () => {
      await server.send("POST", "/v1/completions", { prompt: "x" });
      await server.send("POST", "/v1/completions", { prompt: "x", model: "nope" });
      await server.get("/nope");
      await server.handle(new Request("http://localhost/nope", { method: "BREW" }));
    };
    await ask();
    await scrape();
    const before = (await scrape()).size;
    for (let i = 0; i < 40; i++) {
      await server.get(`/v1/models/x${i}`);
      await server.get(`/nope/${i}`);
      await server.send("POST", "/v1/completions", { prompt: "x", model: `nope${i}` });
      await server.handle(new Request("http://localhost/nope", { method: `BREW${i}` }));
    }
    // One more series: the pattern of /v1/models/:model with 404.
    expect((await scrape()).size).toBe(before + 1);
    for (let i = 0; i < 1000; i++) server.context.metrics.requests.accepted(`tiny:h${i}`, 1, 1);
    const models = [...(await scrape()).keys()].filter((key) => key.startsWith("graft_request_params_n_count"));
    expect(models.length).toBeLessThanOrEqual(257);
  });
});
