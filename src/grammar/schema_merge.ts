// allOf, and anyOf or oneOf beside other keywords, as plain schemas: what several schemas say together in one, and every
// choice as a schema of its own.
import { refuse } from "./budget.ts";
import {
  assertionsOf,
  canonical,
  countOf,
  isJson,
  type Json,
  requiredOf,
  type TypeName,
  typesOf,
} from "./schema_keywords.ts";

/** Finds what a $ref points to, with the place of that. @throws RequestError */
export type Resolve = (ref: unknown, place: string) => { readonly schema: unknown; readonly place: string };

/** A schema without $ref, allOf, anyOf and oneOf; several patterns, formats and steps are lists of their own. null matches nothing. */
export type Flat = Json;

const MAX_CHOICES = 256;
const MAX_DEPTH = 64;

/** Every way in which a value can match the schema. @throws RequestError for what cannot be merged */
export function flatten(schema: unknown, place: string, resolve: Resolve, depth = 0): Flat[] {
  if (depth > MAX_DEPTH) refuse(place, `it refers to itself, or goes deeper than ${MAX_DEPTH} references`);
  if (schema === true) return [{}];
  if (schema === false) return [];
  if (!isJson(schema)) refuse(place, "a schema must be an object, true or false");
  const { $ref, allOf, anyOf, oneOf, ...own } = assertionsOf(schema, place);
  let choices: Flat[] = [listsOf(own, place)];
  const add = (more: Flat[]) => {
    if (choices.length * more.length > MAX_CHOICES)
      refuse(place, `it stands for more than ${MAX_CHOICES} combinations`);
    choices = choices.flatMap((one) => more.map((other) => merge(one, other, place)).filter((flat) => flat !== null));
  };
  if ($ref !== undefined) {
    const target = resolve($ref, place);
    add(flatten(target.schema, target.place, resolve, depth + 1));
  }
  partsOf(allOf, `${place}/allOf`).forEach((part, i) => {
    add(flatten(part, `${place}/allOf/${i}`, resolve, depth + 1));
  });
  for (const [key, list] of [
    ["anyOf", anyOf],
    ["oneOf", oneOf],
  ] as const) {
    if (list === undefined) continue;
    add(
      partsOf(list, `${place}/${key}`).flatMap((part, i) => flatten(part, `${place}/${key}/${i}`, resolve, depth + 1)),
    );
  }
  return choices;
}

/** The schemas of allOf, anyOf or oneOf. */
export function partsOf(list: unknown, place: string): readonly unknown[] {
  if (list === undefined) return [];
  if (!Array.isArray(list) || list.length === 0) refuse(place, "it must be a list of at least one schema");
  return list;
}

/** What may occur several times as a list, const as enum, items in their newer form. */
function listsOf(schema: Json, place: string): Flat {
  const { pattern, format, multipleOf, const: only, items, additionalItems, ...rest } = schema;
  const flat: Record<string, unknown> = rest;
  if ("const" in schema) {
    const matches = !Array.isArray(flat.enum) || flat.enum.some((value) => canonical(value) === canonical(only));
    flat.enum = matches ? [only] : [];
  } else if (flat.enum !== undefined && (!Array.isArray(flat.enum) || flat.enum.length === 0)) {
    refuse(`${place}/enum`, '"enum" must be a list of at least one value');
  }
  if (pattern !== undefined) flat.patterns = [pattern];
  if (format !== undefined) flat.formats = [format];
  if (multipleOf !== undefined) flat.steps = [multipleOf];
  if (Array.isArray(items)) {
    flat.prefixItems = items;
    if (additionalItems !== undefined) flat.items = additionalItems;
  } else if (items !== undefined) flat.items = items;
  return flat;
}

/** What both say; null where no value can match both. */
function merge(a: Flat, b: Flat, place: string): Flat | null {
  const both: Record<string, unknown> = { ...a, ...b };
  const types = commonTypes(typesOf(a, place), typesOf(b, place));
  if (types !== null) {
    if (types.length === 0) return null;
    both.type = types;
  }
  for (const key of Object.keys(b)) {
    if (!(key in a) || key === "type") continue;
    const join = JOINS[key];
    if (join !== undefined) both[key] = join(a[key], b[key]);
  }
  if (Array.isArray(both.enum) && both.enum.length === 0) return null;
  if ("required" in a && "required" in b)
    both.required = [...new Set([...requiredOf(a, place), ...requiredOf(b, place)])];
  mergeProperties(both, a, b);
  mergeItems(both, a, b, place);
  return both;
}

const lists = (x: unknown, y: unknown) => [...new Set([...(x as unknown[]), ...(y as unknown[])])];
const larger = (x: unknown, y: unknown) => Math.max(Number(x), Number(y));
const smaller = (x: unknown, y: unknown) => Math.min(Number(x), Number(y));
const JOINS: Readonly<Record<string, (x: unknown, y: unknown) => unknown>> = {
  patterns: lists,
  formats: lists,
  steps: lists,
  enum: (x, y) => {
    const known = new Set((y as unknown[]).map(canonical));
    return (x as unknown[]).filter((value) => known.has(canonical(value)));
  },
  minLength: larger,
  minItems: larger,
  minProperties: larger,
  minimum: larger,
  exclusiveMinimum: larger,
  maxLength: smaller,
  maxItems: smaller,
  maxProperties: smaller,
  maximum: smaller,
  exclusiveMaximum: smaller,
};

function commonTypes(a: TypeName[] | null, b: TypeName[] | null): TypeName[] | null {
  if (a === null || b === null) return a ?? b;
  const has = (list: TypeName[], type: TypeName) =>
    list.includes(type) || (type === "integer" && list.includes("number"));
  return [...a.filter((type) => has(b, type)), ...b.filter((type) => !a.includes(type) && has(a, type))];
}

/** Schemas of one thing that several parts speak of. */
function together(...schemas: unknown[]): unknown {
  const given = schemas.filter((schema) => schema !== undefined && schema !== true);
  if (given.includes(false)) return false;
  if (given.length < 2) return given[0] ?? true;
  return canonical(given[0]) === canonical(given[1]) ? given[0] : { allOf: given };
}

function mergeProperties(both: Record<string, unknown>, a: Flat, b: Flat): void {
  const [left, right] = [isJson(a.properties) ? a.properties : {}, isJson(b.properties) ? b.properties : {}];
  const names = [...new Set([...Object.keys(left), ...Object.keys(right)])];
  const side = (properties: Json, rest: unknown, name: string) =>
    Object.hasOwn(properties, name) ? properties[name] : rest;
  if (names.length > 0) {
    both.properties = Object.fromEntries(
      names.map((name) => [
        name,
        together(side(left, a.additionalProperties, name), side(right, b.additionalProperties, name)),
      ]),
    );
  }
  if ("additionalProperties" in a && "additionalProperties" in b) {
    both.additionalProperties = together(a.additionalProperties, b.additionalProperties);
  }
}

function mergeItems(both: Record<string, unknown>, a: Flat, b: Flat, place: string): void {
  const [left, right] = [partsOfItems(a, place), partsOfItems(b, place)];
  const count = Math.max(left.length, right.length);
  if (count > 0) {
    both.prefixItems = Array.from({ length: count }, (_, i) =>
      together(i < left.length ? left[i] : a.items, i < right.length ? right[i] : b.items),
    );
  }
  if ("items" in a && "items" in b) both.items = together(a.items, b.items);
}

function partsOfItems(schema: Flat, place: string): readonly unknown[] {
  if (schema.prefixItems === undefined) return [];
  if (!Array.isArray(schema.prefixItems)) refuse(`${place}/prefixItems`, "it must be a list of schemas");
  return schema.prefixItems;
}

/** Lower and upper count of a pair of keywords. @throws RequestError where they are no counts */
export function countsOf(schema: Json, min: string, max: string, place: string): readonly [number, number] {
  return [countOf(schema, min, 0, place), countOf(schema, max, Number.POSITIVE_INFINITY, place)];
}
