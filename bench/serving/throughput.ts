// Throughput and latencies at growing concurrency, the share of a step outside kernels, events per second.
import { figuresOf, type LoadFigures } from "../../src/bench/serve/figures.ts";
import { runLoad } from "../../src/bench/serve/load.ts";
import { randomRequests } from "../../src/bench/serve/prompts.ts";
import { type EngineWork, readStats, workBetween } from "../../src/bench/serve/server_stats.ts";
import { type ServingSubject, withServer } from "./subjects.ts";

/** One line of the table. */
export interface ThroughputRow {
  readonly model: string;
  readonly concurrency: number;
  readonly figures: LoadFigures;
  readonly server: EngineWork;
}

const settings = { ignoreEos: true, temperature: 0 };

/** @param rounds requests of a run, in multiples of the concurrency */
export async function measureThroughput(
  subject: ServingSubject,
  concurrencies: readonly number[],
  rounds: (concurrency: number) => number,
): Promise<ThroughputRow[]> {
  return withServer(subject, async (target, vocabSize) => {
    const rows: ThroughputRow[] = [];
    let seed = 1;
    for (const model of [subject.name, `${subject.name}:gdn-half`]) {
      for (const concurrency of concurrencies) {
        const lengths = { input: subject.input, output: subject.output, rangeRatio: 0, prefix: 0, vocabSize };
        const load = async (count: number) => {
          const requests = randomRequests(count, [model], lengths, seed++);
          const plan = { requests, arrivals: requests.map(() => 0), maxConcurrency: concurrency, settings };
          return runLoad(target, plan, () => {});
        };
        await load(Math.min(concurrency, 32));
        const before = await readStats(target);
        const result = await load(concurrency * rounds(concurrency));
        const server = workBetween(before, await readStats(target), result.seconds)!;
        const figures = figuresOf(result, {});
        if (figures.failed > 0) throw new Error(`${model}: ${JSON.stringify(figures.failures)}`);
        rows.push({ model, concurrency, figures, server });
      }
    }
    return rows;
  });
}
