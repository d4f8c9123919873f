// What a request says its text must look like: OpenAI's response_format (text.format of responses), vLLM's
// structured_outputs and its older guided_* fields. Knows their spellings; src/grammar gives them meaning.

import { type Static, t } from "elysia";
import type { CompiledGrammar, GrammarSpec } from "../grammar/compile.ts";
import type { ServerContext } from "./context.ts";
import { HttpError, invalidField } from "./errors.ts";
import { ignored, text } from "./fields.ts";

const MAX_CHOICES = 20_000;

const schemaFields = {
  name: t.Optional(text(256)),
  description: ignored,
  schema: t.Unknown({ description: "A JSON schema; docs/structured_outputs.md says which keywords are followed" }),
  strict: t.Optional(t.Union([t.Boolean(), t.Null()], { expected: "true or false" })),
};
const plain = [
  t.Object({ type: t.Literal("text") }, { additionalProperties: false }),
  t.Object({ type: t.Literal("json_object") }, { additionalProperties: false }),
] as const;
const nested = t.Object(schemaFields, { additionalProperties: false });
const EXPECTED = 'an object of type "text", "json_object" or "json_schema", the last one with a schema';

/** `text.format` of a response: the schema beside the type. */
export const textFormat = t.Union(
  [...plain, t.Object({ type: t.Literal("json_schema"), ...schemaFields }, { additionalProperties: false })],
  { expected: EXPECTED },
);

/** Fields of both completion routes. At most one of them may be given. */
export const formatFields = {
  response_format: t.Optional(
    t.Union(
      [...plain, t.Object({ type: t.Literal("json_schema"), json_schema: nested }, { additionalProperties: false })],
      { expected: EXPECTED },
    ),
  ),
  structured_outputs: t.Optional(
    t.Object(
      {
        json: t.Optional(t.Unknown({ description: "A JSON schema, or the text of one" })),
        json_object: t.Optional(t.Boolean({ description: "Any JSON object" })),
        regex: t.Optional(t.String({ description: "What the whole text matches" })),
        choice: t.Optional(t.Array(t.String(), { minItems: 1, maxItems: MAX_CHOICES })),
      },
      { additionalProperties: false, description: "One of its fields" },
    ),
  ),
  guided_json: t.Optional(t.Unknown({ description: "Older name of structured_outputs.json" })),
  guided_regex: t.Optional(t.String({ description: "Older name of structured_outputs.regex" })),
  guided_choice: t.Optional(t.Array(t.String(), { minItems: 1, maxItems: MAX_CHOICES })),
} as const;

/** The fields as they arrive. */
export type FormatBody = Static<ReturnType<typeof formatObject>>;

function formatObject() {
  return t.Object(formatFields);
}

/** A grammar, and the field that asks for it. */
export interface Wish {
  readonly param: string;
  readonly spec: GrammarSpec;
}

/**
 * The grammar of the text, or null where any text will do. `besides`: another field that governs the text, such as tools.
 * @throws HttpError naming the field
 */
export async function textGrammar(
  context: ServerContext,
  body: FormatBody,
  besides: string | null,
): Promise<CompiledGrammar | null> {
  const wishes = wishesOf(body);
  const [wish, other] = wishes;
  if (wish === undefined) return null;
  const conflict = other?.param ?? besides;
  if (conflict !== null) {
    throw invalidField(wish.param, `Parameter "${wish.param}" is not supported together with "${conflict}"`);
  }
  return compiledGrammar(context, wish);
}

/** The same for `text.format` of a response. @throws HttpError */
export async function formatGrammar(
  context: ServerContext,
  format: Static<typeof textFormat> | undefined,
  besides: string | null,
): Promise<CompiledGrammar | null> {
  if (format === undefined || format.type === "text") return null;
  const spec = format.type === "json_object" ? JSON_OBJECT : schemaSpec(format.schema);
  if (besides !== null) {
    throw invalidField("text.format", `Parameter "text.format" is not supported together with "${besides}"`);
  }
  return compiledGrammar(context, { param: "text.format", spec });
}

/** Compiles in the background; a refusal names the field. @throws HttpError, CapacityError */
export async function compiledGrammar(context: ServerContext, { param, spec }: Wish): Promise<CompiledGrammar> {
  if (context.text.tokenizer === null) {
    throw new HttpError(400, "no_tokenizer", "This model has no tokenizer: its texts cannot follow a grammar", param);
  }
  try {
    return await context.grammars.compile(spec);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "invalid_schema")) throw error;
    throw new HttpError(400, "invalid_schema", error.message, param);
  }
}

const JSON_OBJECT: GrammarSpec = { kind: "json_object" };

function schemaSpec(schema: unknown): GrammarSpec {
  return { kind: "json_schema", schema };
}

function wishesOf(body: FormatBody): Wish[] {
  const wishes: Wish[] = [];
  const add = (param: string, spec: GrammarSpec | undefined) => {
    if (spec !== undefined) wishes.push({ param, spec });
  };
  const format = body.response_format;
  if (format?.type === "json_object") add("response_format", JSON_OBJECT);
  if (format?.type === "json_schema") add("response_format", schemaSpec(format.json_schema.schema));
  const { json, json_object, regex, choice } = body.structured_outputs ?? {};
  if (json !== undefined) add("structured_outputs.json", schemaSpec(parsed(json, "structured_outputs.json")));
  if (json_object === true) add("structured_outputs.json_object", JSON_OBJECT);
  if (regex !== undefined) add("structured_outputs.regex", { kind: "regex", pattern: regex });
  if (choice !== undefined) add("structured_outputs.choice", { kind: "choice", choices: choice });
  if (body.guided_json !== undefined) add("guided_json", schemaSpec(parsed(body.guided_json, "guided_json")));
  if (body.guided_regex !== undefined) add("guided_regex", { kind: "regex", pattern: body.guided_regex });
  if (body.guided_choice !== undefined) add("guided_choice", { kind: "choice", choices: body.guided_choice });
  return wishes;
}

/** vLLM takes a schema as an object or as text. @throws HttpError */
function parsed(schema: unknown, param: string): unknown {
  if (typeof schema !== "string") return schema;
  try {
    return JSON.parse(schema);
  } catch {
    throw invalidField(param, `Invalid "${param}": expected a JSON schema, as an object or as JSON text`);
  }
}
