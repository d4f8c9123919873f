// Body of POST /v1/sessions.

import { t } from "elysia";
import { message } from "../chat/schema.ts";
import { integer, text } from "../fields.ts";

const MAX_IDS = 1 << 22;

/** A prompt whose computed prefix is to be kept: a conversation, a text, or token ids. */
export const sessionBody = t.Object(
  {
    model: t.Optional(text(300, "As in a completion; absent: the default")),
    messages: t.Optional(t.Array(message, { minItems: 1, maxItems: 65_536 })),
    prompt: t.Optional(
      t.Union([t.String({ minLength: 1 }), t.Array(integer(0, 2 ** 31 - 1), { minItems: 1, maxItems: MAX_IDS })]),
    ),
  },
  { additionalProperties: false },
);

export type SessionBody = typeof sessionBody.static;
