// What a prefix hit costs against a cold prefill: the time to the first token of a prompt, then of the same prompt again.
import { randomRequests } from "../../src/bench/serve/prompts.ts";
import { sendRequest } from "../../src/bench/serve/request.ts";
import { distributionOf } from "../../src/bench/statistics.ts";
import { type ServingSubject, withServer } from "./subjects.ts";

/** One line of the table; milliseconds to the first token, medians. */
export interface PrefixRow {
  readonly model: string;
  readonly tokens: number;
  readonly cold: number;
  readonly hit: number;
  /** Prompt tokens that the hit took from the cache. */
  readonly cachedTokens: number;
  /** hit / cold */
  readonly share: number;
}

const HITS = 3;

export async function measurePrefix(
  subject: ServingSubject,
  cases: readonly { readonly tokens: number; readonly repeats: number }[],
): Promise<PrefixRow[]> {
  return withServer(subject, async (target, vocabSize) => {
    const rows: PrefixRow[] = [];
    let seed = 100;
    for (const model of [subject.name, `${subject.name}:gdn-half`, `${subject.name}:gdn-all`]) {
      for (const { tokens, repeats } of cases) {
        const [cold, hit]: [number[], number[]] = [[], []];
        let cachedTokens = 0;
        for (let r = 0; r < repeats; r++) {
          const lengths = { input: tokens, output: 2, rangeRatio: 0, prefix: 0, vocabSize };
          const [request] = randomRequests(1, [model], lengths, seed++);
          const ask = async () => {
            const record = await sendRequest(target, request!, { ignoreEos: true, temperature: 0 });
            if (record.failure !== null) throw new Error(`${model}, ${tokens} tokens: ${record.failure}`);
            return record;
          };
          cold.push((await ask()).ttft);
          for (let h = 0; h < HITS; h++) {
            const record = await ask();
            hit.push(record.ttft);
            cachedTokens = record.cachedTokens;
          }
        }
        const medians = { cold: distributionOf(cold)!.median, hit: distributionOf(hit)!.median };
        rows.push({ model, tokens, ...medians, cachedTokens, share: medians.hit / medians.cold });
      }
    }
    return rows;
  });
}
