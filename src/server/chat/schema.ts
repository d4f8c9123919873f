// The body of POST /v1/chat/completions.

import { type Static, t } from "elysia";
import { ignored, integer, oneOf } from "../fields.ts";
import { type NeutralValues, samplingFields } from "../sampling_schema.ts";
import { formatFields } from "../structured_outputs.ts";
import { historyCall, MAX_TOOLS, toolFields } from "../tools/schema.ts";

export const MAX_MESSAGES = 4096;
const MAX_PARTS = 256;

const part = t.Object(
  { type: t.Literal("text", { expected: '"text"' }), text: t.String() },
  { additionalProperties: false },
);

/** One message, as it is taken from clients. */
export const message = t.Object(
  {
    role: oneOf(["system", "developer", "user", "assistant", "tool", "function"]),
    content: t.Optional(
      t.Union([t.String(), t.Array(part, { minItems: 1, maxItems: MAX_PARTS }), t.Null()], {
        expected: `a text or a list of at most ${MAX_PARTS} parts of type "text"`,
      }),
    ),
    tool_calls: t.Optional(t.Array(historyCall, { maxItems: MAX_TOOLS })),
    name: t.Optional(t.String({ maxLength: 256 })),
    tool_call_id: t.Optional(t.String({ maxLength: 256 })),
    refusal: ignored,
    parsed: ignored,
    annotations: ignored,
  },
  { additionalProperties: false },
);

export const chatBody = t.Object(
  {
    ...samplingFields,
    ...formatFields,
    messages: t.Array(message, { minItems: 1, maxItems: MAX_MESSAGES }),
    max_completion_tokens: t.Optional(integer(1, 2 ** 31 - 1, "The newer name of max_tokens")),
    logprobs: t.Optional(t.Boolean({ description: "Log-probability of each token" })),
    top_logprobs: t.Optional(integer(0, 20, "And of this many most likely ones; needs logprobs")),
    ...toolFields,
    functions: t.Optional(t.Unknown({ description: "Only empty" })),
    function_call: t.Optional(t.Unknown({ description: "Only none" })),
    modalities: t.Optional(t.Unknown({ description: 'Only ["text"]' })),
    audio: t.Optional(t.Unknown({ description: "Not supported" })),
    prediction: t.Optional(t.Unknown({ description: "Not supported" })),
    web_search_options: t.Optional(t.Unknown({ description: "Not supported" })),
  },
  { additionalProperties: false },
);

export type ChatBody = Static<typeof chatBody>;

/** Refused unless neutral. */
export const chatNeutral: NeutralValues = {
  functions: [[]],
  function_call: ["none"],
  modalities: [["text"]],
  audio: [],
  prediction: [],
  web_search_options: [],
};
