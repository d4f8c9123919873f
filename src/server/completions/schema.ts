// The body of POST /v1/completions.

import { type Static, t } from "elysia";
import { integer } from "../fields.ts";
import { MAX_CHOICES, type NeutralValues, samplingFields } from "../sampling_schema.ts";
import { formatFields } from "../structured_outputs.ts";

const ids = t.Array(integer(0, 2 ** 31 - 1), { minItems: 1 });

export const completionBody = t.Object(
  {
    ...samplingFields,
    ...formatFields,
    prompt: t.Union(
      [
        t.String(),
        t.Array(t.String(), { minItems: 1, maxItems: 128 }),
        ids,
        t.Array(ids, { minItems: 1, maxItems: 128 }),
      ],
      {
        expected: "a text, a list of texts, a list of token ids, or a list of such lists (none empty, at most 128)",
      },
    ),
    max_tokens: t.Optional(integer(0, 2 ** 31 - 1, "Most tokens to generate, default 16; 0 only with echo")),
    echo: t.Optional(
      t.Boolean({ description: "Put the prompt in front of each text, and its log-probabilities before the text's" }),
    ),
    logprobs: t.Optional(integer(0, 20, "Log-probability of each token, and of this many most likely ones")),
    best_of: t.Optional(integer(1, MAX_CHOICES, "Generate this many, answer the n with the best mean log-probability")),
    suffix: t.Optional(t.Unknown({ description: "Only empty" })),
  },
  { additionalProperties: false },
);

export type CompletionBody = Static<typeof completionBody>;

/** Refused unless neutral. */
export const completionNeutral: NeutralValues = { suffix: [""] };
