// graft bench serve: throughput and latencies of a running server as its clients see them. Opens the target and goes through
// the runs; sending and counting are in src/bench/serve.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { figuresOf, type LoadFigures, type Objectives } from "../bench/serve/figures.ts";
import { runLoad } from "../bench/serve/load.ts";
import {
  arrivals,
  type DatasetPrompt,
  datasetRequests,
  type RandomLengths,
  randomRequests,
  readDataset,
} from "../bench/serve/prompts.ts";
import type { PlannedRequest, Target } from "../bench/serve/request.ts";
import { readStats, type ServerStats, workBetween } from "../bench/serve/server_stats.ts";
import { Store } from "../store/database.ts";
import { writeFileAtomically } from "../store/files.ts";
import { countsIn } from "./bench_models.ts";
import { writeRandom } from "./bench_random.ts";
import { objectivesIn, SERVE_BENCH_FLAGS, type ServeBenchFlags } from "./bench_serve_flags.ts";
import { formatServeRows, type ServeRow } from "./bench_serve_table.ts";
import { defineCommand } from "./command.ts";
import { UsageError } from "./config.ts";
import { TerminalReporter } from "./progress.ts";
import { serveChild } from "./served_child.ts";

const FALLBACK_VOCAB = 32_000;
const MOST_WARMUP = 64;
/** Connections that fetch opens at once; beyond it a request would wait unseen, and its times with it. */
const MOST_CONNECTIONS = 256;

export const benchServeCommand = defineCommand(
  {
    name: "bench serve",
    summary: "Throughput and latencies of a running server (TTFT, TPOT, ITL, E2E)",
    positionals: ["[MODEL]", "[-- SERVE_FLAGS...]"],
    flags: SERVE_BENCH_FLAGS,
    details: `Drives the server at --url, or one that it starts with MODEL or --shape and the flags of graft serve behind "--". Every
request is a streamed /v1/completions. Random prompts differ between requests, runs and repeats (each has a seed of its
own), so that the prefix cache is not measured by accident; "cached" counts prompt tokens that it gave all the same. A
request counts as failed unless its stream ends whole, with as many tokens as asked for. TPOT = (E2E - TTFT) / (tokens - 1),
ITL = gaps between deliveries, "client" = processor time of this program, as a share of one core, "outside kernels" = share
of the engine's steps, where the server runs with --time-kernels. Exit status 1 where an answer was wrong; refusals (429,
503) only count.`,
    examples: [
      "graft bench serve ./Qwen2.5-1.5B --max-concurrency 1,8,32 --random-input-len 512 --random-output-len 128",
      "graft bench serve --shape smollm2-135m --max-concurrency 32 -- --max-batch-tokens 256",
      "graft bench serve --url http://127.0.0.1:8000 --model tiny,tiny:recall --request-rate 20 --goodput ttft:200,itl:50",
    ],
  },
  async ({ flags, positionals }) => {
    const objectives = objectivesIn(flags.goodput);
    const loads = loadsOf(flags);
    const dataset = flags.dataset === undefined ? null : readDataset(flags.dataset);
    const opened = await openTarget(positionals, flags);
    const progress = new TerminalReporter();
    try {
      const source = await requestSource(opened.target, dataset, flags);
      const rows: ServeRow[] = [];
      // Two seeds a run: what warmed up must not be asked again.
      let seed = flags.seed;
      for (const load of loads) {
        for (let repeat = 0; repeat < flags.repeats; repeat++, seed += 2) {
          const onProgress = (done: number) =>
            progress.progress(done, load.numPrompts, "requests", { load: load.name });
          rows.push(await runOne(opened.target, load, source, flags, { seed, objectives, onProgress }));
        }
      }
      progress.close();
      if (flags.save !== undefined) save(flags.save, opened.target, rows);
      process.stdout.write(formatServeRows(rows, flags.output));
      return rows.some(isWrong) ? 1 : 0;
    } finally {
      progress.close();
      await opened.close();
    }
  },
);

/** Where the requests of a run come from. */
interface RequestSource {
  readonly models: readonly string[];
  requests(count: number, seed: number): PlannedRequest[];
}

async function requestSource(
  target: Target,
  dataset: readonly DatasetPrompt[] | null,
  flags: ServeBenchFlags,
): Promise<RequestSource> {
  const stats = await readStats(target);
  const models = flags.model?.split(",") ?? [await firstModel(target, stats)];
  const lengths = {
    input: flags["random-input-len"],
    output: flags["random-output-len"],
    rangeRatio: flags["random-range-ratio"],
    prefix: flags["random-prefix-len"],
    vocabSize: flags["vocab-size"] ?? stats?.info.vocabSize ?? FALLBACK_VOCAB,
  };
  if (dataset === null && stats !== null) requireContext(lengths, stats.info.maxContext);
  return {
    models,
    requests: (count, seed) =>
      dataset === null
        ? randomRequests(count, models, lengths, seed)
        : datasetRequests(count, models, dataset, lengths.output, seed),
  };
}

/** @throws UsageError where the longest request of these lengths would be refused */
function requireContext({ input, output, rangeRatio, prefix }: RandomLengths, maxContext: number): void {
  const longest = prefix + Math.round(input * (1 + rangeRatio)) + Math.round(output * (1 + rangeRatio));
  if (longest <= maxContext) return;
  throw new UsageError(`Prompt and answer have up to ${longest} tokens, the server's context holds ${maxContext}`);
}

async function runOne(
  target: Target,
  { name, maxConcurrency, rate, numPrompts, numWarmup }: Load,
  source: RequestSource,
  flags: ServeBenchFlags,
  run: { readonly seed: number; readonly objectives: Objectives; readonly onProgress: (done: number) => void },
): Promise<ServeRow> {
  const common = { maxConcurrency, settings: { ignoreEos: flags["ignore-eos"], temperature: flags.temperature } };
  const warm = { requests: source.requests(numWarmup, run.seed), arrivals: arrivals(numWarmup, Infinity, 1, run.seed) };
  await runLoad(target, { ...common, ...warm }, () => {});
  const seed = run.seed + 1;
  const requests = source.requests(numPrompts, seed);
  const times = arrivals(numPrompts, rate, flags.burstiness, seed);
  const before = await readStats(target);
  const result = await runLoad(target, { ...common, requests, arrivals: times }, run.onProgress);
  const server = workBetween(before, await readStats(target), result.seconds);
  const labels = { load: name, models: source.models.join(","), prompts: promptsText(flags), seed };
  return { ...labels, ...figuresOf(result, run.objectives), server };
}

interface Load {
  readonly name: string;
  readonly maxConcurrency: number;
  readonly rate: number;
  readonly numPrompts: number;
  readonly numWarmup: number;
}

function loadsOf(flags: ServeBenchFlags): Load[] {
  const rate = flags["request-rate"] ?? Number.POSITIVE_INFINITY;
  const rated = rate < Number.POSITIVE_INFINITY;
  const given = flags["max-concurrency"] === undefined ? null : countsIn("max-concurrency", flags["max-concurrency"]);
  const tooMany = given?.find((limit) => limit > MOST_CONNECTIONS);
  if (tooMany !== undefined) {
    throw new UsageError(`Invalid value for --max-concurrency: "${tooMany}", expected at most ${MOST_CONNECTIONS}`);
  }
  return (given ?? [rated ? MOST_CONNECTIONS : 8]).map((maxConcurrency) => {
    const limited = given !== null || !rated;
    const parts = [...(limited ? [`c=${maxConcurrency}`] : []), ...(rated ? [`${rate}/s`] : [])];
    return {
      name: parts.join(" "),
      maxConcurrency,
      rate,
      numPrompts: flags["num-prompts"] ?? Math.max(32, limited ? 8 * maxConcurrency : Math.ceil(30 * rate)),
      numWarmup: flags.warmup ?? Math.min(MOST_WARMUP, limited ? maxConcurrency : 1),
    };
  });
}

function promptsText(flags: ServeBenchFlags): string {
  if (flags.dataset !== undefined) return flags.dataset;
  const { "random-input-len": input, "random-output-len": output, "random-range-ratio": ratio } = flags;
  const prefix = flags["random-prefix-len"];
  return `${prefix > 0 ? `${prefix}+` : ""}${input}/${output}${ratio > 0 ? ` ±${100 * ratio}%` : ""}`;
}

/** The server at --url, or one that ends with this command. */
async function openTarget(positionals: readonly string[], flags: ServeBenchFlags) {
  const [model, ...words] = positionals;
  const given = [flags.url, flags.shape, flags.shape === undefined ? model : undefined].filter(
    (one) => one !== undefined,
  );
  if (given.length !== 1) throw new UsageError("Name one server to measure: MODEL, --shape NAME or --url URL");
  if (flags.url !== undefined) {
    const target: Target = {
      url: flags.url.replace(/\/+$/, "").replace(/\/v1$/, ""),
      apiKey: flags["api-key"] ?? null,
    };
    return { target, close: async () => {} };
  }
  if (flags.shape === undefined) {
    const place = flags["data-dir"] === undefined ? [] : ["--data-dir", flags["data-dir"]];
    const child = await serveChild([model!, ...words, ...place]);
    return { target: { url: child.url, apiKey: null }, close: child.stop };
  }
  const folder = mkdtempSync(join(tmpdir(), "graft-bench-"));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  try {
    const place = join(folder, "data");
    drawShape(place, join(folder, flags.shape), flags);
    const child = await serveChild([flags.shape, ...positionals, "--data-dir", place]);
    return { target: { url: child.url, apiKey: null }, close: () => child.stop().finally(remove) };
  } catch (error) {
    remove();
    throw error;
  }
}

function drawShape(place: string, folder: string, flags: ServeBenchFlags): void {
  const store = Store.open(place);
  try {
    const needed = flags["random-prefix-len"] + 2 * (flags["random-input-len"] + flags["random-output-len"]);
    writeRandom(store, folder, {
      shape: flags.shape,
      model: undefined,
      variant: ["gdn"],
      "max-context": Math.max(8192, 2 ** Math.ceil(Math.log2(needed))),
      seed: 1,
    });
  } finally {
    store.close();
  }
}

async function firstModel(target: Target, stats: ServerStats | null): Promise<string> {
  if (stats !== null) return stats.backbone;
  const headers: Record<string, string> = target.apiKey === null ? {} : { authorization: `Bearer ${target.apiKey}` };
  const response = await fetch(`${target.url}/v1/models`, { headers });
  const { data } = (await response.json()) as { data?: readonly { id: string }[] };
  const first = data?.[0]?.id;
  if (first === undefined) throw new Error(`Cannot tell what ${target.url} serves: name it with --model`);
  return first;
}

/** A refusal is an answer to overload; everything else that failed is not. */
function isWrong({ successful, failures }: LoadFigures): boolean {
  return successful === 0 || Object.keys(failures).some((reason) => !/^http (429|503)/.test(reason));
}

function save(path: string, target: Target, rows: readonly ServeRow[]): void {
  const made = { date: new Date().toISOString(), url: target.url, client: process.argv.slice(2), runs: rows };
  writeFileAtomically(path, `${JSON.stringify(made, null, 2)}\n`);
}
