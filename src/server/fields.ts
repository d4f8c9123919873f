// Building blocks of the request schemas, and the words for what a value should have been.
// Knows no route.

import { t } from "elysia";
import { NAME_EXPECTED, NAME_LENGTH, NAME_PATTERN } from "../store/names.ts";

/** A whole number in [min, max]. (`t.Integer` would also take strings.) */
export function integer(min: number, max: number, description?: string) {
  return t.Number({ minimum: min, maximum: max, multipleOf: 1, ...(description === undefined ? {} : { description }) });
}

/** A number in [min, max]. */
export function number(min: number, max: number, description?: string) {
  return t.Number({ minimum: min, maximum: max, ...(description === undefined ? {} : { description }) });
}

/** Text of at most `max` characters. */
export function text(max: number, description?: string) {
  return t.String({ maxLength: max, ...(description === undefined ? {} : { description }) });
}

/** A name that is safe as part of a path and of `backbone:name`. */
export function name(description: string) {
  return t.String({ pattern: NAME_PATTERN, maxLength: NAME_LENGTH, description, expected: NAME_EXPECTED });
}

export const VARIANTS = ["gla", "gdn", "jet"] as const;

/** One of some words. (`t.UnionEnum` would fill in the first of them.) */
export function oneOf<const T extends string>(words: readonly T[]) {
  const schema = t.Union(
    words.map((word) => t.Literal(word)),
    { expected: words.join(", ") },
  );
  return t.Unsafe<T>(schema);
}

/** One of the linear attention variants. */
export const variant = oneOf(VARIANTS);

/** A field that is understood and makes no difference here. */
export const ignored = t.Optional(t.Unknown({ description: "Accepted and ignored" }));

/** One complaint of the validator, in its own terms. */
export interface SchemaIssue {
  readonly path: string;
  readonly message: string;
  readonly schema: Readonly<Record<string, unknown>>;
  readonly value: unknown;
  /** Of a union: the complaints of each of its alternatives. */
  readonly errors?: readonly { First(): SchemaIssue | undefined }[];
}

/** Where a whole body is none of several kinds: what the kind that came closest complains of. */
export function innermost(issue: SchemaIssue): SchemaIssue {
  if (issue.path !== "") return issue;
  const inner = (issue.errors ?? []).map((errors) => errors.First()).filter((one) => one !== undefined);
  return inner.reduce((best, one) => (one.path.length > best.path.length ? one : best), issue);
}

/** `temperature` of `/temperature`, `stop[3]` of `/stop/3`. */
export function fieldOf(path: string): string {
  const [first = "", ...rest] = path
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
  return first + rest.map((part) => (/^\d+$/.test(part) ? `[${part}]` : `.${part}`)).join("");
}

/** What the schema wanted, in words. */
export function expectation(schema: SchemaIssue["schema"]): string {
  if (typeof schema.expected === "string") return schema.expected;
  if (schema.type === "number") {
    const noun = schema.multipleOf === 1 ? "a whole number" : "a number";
    return `${noun} in [${schema.minimum ?? "-inf"}, ${schema.maximum ?? "inf"}]`;
  }
  if (schema.type === "string") return boundsOf("text", "characters", schema.minLength, schema.maxLength);
  if (schema.type === "array") return boundsOf("a list", "entries", schema.minItems, schema.maxItems);
  if (schema.type === "boolean") return "true or false";
  if (schema.type === "object") return "an object";
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  return "another value";
}

function boundsOf(noun: string, unit: string, min: unknown, max: unknown): string {
  if (min !== undefined && max !== undefined) return `${noun} of ${min} to ${max} ${unit}`;
  if (max !== undefined) return `${noun} of at most ${max} ${unit}`;
  return min === undefined ? noun : `${noun} of at least ${min} ${unit}`;
}

/** A value as it is shown in an error: short, never a whole prompt. */
export function shown(value: unknown): string {
  if (Array.isArray(value)) return `a list of ${value.length}`;
  const json = JSON.stringify(value) ?? String(value);
  return json.length <= 60 ? json : `${json.slice(0, 57)}...`;
}
