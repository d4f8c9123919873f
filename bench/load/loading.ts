// A hybrid's counterparts are loaded and given up again and again while streams of the full backbone run: gaps between
// tokens must stay within twice of what they are without.
//   bun bench/load/loading.ts [LOADS=20] [STREAMS=4] [SHAPE=tiny]
import { sendRequest } from "../../src/bench/serve/request.ts";
import { type Distribution, distributionOf } from "../../src/bench/statistics.ts";
import { type LoadServer, post, startLoadServer } from "./load_server.ts";

/** What loading beside streams has shown; gaps in milliseconds. */
export interface LoadingReport {
  readonly loads: number;
  readonly megabytes: number;
  /** Of one load beside the streams. */
  readonly secondsPerLoad: number;
  readonly failures: number;
  readonly normal: Distribution;
  readonly loading: Distribution;
  readonly p99Ratio: number;
}

const TOKENS = 48;
const WARM_UP_MS = 1500;

/** Loads `count` times. */
export async function runLoading(server: LoadServer, count: number, streams = 4): Promise<LoadingReport> {
  let failures = 0;
  const run = async (ended: () => boolean): Promise<number[]> => {
    const gaps: number[] = [];
    const worker = async (stream: number) => {
      const prompt = Array.from({ length: 16 }, (_, i) => (31 * stream + 7 * i) % server.vocabSize);
      while (!ended()) {
        const request = { model: `${server.backbone}:base`, prompt, maxTokens: TOKENS };
        const options = { ignoreEos: true, temperature: 0, keepIds: false };
        const record = await sendRequest({ url: server.url, apiKey: null }, request, options);
        if (record.failure !== null) failures++;
        gaps.push(...record.gaps);
      }
    };
    await Promise.all(Array.from({ length: streams }, (_, stream) => worker(stream)));
    return gaps;
  };
  const lasting = (ms: number) => {
    const end = performance.now() + ms;
    return () => performance.now() > end;
  };
  await run(lasting(WARM_UP_MS));
  let bytes = 0;
  let done = false;
  const started = performance.now();
  const loads = (async () => {
    try {
      for (let i = 0; i < count; i++) {
        const loaded = await post(server, "/v1/hybrids/gdn-all/load", {});
        if (loaded.status !== 200) throw new Error(`Cannot load: ${JSON.stringify(loaded.body)}`);
        bytes = (loaded.body as { loaded_bytes: number }).loaded_bytes;
        await post(server, "/v1/hybrids/gdn-all/unload", {});
      }
    } finally {
      done = true;
    }
  })();
  const [during] = await Promise.all([run(() => done), loads]);
  const milliseconds = performance.now() - started;
  const [normal, loading] = [distributionOf(await run(lasting(milliseconds)))!, distributionOf(during)!];
  return {
    loads: count,
    megabytes: bytes / 1e6,
    secondsPerLoad: milliseconds / 1000 / count,
    failures,
    normal,
    loading,
    p99Ratio: loading.p99 / normal.p99,
  };
}

if (import.meta.main) {
  const [count = "20", streams = "4", shape = "tiny"] = process.argv.slice(2);
  const server = await startLoadServer([], shape);
  try {
    const report = await runLoading(server, Number(count), Number(streams));
    console.log(JSON.stringify(report, null, 2));
    process.exitCode = report.failures > 0 ? 1 : 0;
  } finally {
    await server.stop();
  }
}
