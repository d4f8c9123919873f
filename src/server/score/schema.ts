// The body of POST /v1/score.

import { type Static, t } from "elysia";
import { integer, text } from "../fields.ts";
import { urgencyFields } from "../sampling_schema.ts";

/** Most continuations of one request. */
const MAX_CONTINUATIONS = 256;

const ids = t.Array(integer(0, 2 ** 31 - 1), { minItems: 1 });

export const scoreBody = t.Object(
  {
    model: t.Optional(text(300, "backbone, backbone:task or an alias; default: the served backbone")),
    context: t.Optional(t.Union([t.String(), ids], { expected: "a text or a list of token ids, not empty" })),
    prompt: t.Optional(
      t.Union([t.String(), ids], {
        expected: "a text or a list of token ids, not empty",
        description: "Another name of context",
      }),
    ),
    continuations: t.Union(
      [
        t.Array(t.String({ minLength: 1 }), { minItems: 1, maxItems: MAX_CONTINUATIONS }),
        t.Array(ids, { minItems: 1, maxItems: MAX_CONTINUATIONS }),
      ],
      { expected: `a list of texts or a list of lists of token ids (none empty, at most ${MAX_CONTINUATIONS})` },
    ),
    ...urgencyFields,
  },
  { additionalProperties: false },
);

export type ScoreBody = Static<typeof scoreBody>;
