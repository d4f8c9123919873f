// JSON Schema to rules: one rule per schema text, so that what refers to itself ends. Which keywords count and how, see
// docs/structured_outputs.md.
import { refuse } from "./budget.ts";
import { anyValue, constantsPiece } from "./json_text.ts";
import { alt, call, literal, never, type Piece } from "./pieces.ts";
import type { Rules } from "./rules.ts";
import { arrayPiece, type Inner, objectPiece } from "./schema_containers.ts";
import { assertionsOf, isJson, TYPE_KEYWORDS, type TypeName, typesOf } from "./schema_keywords.ts";
import { type Flat, flatten, partsOf, type Resolve } from "./schema_merge.ts";
import { acceptsValue, numberPiece, stringPiece } from "./schema_scalars.ts";

/** Deepest nesting of schemas in one another. */
const MAX_DEPTH = 128;
/** Longest schema as JSON text. */
const MAX_CHARS = 1 << 20;

/** The JSON texts of values that match the schema. @throws RequestError for a schema that is not supported */
export function schemaPiece(schema: unknown, rules: Rules, place = "#"): Piece {
  const text = JSON.stringify(schema) ?? "";
  if (text.length > MAX_CHARS) refuse(place, `the schema is longer than ${MAX_CHARS} characters`);
  return new SchemaRules(schema, rules, place).piece(schema, place);
}

class SchemaRules {
  readonly #root: unknown;
  readonly #rootPlace: string;
  readonly #rules: Rules;
  readonly #known = new Map<string, Piece>();
  #depth = 0;

  constructor(root: unknown, rules: Rules, rootPlace: string) {
    this.#root = root;
    this.#rules = rules;
    this.#rootPlace = rootPlace;
  }

  /** A call of the schema's rule, which is made where there is none yet. */
  readonly piece: Inner = (schema, place) => {
    if (schema === true) return anyValue(this.#rules);
    if (schema === false) return never;
    const { budget } = this.#rules;
    budget.place = place;
    const key = JSON.stringify(schema) ?? "";
    budget.spend(key.length >>> 6);
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    if (++this.#depth > MAX_DEPTH) refuse(place, `schemas are nested deeper than ${MAX_DEPTH}`);
    const rule = this.#rules.declare(place);
    this.#known.set(key, call(rule));
    this.#rules.define(rule, this.#body(schema, place));
    this.#depth--;
    return call(rule);
  };

  #body(schema: unknown, place: string): Piece {
    if (!isJson(schema)) refuse(place, "a schema must be an object, true or false");
    const assertions = assertionsOf(schema, place);
    const keys = Object.keys(assertions);
    // A schema that only points elsewhere needs no merging, which would never end where schemas refer to themselves.
    if (keys.length === 1) {
      const [key] = keys as [string];
      if (key === "$ref") {
        const target = this.#resolve(assertions.$ref, place);
        return this.piece(target.schema, target.place);
      }
      if (key === "anyOf" || key === "oneOf" || (key === "allOf" && partsOf(assertions.allOf, place).length === 1)) {
        const parts = partsOf(assertions[key], `${place}/${key}`);
        return alt(...parts.map((part, i) => this.piece(part, `${place}/${key}/${i}`)));
      }
    }
    return alt(...flatten(schema, place, this.#resolve).map((flat) => this.#flat(flat, place)));
  }

  #flat(flat: Flat, place: string): Piece {
    if (flat.enum !== undefined) {
      const values = (flat.enum as unknown[]).filter((value) => acceptsValue(flat, value, this.#rules, place));
      return constantsPiece(values, this.#rules);
    }
    const types = typesOf(flat, place) ?? impliedTypes(flat);
    if (types.length === 0) return anyValue(this.#rules);
    const isSuperfluous = (type: TypeName) => type === "integer" && types.includes("number");
    return alt(...types.filter((type) => !isSuperfluous(type)).map((type) => this.#ofType(type, flat, place)));
  }

  #ofType(type: TypeName, flat: Flat, place: string): Piece {
    if (type === "null") return literal("null");
    if (type === "boolean") return alt(literal("true"), literal("false"));
    if (type === "string") return stringPiece(flat, this.#rules, place);
    if (type === "object") return objectPiece(flat, this.#rules, this.piece, place);
    if (type === "array") return arrayPiece(flat, this.#rules, this.piece, place);
    return numberPiece(flat, type, this.#rules, place);
  }

  readonly #resolve: Resolve = (ref, place) => {
    if (typeof ref !== "string" || !(ref === "#" || ref.startsWith("#/"))) {
      refuse(`${place}/$ref`, `"$ref" must point into the same schema, as "#/$defs/name" does`);
    }
    let schema = this.#root;
    for (const part of ref.split("/").slice(1)) {
      const key = decodePointer(part);
      const holder: unknown = schema;
      const has = (isJson(holder) || Array.isArray(holder)) && Object.hasOwn(holder, key);
      if (!has) refuse(`${place}/$ref`, `there is nothing at "${ref}"`);
      schema = (holder as Record<string, unknown>)[key];
    }
    return { schema, place: this.#rootPlace + ref.slice(1) };
  };
}

function decodePointer(part: string): string {
  let text = part;
  try {
    text = decodeURIComponent(part);
  } catch {
    // A bare % stands for itself.
  }
  return text.replaceAll("~1", "/").replaceAll("~0", "~");
}

/** Without `type`, keywords of some types mean values of those types. */
function impliedTypes(flat: Flat): TypeName[] {
  return TYPE_KEYWORDS.filter(([, keys]) => keys.some((key) => key in flat)).map(([type]) => type);
}
