// What a long prompt costs the streams beside it: gaps between their tokens before it comes, while it is prefilled, and after.
// The streams' own contexts grow meanwhile, so the last of its gaps are held against those right after.
import { randomRequests } from "../../src/bench/serve/prompts.ts";
import { readEvents, sendRequest, type Target } from "../../src/bench/serve/request.ts";
import { type Distribution, distributionOf } from "../../src/bench/statistics.ts";
import { type ServingSubject, withServer } from "./subjects.ts";

/** One line of the table; milliseconds. */
export interface InterferenceRow {
  readonly model: string;
  readonly streams: number;
  readonly promptTokens: number;
  readonly before: Distribution;
  readonly during: Distribution;
  /** Of the last fifth of the prefill, and of the time after it. */
  readonly late: Distribution;
  readonly after: Distribution;
  /** Of the last two medians. */
  readonly ratio: number;
  /** Time to the first token of the long prompt. */
  readonly ttft: number;
}

export async function measureInterference(
  subject: ServingSubject,
  {
    streams,
    promptTokens,
    calmMs,
  }: { readonly streams: number; readonly promptTokens: number; readonly calmMs: number },
): Promise<InterferenceRow[]> {
  return withServer(subject, async (target, vocabSize) => {
    const rows: InterferenceRow[] = [];
    let seed = 200;
    for (const model of [subject.name, `${subject.name}:gdn-half`]) {
      const lengths = { input: 32, output: 20_000, rangeRatio: 0, prefix: 0, vocabSize };
      const leave = new AbortController();
      const arrivals: number[][] = [];
      const running = randomRequests(streams, [model], lengths, seed++).map(({ prompt }, i) => {
        arrivals[i] = [];
        return follow(target, { model, prompt, max_tokens: lengths.output }, arrivals[i], leave.signal);
      });
      while (arrivals.some((times) => times.length < 10)) await Bun.sleep(20);
      const calm = performance.now();
      await Bun.sleep(calmMs);
      const begin = performance.now();
      const [long] = randomRequests(1, [model], { ...lengths, input: promptTokens, output: 2 }, seed++);
      const record = await sendRequest(target, long!, { ignoreEos: true, temperature: 0 });
      const end = begin + record.ttft;
      await Bun.sleep(calmMs);
      leave.abort();
      await Promise.allSettled(running);
      if (record.failure !== null) throw new Error(`${model}, ${promptTokens} tokens: ${record.failure}`);
      const gaps = (from: number, to: number) =>
        distributionOf(arrivals.flatMap((times) => gapsBetween(times, from, to)))!;
      const late = gaps(end - record.ttft / 5, end);
      const after = gaps(end + calmMs / 10, end + calmMs);
      rows.push({
        model,
        streams,
        promptTokens,
        before: gaps(calm, begin),
        during: gaps(begin, end),
        late,
        after,
        ratio: late.median / after.median,
        ttft: record.ttft,
      });
    }
    return rows;
  });
}

/** Notes when each event of a stream comes, until the reader leaves. */
async function follow(target: Target, body: object, times: number[], signal: AbortSignal): Promise<void> {
  const response = await fetch(`${target.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, ignore_eos: true, temperature: 0 }),
    signal,
  });
  await readEvents(response.body!, () => times.push(performance.now()));
}

/** Gaps whose later end lies in the window. */
function gapsBetween(times: readonly number[], from: number, to: number): number[] {
  return times.flatMap((time, i) => (i > 0 && time >= from && time < to ? [time - times[i - 1]!] : []));
}
