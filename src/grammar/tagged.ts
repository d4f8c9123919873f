// Free text with marked parts in it, such as calls of tools: anything goes until a trigger has been written, from where on
// it must be one of the marked parts.
import type { Dfa } from "./automaton.ts";
import { refuse } from "./budget.ts";
import { MAX_CODE } from "./code_points.ts";
import { schemaPiece } from "./json_schema.ts";
import { space } from "./json_text.ts";
import { alt, literal, type Piece, repeat, seq, sharedCharacter } from "./pieces.ts";
import type { Rules } from "./rules.ts";

/** One kind of marked part: `begin`, then JSON that matches `schema`, then `end`. */
export interface Tag {
  readonly begin: string;
  readonly schema: unknown;
  readonly end: string;
  /**
   * The beginning of `begin` that free text may not hold, because it starts a marked part; default: all of `begin`.
   * Tags that share one trigger make sure that no other name stands behind it.
   */
  readonly trigger?: string;
}

const MAX_TAGS = 1000;

/** @param required begin with a marked part @param multiple allow more than one @throws RequestError */
export function taggedPiece(tags: readonly Tag[], required: boolean, multiple: boolean, rules: Rules): Piece {
  if (tags.length === 0 || tags.length > MAX_TAGS) refuse("#/tags", `1 to ${MAX_TAGS} tags are needed`);
  const parts = tags.map((tag, i) => {
    const trigger = tag.trigger ?? tag.begin;
    if (trigger === "" || !tag.begin.startsWith(trigger)) refuse(`#/tags/${i}`, "a tag must begin with its trigger");
    const json = schemaPiece(tag.schema, rules, `#/tags/${i}/schema`);
    const rest = tag.begin.slice(trigger.length);
    return { trigger, rest: seq(literal(rest), json, literal(tag.end)) };
  });
  const triggers = [...new Set(parts.map(({ trigger }) => trigger))];
  const behind = triggers.map((trigger) => {
    const own = parts.filter((part) => part.trigger === trigger);
    return rules.share(`behind ${trigger}`, alt(...own.map(({ rest }) => rest)));
  });
  if (required) {
    const one = rules.share("tag", alt(...triggers.map((trigger, i) => seq(literal(trigger), behind[i]!))));
    return multiple ? seq(one, repeat(seq(space(rules), one), 0, Number.POSITIVE_INFINITY)) : one;
  }
  return freeText(triggers, behind, multiple, rules);
}

/** Free text as an automaton that watches for triggers; each leads into its parts and, if allowed, back. */
function freeText(triggers: readonly string[], behind: readonly Piece[], multiple: boolean, rules: Rules): Piece {
  const watch = watchFor(triggers);
  return (nfa, from, to) => {
    const states = watch.dfa.edges.map(() => nfa.state());
    nfa.move(from, states[0]!);
    watch.dfa.edges.forEach((edges, state) => {
      const trigger = watch.triggerAt[state]!;
      if (trigger >= 0) {
        behind[trigger]!(nfa, states[state]!, multiple ? states[0]! : to);
        return;
      }
      nfa.move(states[state]!, to);
      for (let i = 0; i < edges.length; i += 3) {
        sharedCharacter([edges[i]!, edges[i + 1]!], "raw", rules.share)(nfa, states[state]!, states[edges[i + 2]!]!);
      }
    });
  };
}

interface Watch {
  /** Over code points; every state but those of triggers takes all of them. */
  readonly dfa: Dfa;
  /** Per state, the trigger that has just been completed, or -1. */
  readonly triggerAt: readonly number[];
}

/** The automaton of Aho and Corasick: the state is the longest end of the text that begins a trigger. */
function watchFor(triggers: readonly string[]): Watch {
  const children: Map<number, number>[] = [new Map()];
  const triggerAt = [-1];
  triggers.forEach((trigger, i) => {
    let at = 0;
    for (const char of trigger) {
      const code = char.codePointAt(0)!;
      let next = children[at]!.get(code);
      if (next === undefined) {
        next = children.push(new Map()) - 1;
        triggerAt.push(-1);
        children[at]!.set(code, next);
      }
      at = next;
    }
    triggerAt[at] = i;
  });
  const steps: ReadonlyMap<number, number>[] = children.map((map) => new Map(map));
  const shorter = new Int32Array(children.length);
  const queue = [0];
  for (let at = 0; at < queue.length; at++) {
    const state = queue[at]!;
    const inherited = state === 0 ? new Map<number, number>() : steps[shorter[state]!]!;
    for (const [code, child] of children[state]!) {
      shorter[child] = inherited.get(code) ?? 0;
      if (triggerAt[child] === -1) triggerAt[child] = triggerAt[shorter[child]!]!;
      queue.push(child);
    }
    steps[state] = new Map([...inherited, ...children[state]!]);
  }
  return { dfa: { edges: steps.map(edgesOf), final: steps.map(() => true) }, triggerAt };
}

/** Edges to the known characters' states, all others back to the start. */
function edgesOf(steps: ReadonlyMap<number, number>): number[] {
  const out: number[] = [];
  let from = 0;
  for (const [code, next] of [...steps].sort(([a], [b]) => a - b)) {
    if (code > from) out.push(from, code - 1, 0);
    out.push(code, code, next);
    from = code + 1;
  }
  out.push(from, MAX_CODE, 0);
  return out;
}
