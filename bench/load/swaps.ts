// A hybrid's name is redirected again and again while streams run under it. Every stream must be wholly of the hybrid it began
// with, a request after a swap wholly of the new one, and gaps between tokens must stay what they were.
//   bun bench/load/swaps.ts [COUNT=1000] [STREAMS=8]
import { sendRequest } from "../../src/bench/serve/request.ts";
import { type Distribution, distributionOf } from "../../src/bench/statistics.ts";
import { CounterRandom } from "../../src/tensor/random.ts";
import { complete, type LoadServer, post, startLoadServer } from "./load_server.ts";

/** What swapping has shown; gaps in milliseconds. */
export interface SwapReport {
  readonly swaps: number;
  readonly seconds: number;
  /** Streams, and how many of them had tokens that are not those of one hybrid. */
  readonly streams: number;
  readonly wrong: number;
  /** Requests right after a swap, and how many were not of the new hybrid. */
  readonly followers: number;
  readonly late: number;
  /** Streams that failed otherwise, by reason. */
  readonly failures: Readonly<Record<string, number>>;
  /** As long without swaps as with them, on the same streams. */
  readonly normal: Distribution;
  readonly swapping: Distribution;
  readonly p99Ratio: number;
}

const HYBRIDS = ["gdn-half", "gdn-all"] as const;
const PROMPTS = 6;
const TOKENS = 48;
const WARM_UP_MS = 1000;
/** Swaps between two requests that look whether the last one has taken effect. */
const FOLLOW_EVERY = 10;

/** Swaps `count` times. */
export async function runSwaps(server: LoadServer, count: number, streams = 8): Promise<SwapReport> {
  const load = await SwapLoad.open(server);
  await load.swap();
  await load.run(streams, WARM_UP_MS);
  const started = performance.now();
  let done = false;
  const swapping = (async () => {
    try {
      for (let i = 1; i <= count; i++) {
        await load.swap();
        if (i % FOLLOW_EVERY === 0) await load.follow();
      }
    } finally {
      done = true;
    }
  })();
  const [during] = await Promise.all([load.run(streams, Number.POSITIVE_INFINITY, () => done), swapping]);
  const seconds = (performance.now() - started) / 1000;
  const normal = await load.run(streams, 1000 * seconds);
  const [before, after] = [distributionOf(normal.gaps)!, distributionOf(during.gaps)!];
  const { wrong, late, followers, failures } = load;
  const seen = { streams: during.streams + normal.streams, wrong, followers, late, failures };
  return { swaps: count, seconds, ...seen, normal: before, swapping: after, p99Ratio: after.p99 / before.p99 };
}

/** Streams under one name whose meaning changes, and what each of their answers must be. */
class SwapLoad {
  wrong = 0;
  late = 0;
  followers = 0;
  readonly failures: Record<string, number> = {};
  readonly #server: LoadServer;
  readonly #prompts: readonly number[][];
  /** By prompt, then by hybrid: greedy ids as text. */
  readonly #answers: readonly (readonly string[])[];
  readonly #masks: readonly (readonly string[])[];
  #current = 0;

  private constructor(server: LoadServer, prompts: number[][], answers: string[][], masks: string[][]) {
    this.#server = server;
    this.#prompts = prompts;
    this.#answers = answers;
    this.#masks = masks;
  }

  static async open(server: LoadServer): Promise<SwapLoad> {
    const prompts = Array.from({ length: PROMPTS }, (_, p) => {
      const random = new CounterRandom(p);
      return Array.from({ length: 20 + 11 * p }, (_, i) => Math.floor(random.uniform(i) * server.vocabSize));
    });
    const answers: string[][] = [];
    for (const prompt of prompts) {
      const ids = [];
      for (const name of HYBRIDS)
        ids.push((await complete(server, `${server.backbone}:${name}`, prompt, TOKENS)).join());
      answers.push(ids);
    }
    const distinct = answers.filter(([half, all]) => half !== all).length;
    if (distinct < PROMPTS / 2)
      throw new Error(`The hybrids answer alike: ${distinct} of ${PROMPTS} prompts tell them apart`);
    const response = await fetch(`${server.url}/v1/hybrids`, { keepalive: false });
    const { data } = (await response.json()) as { data: { name: string; layers: string[] }[] };
    const masks = HYBRIDS.map((name) => data.find((one) => one.name === name)!.layers);
    return new SwapLoad(server, prompts, answers, masks);
  }

  /** Gives the name its other meaning. */
  async swap(): Promise<void> {
    const next = 1 - this.#current;
    const { status, body } = await post(this.#server, "/v1/hybrids", { name: "swapped", layers: this.#masks[next] });
    if (status !== 201) throw new Error(`Cannot swap: ${status} ${JSON.stringify(body)}`);
    this.#current = next;
  }

  /** One request right after a swap. */
  async follow(): Promise<void> {
    const p = this.followers++ % PROMPTS;
    const ids = await complete(this.#server, this.#model, this.#prompts[p]!, TOKENS);
    if (ids.join() !== this.#answers[p]![this.#current]) this.late++;
  }

  /** Keeps `streams` streams going for a time, or until `ended`. */
  async run(streams: number, milliseconds: number, ended = () => false): Promise<{ streams: number; gaps: number[] }> {
    const gaps: number[] = [];
    const end = performance.now() + milliseconds;
    let next = 0;
    const worker = async () => {
      while (performance.now() < end && !ended()) {
        const p = next++ % PROMPTS;
        const request = { model: this.#model, prompt: this.#prompts[p]!, maxTokens: TOKENS };
        const target = { url: this.#server.url, apiKey: null };
        const record = await sendRequest(target, request, { ignoreEos: true, temperature: 0, keepIds: true });
        gaps.push(...record.gaps);
        if (record.failure !== null) this.failures[record.failure] = (this.failures[record.failure] ?? 0) + 1;
        else if (!this.#answers[p]!.includes(record.ids.join())) this.wrong++;
      }
    };
    await Promise.all(Array.from({ length: streams }, worker));
    return { streams: next, gaps };
  }

  get #model(): string {
    return `${this.#server.backbone}:swapped`;
  }
}

if (import.meta.main) {
  const [count = "1000", streams = "8"] = process.argv.slice(2);
  const server = await startLoadServer();
  try {
    const report = await runSwaps(server, Number(count), Number(streams));
    console.log(JSON.stringify(report, null, 2));
    process.exitCode = report.wrong + report.late + Object.keys(report.failures).length > 0 ? 1 : 0;
  } finally {
    await server.stop();
  }
}
