// The body of POST /v1/responses.

import { type Static, t } from "elysia";
import { ignored, integer, oneOf, text } from "../fields.ts";
import { type NeutralValues, samplingFields } from "../sampling_schema.ts";
import { textFormat } from "../structured_outputs.ts";
import { choiceWords, functionFields, MAX_TOOLS } from "../tools/schema.ts";

const MAX_ITEMS = 4096;
const MAX_PARTS = 256;

const textPart = t.Object(
  {
    type: oneOf(["input_text", "output_text", "text"]),
    text: t.String(),
    annotations: ignored,
    logprobs: ignored,
    parsed: ignored,
  },
  { additionalProperties: false },
);

/** What a former answer held is taken back as it was sent. */
const bookkeeping = { id: t.Optional(text(256)), status: ignored } as const;

const message = t.Object(
  {
    type: t.Optional(t.Literal("message")),
    role: oneOf(["system", "developer", "user", "assistant"]),
    content: t.Union([t.String(), t.Array(textPart, { maxItems: MAX_PARTS })]),
    phase: ignored,
    ...bookkeeping,
  },
  { additionalProperties: false },
);

const call = t.Object(
  {
    type: t.Literal("function_call"),
    call_id: text(256),
    name: functionFields.name,
    arguments: t.String(),
    parsed_arguments: ignored,
    ...bookkeeping,
  },
  { additionalProperties: false },
);

const callOutput = t.Object(
  {
    type: t.Literal("function_call_output"),
    call_id: text(256),
    output: t.Union([t.String(), t.Array(textPart, { maxItems: MAX_PARTS })]),
    ...bookkeeping,
  },
  { additionalProperties: false },
);

const item = t.Union([message, call, callOutput], {
  expected: "a message with text, a function_call or a function_call_output",
});

const tool = t.Object(
  {
    ...functionFields,
    type: t.Literal("function", { expected: '"function"' }),
    description: t.Optional(t.Union([t.String(), t.Null()])),
    parameters: t.Optional(t.Union([functionFields.parameters, t.Null()], { expected: "a JSON schema or null" })),
    strict: t.Optional(t.Union([t.Boolean(), t.Null()], { expected: "true, false or null" })),
  },
  { additionalProperties: false },
);

const { n: _n, max_tokens: _max, stream_options: _options, ...shared } = samplingFields;

export const responseBody = t.Object(
  {
    ...shared,
    input: t.Union([t.String(), t.Array(item, { minItems: 1, maxItems: MAX_ITEMS })], {
      expected: `a text or a list of at most ${MAX_ITEMS} items`,
    }),
    instructions: t.Optional(t.String({ description: "A system message in front of the input" })),
    max_output_tokens: t.Optional(integer(1, 2 ** 31 - 1, "Most tokens to generate")),
    text: t.Optional(t.Object({ format: t.Optional(textFormat), verbosity: ignored }, { additionalProperties: false })),
    tools: t.Optional(t.Array(tool, { maxItems: MAX_TOOLS, description: "Functions the model may call" })),
    tool_choice: t.Optional(
      t.Union(
        [
          ...choiceWords,
          t.Object({ type: t.Literal("function"), name: functionFields.name }, { additionalProperties: false }),
        ],
        { expected: 'none, auto, required or { "type": "function", "name": ... }' },
      ),
    ),
    parallel_tool_calls: t.Optional(t.Boolean({ description: "Whether one answer may hold several calls" })),
    include: t.Optional(
      t.Array(oneOf(["message.output_text.logprobs"]), {
        maxItems: 16,
        description: "message.output_text.logprobs adds the tokens' log-probabilities",
      }),
    ),
    top_logprobs: t.Optional(integer(0, 20, "And of this many most likely ones")),
    stream_options: t.Optional(t.Object({ include_obfuscation: ignored }, { additionalProperties: false })),
    truncation: t.Optional(t.Unknown({ description: 'Only "disabled"' })),
    background: t.Optional(t.Unknown({ description: "Only false" })),
    previous_response_id: t.Optional(t.Unknown({ description: "Not supported: nothing is stored" })),
    conversation: t.Optional(t.Unknown({ description: "Not supported: nothing is stored" })),
    prompt: t.Optional(t.Unknown({ description: "Not supported" })),
    max_tool_calls: ignored,
    reasoning: ignored,
  },
  { additionalProperties: false },
);

export type ResponseBody = Static<typeof responseBody>;
export type ResponseItem = Static<typeof item>;

/** Refused unless neutral. */
export const responseNeutral: NeutralValues = {
  truncation: ["disabled"],
  background: [false],
  prompt: [],
};
