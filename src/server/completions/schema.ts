// The body of POST /v1/completions.

import { type Static, t } from "elysia";
import { integer } from "../fields.ts";
import { type NeutralValues, SHARED_NEUTRAL, samplingFields } from "../sampling_schema.ts";

const ids = t.Array(integer(0, 2 ** 31 - 1), { minItems: 1 });

export const completionBody = t.Object(
  {
    ...samplingFields,
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
    echo: t.Optional(t.Boolean({ description: "Put the prompt in front of each text" })),
    logprobs: t.Optional(integer(0, 20, "Log-probability of each token, and of this many most likely ones")),
    suffix: t.Optional(t.Unknown({ description: "Only empty" })),
    best_of: t.Optional(t.Unknown({ description: "Only 1" })),
  },
  { additionalProperties: false },
);

export type CompletionBody = Static<typeof completionBody>;

/** Refused unless neutral. */
export const completionNeutral: NeutralValues = { ...SHARED_NEUTRAL, suffix: [""], best_of: [1] };
