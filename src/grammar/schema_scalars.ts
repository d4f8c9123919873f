// Strings, numbers and given values of a flat schema as pieces. Knows nothing of objects and arrays.
import { type Dfa, intersect, liveStates } from "./automaton.ts";
import { refuse } from "./budget.ts";
import { FORMATS, UNSUPPORTED_FORMATS } from "./formats.ts";
import { anyInteger, anyNumber, anyString, MAX_DIGITS, MAX_INTEGER_DIGITS, quoted } from "./json_text.ts";
import { decimalStep, multipleDfa, type NumberBounds, rangeDfa } from "./number_range.ts";
import { never, type Piece, written } from "./pieces.ts";
import { lengthDfa, regexDfa } from "./regex.ts";
import type { Rules } from "./rules.ts";
import { typesOf } from "./schema_keywords.ts";
import type { Flat } from "./schema_merge.ts";
import { countsOf } from "./schema_merge.ts";

/** Strings as the schema wants them. @throws RequestError */
export function stringPiece(flat: Flat, rules: Rules, place: string): Piece {
  const [min, max] = countsOf(flat, "minLength", "maxLength", place);
  if (min > max) return never;
  const dfa = textDfa(flat, rules, place);
  if (dfa === null) return rules.share(`string ${min} ${max}`, anyString(rules, min, max));
  const counted =
    min === 0 && max === Number.POSITIVE_INFINITY
      ? dfa
      : intersect(dfa, lengthDfa(min, max, rules.budget), rules.budget);
  return liveStates(counted)[0] ? quoted(written(counted, "json", rules.share)) : never;
}

/** What patterns and formats say; null where there are none. */
function textDfa(flat: Flat, rules: Rules, place: string): Dfa | null {
  const { budget } = rules;
  const all: Dfa[] = [];
  for (const pattern of (flat.patterns ?? []) as unknown[]) {
    if (typeof pattern !== "string") refuse(`${place}/pattern`, '"pattern" must be a text');
    budget.place = `${place}/pattern`;
    all.push(regexDfa(pattern, "anywhere", budget));
  }
  for (const format of (flat.formats ?? []) as unknown[]) {
    if (typeof format !== "string") refuse(`${place}/format`, '"format" must be a text');
    if (UNSUPPORTED_FORMATS.has(format)) refuse(`${place}/format`, `the format "${format}" is not supported`);
    budget.place = `${place}/format`;
    if (Object.hasOwn(FORMATS, format)) all.push(regexDfa(FORMATS[format]!, "whole", budget));
  }
  budget.place = place;
  return all.length === 0 ? null : all.reduce((a, b) => intersect(a, b, budget));
}

/** Numbers as the schema wants them. @throws RequestError */
export function numberPiece(flat: Flat, type: "integer" | "number", rules: Rules, place: string): Piece {
  const bounds = boundsOf(flat, place);
  const steps = (flat.steps ?? []) as unknown[];
  const isFree = bounds.min === Number.NEGATIVE_INFINITY && bounds.max === Number.POSITIVE_INFINITY;
  if (isFree && steps.length === 0) return type === "integer" ? anyInteger : anyNumber;
  const { budget } = rules;
  budget.place = place;
  let places = type === "integer" ? 0 : MAX_DIGITS;
  const multiples = steps.map((value) => {
    const step = typeof value === "number" ? decimalStep(value) : null;
    if (step === null) refuse(`${place}/multipleOf`, '"multipleOf" must be a number with few digits, more than 0');
    places = Math.min(places, step.places);
    return step;
  });
  const whole = places === 0 ? MAX_INTEGER_DIGITS : MAX_DIGITS;
  let dfa = rangeDfa(bounds, { whole, fraction: places }, budget);
  for (const { units, places: own } of multiples) dfa = intersect(dfa, multipleDfa(units, own, budget), budget);
  return liveStates(dfa)[0] ? written(dfa, "raw", rules.share) : never;
}

function boundsOf(flat: Flat, place: string): NumberBounds {
  const read = (key: string) => {
    const value = flat[key];
    if (value === undefined || (typeof value === "number" && Number.isFinite(value))) return value;
    refuse(`${place}/${key}`, `"${key}" must be a number`);
  };
  let [min, minOpen] = [read("minimum") ?? Number.NEGATIVE_INFINITY, false];
  let [max, maxOpen] = [read("maximum") ?? Number.POSITIVE_INFINITY, false];
  const [above, below] = [read("exclusiveMinimum"), read("exclusiveMaximum")];
  if (above !== undefined && above >= min) [min, minOpen] = [above, true];
  if (below !== undefined && below <= max) [max, maxOpen] = [below, true];
  return { min, minOpen, max, maxOpen };
}

/** Whether a listed value satisfies the other keywords. @throws RequestError where that cannot be told */
export function acceptsValue(flat: Flat, value: unknown, rules: Rules, place: string): boolean {
  const types = typesOf(flat, place);
  const type = typeOf(value);
  if (types !== null && !types.includes(type) && !(type === "integer" && types.includes("number"))) return false;
  if (typeof value === "string") return acceptsText(flat, value, rules, place);
  if (typeof value === "number") return acceptsNumber(flat, value, place);
  const further = [
    "properties",
    "required",
    "additionalProperties",
    "minProperties",
    "maxProperties",
    "items",
    "prefixItems",
  ];
  if (type === "object" || type === "array") {
    const key = [...further, "minItems", "maxItems"].find((name) => name in flat);
    if (key !== undefined) refuse(place, `listed objects and lists beside "${key}" are not supported`);
  }
  return true;
}

function typeOf(value: unknown) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number";
  return typeof value as "string" | "boolean" | "object";
}

function acceptsText(flat: Flat, text: string, rules: Rules, place: string): boolean {
  const [min, max] = countsOf(flat, "minLength", "maxLength", place);
  const codes = [...text].map((char) => char.codePointAt(0)!);
  if (codes.length < min || codes.length > max) return false;
  const dfa = textDfa(flat, rules, place);
  if (dfa === null) return true;
  let state = 0;
  for (const code of codes) {
    const edges = dfa.edges[state]!;
    const at = edges.findIndex((lo, i) => i % 3 === 0 && lo <= code && code <= edges[i + 1]!);
    if (at < 0) return false;
    state = edges[at + 2]!;
  }
  return dfa.final[state]!;
}

function acceptsNumber(flat: Flat, value: number, place: string): boolean {
  const { min, minOpen, max, maxOpen } = boundsOf(flat, place);
  if (value < min || value > max || (minOpen && value === min) || (maxOpen && value === max)) return false;
  return ((flat.steps ?? []) as unknown[]).every((step) => {
    const times = value / Number(step);
    return Math.abs(times - Math.round(times)) <= 1e-9 * Math.max(1, Math.abs(times));
  });
}
