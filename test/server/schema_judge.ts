// Whether a value fits a JSON schema, by plain reading of the few keywords the server's schemas use: an oracle beside
// the server's own validator. An unknown keyword is an error, so that none is passed over.

/** A schema as /openapi.json shows it. */
export type Schema = Readonly<Record<string, unknown>>;

const NOTES = new Set(["description", "expected", "type", "default"]);

/** Whether `value` fits `schema`. */
export function fits(schema: Schema, value: unknown): boolean {
  return Object.entries(schema).every(([keyword, wanted]) => {
    const judge = judges[keyword];
    if (judge !== undefined) return judge(wanted, value, schema);
    if (NOTES.has(keyword)) return keyword !== "type" || [wanted].flat().includes(typeOf(value));
    throw new Error(`The oracle does not know the keyword "${keyword}"`);
  });
}

function typeOf(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
}

const numbers = (check: (value: number, wanted: number) => boolean) => (wanted: unknown, value: unknown) =>
  typeof value !== "number" || check(value, wanted as number);
const lengths =
  (check: (length: number, wanted: number) => boolean, kind: "string" | "array" | "object") =>
  (wanted: unknown, value: unknown) => {
    if (typeOf(value) !== kind) return true;
    const length = kind === "object" ? Object.keys(value as object).length : (value as string | unknown[]).length;
    return check(length, wanted as number);
  };
const atMost = (a: number, b: number) => a <= b;
const atLeast = (a: number, b: number) => a >= b;

const judges: Readonly<Record<string, (wanted: unknown, value: unknown, schema: Schema) => boolean>> = {
  const: (wanted, value) => value === wanted,
  enum: (wanted, value) => (wanted as unknown[]).includes(value),
  anyOf: (wanted, value) => (wanted as Schema[]).some((one) => fits(one, value)),
  minimum: numbers(atLeast),
  maximum: numbers(atMost),
  multipleOf: numbers((value, step) => Number.isInteger(value / step)),
  minLength: lengths(atLeast, "string"),
  maxLength: lengths(atMost, "string"),
  minItems: lengths(atLeast, "array"),
  maxItems: lengths(atMost, "array"),
  maxProperties: lengths(atMost, "object"),
  pattern: (wanted, value) => typeof value !== "string" || new RegExp(wanted as string).test(value),
  items: (wanted, value) => !Array.isArray(value) || value.every((one) => fits(wanted as Schema, one)),
  required: (wanted, value) =>
    typeOf(value) !== "object" || (wanted as string[]).every((key) => key in (value as object)),
  properties: (wanted, value) =>
    typeOf(value) !== "object" ||
    Object.entries(wanted as Record<string, Schema>).every(
      ([key, schema]) => !(key in (value as object)) || fits(schema, (value as Record<string, unknown>)[key]),
    ),
  patternProperties: (wanted, value) =>
    typeOf(value) !== "object" ||
    Object.entries(wanted as Record<string, Schema>).every(([pattern, schema]) =>
      Object.entries(value as object).every(([key, one]) => !new RegExp(pattern).test(key) || fits(schema, one)),
    ),
  additionalProperties: (wanted, value, schema) =>
    wanted !== false ||
    typeOf(value) !== "object" ||
    Object.keys(value as object).every((key) => key in ((schema.properties as object | undefined) ?? {})),
};
