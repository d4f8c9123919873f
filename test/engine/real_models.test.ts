// Real pretrained models through the engine against references computed in float64 elsewhere.
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { openEngine } from "../../src/engine/load.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";

const data = resolve(process.env.GRAFT_DATA ?? "../shared/data");
if (!existsSync(data)) console.error(`skipped: no ${data} (set GRAFT_DATA)`);

interface Reference {
  greedy: {
    prompt_ids: number[];
    new_ids: number[];
    logits: { predicts_new_token: number; top10: { id: number; logit: number }[] }[];
  }[];
  fixed_text: { ids: number[]; log_probs_of_ids_1_to_end: number[]; perplexity: number };
  eval: { perplexity: number; predicted_tokens: number };
}

for (const name of ["tiny1m", "stories260k", "babyllama105"]) {
  const modelDir = join(data, name);
  describe.skipIf(!existsSync(modelDir))(name, () => {
    const reference = () => JSON.parse(readFileSync(join(modelDir, "reference.json"), "utf8")) as Reference;

    test("greedy continuations equal the reference, together in one batch, with its log-probability differences", async () => {
      const { engine, close } = await openEngine({ modelDir });
      const { greedy } = reference();
      const results = engine.generate(
        greedy.map(({ prompt_ids, new_ids }) => ({ promptIds: prompt_ids, maxTokens: new_ids.length, logprobs: 10 })),
      );
      results.forEach((result, i) => {
        const { new_ids, logits } = greedy[i]!;
        expect(result.tokenIds).toEqual(new_ids);
        expect(result.finishReason).toBe("length");
        for (const { predicts_new_token, top10 } of logits) {
          const top = result.topLogprobs![predicts_new_token]!;
          expect(top.map(({ id }) => id)).toEqual(top10.map(({ id }) => id));
          top.forEach(({ logprob }, k) => {
            expect(Math.abs(top[0]!.logprob - logprob - (top10[0]!.logit - top10[k]!.logit))).toBeLessThan(1e-3);
          });
        }
      });
      close();
    });

    test("log-probabilities of the fixed text equal the reference", async () => {
      const { engine, close } = await openEngine({ modelDir, maxBatchTokens: 100 });
      const { ids, log_probs_of_ids_1_to_end: expected, perplexity } = reference().fixed_text;
      const [result] = engine.score([{ contextIds: ids.slice(0, 1), continuationIds: ids.slice(1) }]);
      const logprobs = [...result!.logprobs];
      expect(Math.max(...logprobs.map((value, i) => Math.abs(value - expected[i]!)))).toBeLessThan(1e-3);
      expect(Math.exp(-mean(logprobs))).toBeCloseTo(perplexity, 3);
      close();
    });

    test("perplexity of the evaluation texts equals the reference", async () => {
      const { engine, close } = await openEngine({ modelDir });
      const tokenizer = Tokenizer.load(modelDir)!;
      const texts = (JSON.parse(readFileSync(join(data, "text", "tinystories_1000.json"), "utf8")) as string[])
        .slice(0, 100)
        .filter((text) => [...text].every((char) => char.charCodeAt(0) < 128));
      const rows = texts.map((text) => tokenizer.encode(text).slice(0, engine.info.maxContext));
      const results = engine.score(rows.map((ids) => ({ contextIds: ids.slice(0, 1), continuationIds: ids.slice(1) })));
      const logprobs = results.flatMap((result) => [...result.logprobs]);
      const { perplexity, predicted_tokens } = reference().eval;
      expect(logprobs.length).toBe(predicted_tokens);
      expect(Math.exp(-mean(logprobs))).toBeCloseTo(perplexity, 3);
      close();
    }, 60_000);
  });
}

const sort = join(data, "gpt-nano-sort");
test.skipIf(!existsSync(sort))("gpt-nano-sort sorts all 729 inputs", async () => {
  const { engine, close } = await openEngine({ modelDir: sort });
  const inputs = Array.from({ length: 729 }, (_, n) => Array.from({ length: 6 }, (_, i) => Math.floor(n / 3 ** i) % 3));
  const results = engine.generate(inputs.map((promptIds) => ({ promptIds, maxTokens: 6 })));
  expect(results.map((result) => result.tokenIds)).toEqual(inputs.map((input) => [...input].sort()));
  close();
});

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}
