// Objects and arrays of a flat schema as pieces.
import type { Dfa } from "./automaton.ts";
import { refuse } from "./budget.ts";
import { MAX_CODE } from "./code_points.ts";
import { anyString, comma, list, member, quoted, space } from "./json_text.ts";
import { alt, literal, never, type Piece, repeat, seq, written } from "./pieces.ts";
import type { Rules } from "./rules.ts";
import { escapePointer, isJson, requiredOf } from "./schema_keywords.ts";
import { countsOf, type Flat } from "./schema_merge.ts";

/** The piece of a schema inside another one. */
export type Inner = (schema: unknown, place: string) => Piece;

interface Member {
  readonly piece: Piece;
  readonly required: boolean;
}

/** Most properties of one object: the automaton grows with their square. */
const MAX_PROPERTIES = 1000;

/** Objects: properties in the order of the schema, then further ones where they are allowed. @throws RequestError */
export function objectPiece(flat: Flat, rules: Rules, inner: Inner, place: string): Piece {
  const { properties = {} } = flat;
  if (!isJson(properties)) refuse(`${place}/properties`, '"properties" must be an object');
  const required = requiredOf(flat, place);
  const names = [...new Set([...Object.keys(properties), ...required])];
  if (names.length > MAX_PROPERTIES) refuse(`${place}/properties`, `more than ${MAX_PROPERTIES} properties`);
  const isOpen = flat.additionalProperties ?? Object.keys(properties).length === 0;
  const rest = `${place}/additionalProperties`;
  const members = names.map((name): Member => {
    const isListed = Object.hasOwn(properties, name);
    const schema = isListed ? properties[name] : (flat.additionalProperties ?? true);
    const value = inner(schema, isListed ? `${place}/properties/${escapePointer(name)}` : rest);
    return { piece: member(rules, literal(JSON.stringify(name)), value), required: required.includes(name) };
  });
  const further = isOpen === false ? null : member(rules, otherName(names, rules), inner(isOpen, rest));
  const [min, max] = countsOf(flat, "minProperties", "maxProperties", place);
  const counts = furtherCounts(members, further !== null, min, max, place);
  return counts === null ? never : membersPiece(members, further, counts, rules);
}

/** How many further members there may be, so that the number of all is right; null where that cannot be. */
function furtherCounts(
  members: readonly Member[],
  isOpen: boolean,
  min: number,
  max: number,
  place: string,
): readonly [number, number] | null {
  const numRequired = members.filter((one) => one.required).length;
  if (numRequired > max) return null;
  if (!isOpen && min <= numRequired && max >= members.length) return [0, 0];
  const isFixed = numRequired === members.length;
  if (isFixed) return isOpen ? [Math.max(0, min - numRequired), max - numRequired] : null;
  if (min > numRequired)
    refuse(`${place}/minProperties`, '"minProperties" is not supported beside optional properties');
  if (max !== Number.POSITIVE_INFINITY) {
    refuse(`${place}/maxProperties`, '"maxProperties" is not supported beside optional properties');
  }
  return [0, max];
}

/** A quoted name that is none of the given ones. Each name has one spelling only, so that none slips in by another. */
function otherName(names: readonly string[], rules: Rules): Piece {
  if (names.length === 0) return rules.share("any string", anyString(rules));
  const dfa = allBut(names);
  rules.budget.spend(dfa.final.length);
  return quoted(written(dfa, "json", rules.share));
}

/** Every text but the given ones: a tree of them, from which all other characters lead to a place where all is well. */
function allBut(names: readonly string[]): Dfa {
  const children: Map<number, number>[] = [new Map(), new Map()];
  const final = [true, true];
  const OTHER = 1;
  for (const name of names) {
    let at = 0;
    for (const char of name) {
      const code = char.codePointAt(0)!;
      let next = children[at]!.get(code);
      if (next === undefined) {
        next = children.push(new Map()) - 1;
        final.push(true);
        children[at]!.set(code, next);
      }
      at = next;
    }
    final[at] = false;
  }
  const edges = children.map((map) => {
    const out: number[] = [];
    let from = 0;
    for (const [code, child] of [...map].sort(([a], [b]) => a - b)) {
      if (code > from) out.push(from, code - 1, OTHER);
      out.push(code, code, child);
      from = code + 1;
    }
    return [...out, from, MAX_CODE, OTHER];
  });
  return { edges, final };
}

/** Members in order with commas between those that are there: one chain before the first of them, one after it. */
function membersPiece(
  members: readonly Member[],
  further: Piece | null,
  [min, max]: readonly [number, number],
  rules: Rules,
): Piece {
  const gap = space(rules);
  const between = comma(rules);
  // As rules, so that a chain's many edges are short.
  const parts = members.map(({ piece, required }) => ({ part: rules.own(piece), required }));
  const other = further === null ? null : rules.own(further);
  const furtherFirst = other === null ? never : seq(other, repeat(seq(between, other), Math.max(0, min - 1), max - 1));
  const furtherNext = other === null ? never : repeat(seq(between, other), Math.max(min, 1), max);
  return (nfa, from, to) => {
    const close = nfa.state();
    seq(gap, literal("}"))(nfa, close, to);
    const before = parts.map(() => nfa.state());
    const after = parts.map(() => nfa.state());
    const [noneYet, someYet] = [nfa.state(), nfa.state()];
    const open = before[0] ?? noneYet;
    const opened = nfa.state();
    literal("{")(nfa, from, opened);
    gap(nfa, opened, open);
    parts.forEach(({ part, required }, i) => {
      const nextBefore = before[i + 1] ?? noneYet;
      const nextAfter = after[i + 1] ?? someYet;
      part(nfa, before[i]!, nextAfter);
      seq(between, part)(nfa, after[i]!, nextAfter);
      if (required) return;
      nfa.move(before[i]!, nextBefore);
      nfa.move(after[i]!, nextAfter);
    });
    if (max > 0) {
      furtherFirst(nfa, noneYet, close);
      furtherNext(nfa, someYet, close);
    }
    if (min > 0) return;
    literal("}")(nfa, noneYet, to);
    nfa.move(someYet, close);
  };
}

/** Arrays: given places first, then further elements. @throws RequestError */
export function arrayPiece(flat: Flat, rules: Rules, inner: Inner, place: string): Piece {
  const [min, max] = countsOf(flat, "minItems", "maxItems", place);
  const given = (flat.prefixItems ?? []) as readonly unknown[];
  const isOpen = flat.items !== false;
  const most = Math.min(max, isOpen ? max : given.length);
  if (min > most) return never;
  const element = isOpen ? inner(flat.items ?? true, `${place}/items`) : never;
  if (given.length === 0) return list(rules, "[", "]", element, min, most);
  const elements = given.slice(0, most).map((schema, i) => inner(schema, `${place}/prefixItems/${i}`));
  return placedPiece(elements, element, min, most, rules);
}

/** The list may end behind any element from the min-th on. */
function placedPiece(elements: readonly Piece[], element: Piece, min: number, max: number, rules: Rules): Piece {
  const gap = space(rules);
  const between = comma(rules);
  return (nfa, from, to) => {
    const [opened, close] = [nfa.state(), nfa.state()];
    literal("[")(nfa, from, opened);
    seq(gap, literal("]"))(nfa, close, to);
    if (min === 0) nfa.move(opened, close);
    let at = nfa.state();
    gap(nfa, opened, at);
    elements.forEach((piece, i) => {
      const next = nfa.state();
      (i === 0 ? piece : seq(between, piece))(nfa, at, next);
      if (i + 1 >= min) nfa.move(next, close);
      at = next;
    });
    const [least, most] = [Math.max(0, min - elements.length), max - elements.length];
    if (most > 0) alt(repeat(seq(between, element), Math.max(least, 1), most))(nfa, at, close);
  };
}
