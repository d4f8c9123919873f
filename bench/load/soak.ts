// Everything at once for minutes: streams, whole answers, clients that leave, swaps, scores, long prompts, bad requests. What
// the server holds must not grow, its speed must not fall, and every answer must be of the kind that its request deserves.
//   bun bench/load/soak.ts [MINUTES=20]
import { sendRequest } from "../../src/bench/serve/request.ts";
import { CounterRandom } from "../../src/tensor/random.ts";
import { cutRequest, postBytes } from "./cut_request.ts";
import { type Held, heldAfter, heldBy, type LoadServer, post, startLoadServer } from "./load_server.ts";

/** One look at the server. */
export interface SoakSample {
  readonly seconds: number;
  readonly residentBytes: number;
  readonly openFiles: number;
  readonly generatedTokens: number;
}

/** What a soak has shown. */
export interface SoakReport {
  readonly minutes: number;
  /** Finished pieces of work by kind. */
  readonly work: Readonly<Record<string, number>>;
  /** Answers that were not of the kind that the request deserves. */
  readonly unexpected: Readonly<Record<string, number>>;
  readonly tokensPerSecond: number;
  /** Tokens per second of the last third over those of the first third after the warm-up. */
  readonly drift: number;
  /** Resident memory after the warm-up: at its begin, at the end, and the slope of a straight line through it. */
  readonly residentBytes: { readonly begin: number; readonly end: number; readonly bytesPerMinute: number };
  readonly before: Held;
  readonly after: Held;
}

/** Of the time; caches and heaps have their size by then. */
const WARM_UP = 0.25;
const LONG_PROMPT = 3000;
/** Small pools: the prefix cache has filled its part long before the warm-up ends, and then must not grow. */
export const SOAK_FLAGS = ["--kv-memory", "64MiB", "--state-memory", "64MiB"] as const;
const VARIANTS = ["", ":gdn-half", ":gdn-all"];

/** Bad requests and the status that each deserves. */
const BAD: readonly (readonly [path: string, body: unknown, status: number])[] = [
  ["/v1/completions", { prompt: [1], max_tokens: -1 }, 400],
  ["/v1/completions", { prompt: [1e9] }, 400],
  ["/v1/completions", { prompt: "text for a model of ids" }, 400],
  ["/v1/completions", { model: "nobody", prompt: [1] }, 404],
  ["/v1/chat/completions", { messages: "none" }, 400],
  ["/v1/embeddings", { input: "x" }, 501],
  ["/v1/nowhere", {}, 404],
];

/** Runs for `minutes`; `onMinute` sees a sample a minute. */
export async function runSoak(
  server: LoadServer,
  minutes: number,
  onMinute: (sample: SoakSample, soak: Soak) => void = () => {},
): Promise<SoakReport> {
  const soak = new Soak(server);
  const before = await heldBy(server);
  const samples: SoakSample[] = [];
  const started = performance.now();
  const end = started + minutes * 60_000;
  const sampler = (async () => {
    const every = Math.min(1000, (minutes * 60_000) / 40);
    for (let nextMinute = 60; performance.now() < end; await Bun.sleep(every)) {
      const { engine } = await server.stats();
      const seconds = (performance.now() - started) / 1000;
      const held = { residentBytes: server.residentBytes(), openFiles: server.openFiles() };
      samples.push({ seconds, ...held, generatedTokens: engine.generatedTokens });
      if (seconds < nextMinute) continue;
      nextMinute += 60;
      onMinute(samples.at(-1)!, soak);
    }
  })();
  await soak.run(end);
  await sampler;
  const after = await heldAfter(server, before);
  const steady = samples.filter(({ seconds }) => seconds >= WARM_UP * 60 * minutes);
  const third = Math.floor(steady.length / 3);
  return {
    minutes,
    work: soak.work,
    unexpected: soak.unexpected,
    tokensPerSecond: rate(steady),
    drift: rate(steady.slice(-third - 1)) / rate(steady.slice(0, third + 1)),
    residentBytes: {
      begin: steady[0]!.residentBytes,
      end: steady.at(-1)!.residentBytes,
      bytesPerMinute: 60 * slope(steady.map(({ seconds, residentBytes }) => [seconds, residentBytes])),
    },
    before,
    after,
  };
}

/** Tokens per second between the first and the last of some samples. */
function rate(samples: readonly SoakSample[]): number {
  const [first, last] = [samples[0]!, samples.at(-1)!];
  return (last.generatedTokens - first.generatedTokens) / (last.seconds - first.seconds);
}

/** Of the straight line through points with the least squares. */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (of: 0 | 1) => points.reduce((sum, point) => sum + point[of], 0) / points.length;
  const [mx, my] = [mean(0), mean(1)];
  const covariance = points.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0);
  return covariance / points.reduce((sum, [x]) => sum + (x - mx) ** 2, 0);
}

/** The workers of a soak and what they have counted. */
export class Soak {
  readonly work: Record<string, number> = {};
  readonly unexpected: Record<string, number> = {};
  readonly #server: LoadServer;
  readonly #random = new CounterRandom(5);
  #drawn = 0;

  constructor(server: LoadServer) {
    this.#server = server;
  }

  /** Every kind of work side by side until `end` on the monotonic clock. */
  async run(end: number): Promise<void> {
    const masks = await this.#masks();
    const repeat = async (kind: string, pauseMs: number, body: () => Promise<string | null>) => {
      while (performance.now() < end) {
        const wrong = await body();
        this.work[kind] = (this.work[kind] ?? 0) + 1;
        if (wrong !== null) this.unexpected[`${kind}: ${wrong}`] = (this.unexpected[`${kind}: ${wrong}`] ?? 0) + 1;
        if (pauseMs > 0) await Bun.sleep(pauseMs);
      }
    };
    const times = <T>(count: number, make: () => T) => Array.from({ length: count }, make);
    await Promise.all([
      ...times(6, () => repeat("stream", 0, () => this.#stream(this.#below(200), 1 + this.#below(120)))),
      ...times(2, () => repeat("whole", 0, () => this.#whole())),
      ...times(3, () => repeat("leave", 0, () => this.#leave())),
      repeat("score", 20, () => this.#score()),
      repeat("long prompt", 500, () => this.#stream(LONG_PROMPT, 8)),
      repeat("swap", 50, () => this.#swap(masks)),
      repeat("bad", 20, () => this.#bad()),
    ]);
  }

  async #masks(): Promise<string[][]> {
    const response = await fetch(`${this.#server.url}/v1/hybrids`, { keepalive: false });
    const { data } = (await response.json()) as { data: { name: string; layers: string[] }[] };
    return data.filter(({ name }) => name.startsWith("gdn-")).map(({ layers }) => layers);
  }

  async #stream(length: number, maxTokens: number): Promise<string | null> {
    const request = { model: this.#model(), prompt: this.#prompt(length), maxTokens };
    const target = { url: this.#server.url, apiKey: null };
    return (await sendRequest(target, request, { ignoreEos: true, temperature: 1, ownConnection: true })).failure;
  }

  async #whole(): Promise<string | null> {
    const tokens = 1 + this.#below(60);
    const fields = { model: this.#model(), prompt: this.#prompt(this.#below(100)), max_tokens: tokens, n: 2 };
    const { status, body } = await post(this.#server, "/v1/completions", { ...fields, ignore_eos: true, logprobs: 2 });
    const choices = (body as { choices?: { token_ids: number[] }[] }).choices ?? [];
    const complete = choices.length === 2 && choices.every(({ token_ids: ids }) => ids.length === tokens);
    return status === 200 && complete ? null : `status ${status}`;
  }

  async #leave(): Promise<null> {
    const fields = { model: this.#model(), prompt: this.#prompt(this.#below(300)), max_tokens: 200, stream: true };
    const bytes = postBytes(this.#server.url, "/v1/completions", { ...fields, ignore_eos: true });
    const sendBytes = this.#below(4) === 0 ? this.#below(bytes.length) : bytes.length;
    await cutRequest(this.#server.url, bytes, {
      sendBytes,
      receiveBytes: this.#below(20_000),
      reset: this.#below(2) === 0,
    });
    return null;
  }

  async #score(): Promise<string | null> {
    const continuations = [this.#prompt(5), this.#prompt(9), this.#prompt(3)];
    const fields = { model: this.#model(), context: this.#prompt(60), continuations };
    const { status } = await post(this.#server, "/v1/score", fields);
    return status === 200 ? null : `status ${status}`;
  }

  async #swap(masks: readonly string[][]): Promise<string | null> {
    const layers = masks[this.#below(masks.length)];
    const { status } = await post(this.#server, "/v1/hybrids", { name: "swapped", layers });
    return status === 201 ? null : `status ${status}`;
  }

  async #bad(): Promise<string | null> {
    const [path, body, expected] = BAD[this.#below(BAD.length)]!;
    const { status } = await post(this.#server, path, body);
    return status === expected ? null : `${path} ${status}, expected ${expected}`;
  }

  #model(): string {
    return this.#server.backbone + VARIANTS[this.#below(VARIANTS.length)]!;
  }

  /** At least one id. */
  #prompt(length: number): number[] {
    return Array.from({ length: Math.max(1, length) }, () => this.#below(this.#server.vocabSize));
  }

  #below(limit: number): number {
    return Math.floor(this.#random.uniform(this.#drawn++) * limit);
  }
}

if (import.meta.main) {
  const [minutes = "20"] = process.argv.slice(2);
  const server = await startLoadServer(SOAK_FLAGS);
  try {
    const report = await runSoak(
      server,
      Number(minutes),
      ({ seconds, residentBytes, openFiles }, { work, unexpected }) => {
        const mebibytes = (residentBytes / 2 ** 20).toFixed(1);
        console.log(`${(seconds / 60).toFixed(0)} min: ${mebibytes} MiB, ${openFiles} files`, work, unexpected);
      },
    );
    console.log(JSON.stringify(report, null, 2));
    process.exitCode = Object.keys(report.unexpected).length > 0 ? 1 : 0;
  } finally {
    await server.stop();
  }
}
