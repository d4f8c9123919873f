// The fields by which a request offers tools, and the form of calls in a conversation's history.

import { type Static, t } from "elysia";
import { ignored, text } from "../fields.ts";

/** Most tools of one request, and most calls of one message. */
export const MAX_TOOLS = 128;
const NAME = "^[a-zA-Z0-9_-]{1,64}$";

const functionName = t.String({
  pattern: NAME,
  maxLength: 64,
  expected: "1 to 64 letters, digits, underscores and hyphens",
});

/** What a tool is; `parameters` is a JSON schema of its arguments. */
export const functionFields = {
  name: functionName,
  description: t.Optional(t.String()),
  parameters: t.Optional(t.Record(t.String(), t.Unknown(), { expected: "a JSON schema, which is an object" })),
  strict: t.Optional(t.Boolean()),
} as const;

const functionTool = t.Object(
  {
    type: t.Literal("function", { expected: '"function"' }),
    function: t.Object(functionFields, { additionalProperties: false }),
  },
  { additionalProperties: false },
);

const CHOICE_WORDS = ["none", "auto", "required"] as const;
/** The words of a tool_choice; a named tool is spelled differently from route to route. */
export const choiceWords = CHOICE_WORDS.map((word) => t.Literal(word));

/** The fields of a chat. */
export const toolFields = {
  tools: t.Optional(t.Array(functionTool, { maxItems: MAX_TOOLS, description: "Functions the model may call" })),
  tool_choice: t.Optional(
    t.Union(
      [
        ...choiceWords,
        t.Object(
          {
            type: t.Literal("function"),
            function: t.Object({ name: functionName }, { additionalProperties: false }),
          },
          { additionalProperties: false },
        ),
      ],
      { expected: 'none, auto, required or { "type": "function", "function": { "name": ... } }' },
    ),
  ),
  parallel_tool_calls: t.Optional(
    t.Boolean({ description: "Whether one answer may hold several calls; default true" }),
  ),
} as const;

/** A call in the history. The fields that client libraries add to what they were sent make no difference. */
export const historyCall = t.Object(
  {
    id: text(256),
    type: t.Optional(t.Literal("function", { expected: '"function"' })),
    index: ignored,
    function: t.Object(
      { name: functionName, arguments: t.String(), parsed_arguments: ignored },
      { additionalProperties: false },
    ),
  },
  { additionalProperties: false },
);

/** A tool, in the chat's form. */
export type Tool = Static<typeof functionTool>;
/** A call of a message in the history, in the chat's form. */
export type HistoryCall = Static<typeof historyCall>;
