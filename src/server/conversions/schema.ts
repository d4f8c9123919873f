// Body of POST /v1/conversions.

import { t } from "elysia";
import { integer, text, variant } from "../fields.ts";

export const conversionBody = t.Object(
  {
    model: t.Optional(text(300, "The backbone; default: the served one")),
    variant,
    data: t.Array(t.String({ minLength: 1, maxLength: 4096 }), {
      minItems: 1,
      maxItems: 1000,
      description: "Text files on the server's machine",
    }),
    tokens: t.Optional(integer(1, Number.MAX_SAFE_INTEGER, "Training tokens")),
    seed: t.Optional(integer(0, 2 ** 31 - 1)),
  },
  { additionalProperties: false },
);
