// Whether a JSON value matches a schema, checked in the most direct way and by none of the compiler's code. Throws on
// keywords that it does not know, so that no test passes for want of looking.
type Json = Record<string, unknown>;

const KNOWN = new Set(
  (
    "type enum const anyOf oneOf allOf $ref $defs title description properties required additionalProperties minProperties " +
    "maxProperties items prefixItems minItems maxItems minLength maxLength pattern format minimum maximum " +
    "exclusiveMinimum exclusiveMaximum multipleOf"
  ).split(" "),
);

/** Formats that the tests use, looked at by other means than the grammar's. */
const FORMATS: Readonly<Record<string, (text: string) => boolean>> = {
  date: (text) => /^\d{4}-\d\d-\d\d$/.test(text) && new Date(`${text}T00:00:00Z`).toISOString().startsWith(text),
  "date-time": (text) => /^\d{4}-\d\d-\d\dT/.test(text) && !Number.isNaN(Date.parse(text)),
  uuid: (text) => /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(text),
  ipv4: (text) =>
    text.split(".").length === 4 && text.split(".").every((part) => /^(0|[1-9]\d*)$/.test(part) && +part < 256),
  ipv6: (text) => URL.canParse(`http://[${text}]/`),
  email: (text) => /^[^@\s]+@[^@\s]+$/.test(text),
};

/** Whether `value` matches `schema`, whose references point into `root`. */
export function validates(schema: unknown, value: unknown, root: unknown = schema): boolean {
  if (typeof schema === "boolean") return schema;
  const rules = schema as Json;
  const unknown = Object.keys(rules).find((key) => !KNOWN.has(key));
  if (unknown !== undefined) throw new Error(`The validator does not know "${unknown}"`);
  const holds = (part: unknown) => validates(part, value, root);
  if (rules.$ref !== undefined && !holds(lookUp(root, rules.$ref as string))) return false;
  if (rules.type !== undefined && ![rules.type].flat().some((type) => isOfType(value, type as string))) return false;
  if (rules.enum !== undefined && !(rules.enum as unknown[]).some((one) => Bun.deepEquals(one, value, true)))
    return false;
  if ("const" in rules && !Bun.deepEquals(rules.const, value, true)) return false;
  if (rules.anyOf !== undefined && !(rules.anyOf as unknown[]).some(holds)) return false;
  if (rules.oneOf !== undefined && !(rules.oneOf as unknown[]).some(holds)) return false;
  if (rules.allOf !== undefined && !(rules.allOf as unknown[]).every(holds)) return false;
  if (typeof value === "string") return validString(rules, value);
  if (typeof value === "number") return validNumber(rules, value);
  if (Array.isArray(value)) return validArray(rules, value, root);
  return typeof value === "object" && value !== null ? validObject(rules, value as Json, root) : true;
}

function lookUp(root: unknown, ref: string): unknown {
  return ref
    .split("/")
    .slice(1)
    .reduce((at, key) => (at as Json)[key], root);
}

function isOfType(value: unknown, type: string): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  return typeof value === type;
}

function within(value: number, min: unknown, max: unknown): boolean {
  return value >= ((min as number | undefined) ?? -Infinity) && value <= ((max as number | undefined) ?? Infinity);
}

function validString(rules: Json, text: string): boolean {
  if (!within([...text].length, rules.minLength, rules.maxLength)) return false;
  if (rules.pattern !== undefined && !new RegExp(rules.pattern as string, "u").test(text)) return false;
  return rules.format === undefined || FORMATS[rules.format as string]!(text);
}

function validNumber(rules: Json, value: number): boolean {
  if (!within(value, rules.minimum, rules.maximum)) return false;
  if (rules.exclusiveMinimum !== undefined && value <= (rules.exclusiveMinimum as number)) return false;
  if (rules.exclusiveMaximum !== undefined && value >= (rules.exclusiveMaximum as number)) return false;
  if (rules.multipleOf === undefined) return true;
  const times = value / (rules.multipleOf as number);
  return Math.abs(times - Math.round(times)) < 1e-6;
}

function validArray(rules: Json, list: unknown[], root: unknown): boolean {
  if (!within(list.length, rules.minItems, rules.maxItems)) return false;
  const given = (rules.prefixItems ?? []) as unknown[];
  return list.every((one, i) => validates(i < given.length ? given[i] : (rules.items ?? true), one, root));
}

function validObject(rules: Json, object: Json, root: unknown): boolean {
  const properties = (rules.properties ?? {}) as Json;
  if (!within(Object.keys(object).length, rules.minProperties, rules.maxProperties)) return false;
  if (((rules.required ?? []) as string[]).some((name) => !Object.hasOwn(object, name))) return false;
  const rest = rules.additionalProperties ?? true;
  return Object.keys(object).every((name) =>
    validates(Object.hasOwn(properties, name) ? properties[name] : rest, object[name], root),
  );
}
