// The JSON Schema keywords that are known, and reading them with their types checked. Knows single schemas, not their meaning.
import { refuse } from "./budget.ts";

/** A JSON object of unknown content. */
export type Json = Readonly<Record<string, unknown>>;

/** The types of JSON Schema. */
export type TypeName = "null" | "boolean" | "integer" | "number" | "string" | "array" | "object";

export const TYPE_NAMES: readonly TypeName[] = ["null", "boolean", "integer", "number", "string", "array", "object"];

/** Say something about a schema and constrain nothing. */
const ANNOTATIONS = new Set([
  ...["$schema", "$id", "id", "$anchor", "$comment", "$defs", "definitions", "$vocabulary", "$dynamicAnchor"],
  ...["title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly", "nullable"],
  ...["contentEncoding", "contentMediaType", "contentSchema", "discriminator", "externalDocs", "xml"],
]);

/** Constrain in ways that are not supported. */
const UNSUPPORTED = new Set([
  ...["not", "if", "then", "else", "dependentSchemas", "dependentRequired", "dependencies", "propertyNames"],
  ...[
    "patternProperties",
    "contains",
    "minContains",
    "maxContains",
    "unevaluatedItems",
    "$dynamicRef",
    "$recursiveRef",
  ],
]);

/** Keywords of one type: where `type` is missing, they say which one is meant. */
export const TYPE_KEYWORDS: readonly (readonly [TypeName, readonly string[]])[] = [
  ["object", ["properties", "required", "additionalProperties", "minProperties", "maxProperties"]],
  ["array", ["items", "prefixItems", "additionalItems", "minItems", "maxItems"]],
  ["string", ["minLength", "maxLength", "pattern", "patterns", "format", "formats"]],
  ["number", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "steps"]],
];

/** The keywords that constrain, checked to be known. @throws RequestError for one that is not supported */
export function assertionsOf(schema: Json, place: string): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(schema)) {
    if (UNSUPPORTED.has(key)) refuse(`${place}/${escapePointer(key)}`, `the keyword "${key}" is not supported`);
    if (key === "uniqueItems" && value === true) {
      refuse(`${place}/uniqueItems`, 'the keyword "uniqueItems" is not supported');
    }
    const isNeutral = key === "uniqueItems" || (key === "unevaluatedProperties" && typeof value === "boolean");
    if (key === "unevaluatedProperties" && !isNeutral) {
      refuse(
        `${place}/unevaluatedProperties`,
        'the keyword "unevaluatedProperties" is supported as true or false only',
      );
    }
    // A keyword that nobody knows constrains nothing, says JSON Schema.
    if (!isNeutral && !ANNOTATIONS.has(key) && KNOWN.has(key)) kept[key] = value;
  }
  return kept;
}

const KNOWN = new Set([
  ...TYPE_KEYWORDS.flatMap(([, keys]) => keys).filter((key) => !["patterns", "formats", "steps"].includes(key)),
  ...["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"],
]);

export function isJson(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** One part of a JSON pointer. */
export function escapePointer(key: string): string {
  return key.replaceAll("~", "~0").replaceAll("/", "~1");
}

/** A keyword that must be a whole number of at least 0; `absent` where it is missing. */
export function countOf(schema: Json, key: string, absent: number, place: string): number {
  const value = schema[key];
  if (value === undefined) return absent;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0) {
    refuse(`${place}/${key}`, `"${key}" must be a whole number of at least 0`);
  }
  return value;
}

/** The types that `type` allows; null where it is missing. */
export function typesOf(schema: Json, place: string): TypeName[] | null {
  if (schema.type === undefined) return null;
  const names = Array.isArray(schema.type) ? schema.type : [schema.type];
  for (const name of names) {
    if (!TYPE_NAMES.includes(name)) refuse(`${place}/type`, `"type" must be among ${TYPE_NAMES.join(", ")}`);
  }
  return names;
}

/** The texts that name required properties. */
export function requiredOf(schema: Json, place: string): string[] {
  const { required } = schema;
  if (required === undefined) return [];
  if (!Array.isArray(required) || !required.every((name) => typeof name === "string")) {
    refuse(`${place}/required`, '"required" must be a list of names');
  }
  return [...new Set(required)];
}

/** Equal for equal JSON values, whatever the order of their keys. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (!isJson(value)) return JSON.stringify(value) ?? "null";
  const keys = Object.keys(value).sort();
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join()}}`;
}
