// Regular expressions as automata over code points. One pass, no backtracking: an expression is either small enough or refused.
import { type Dfa, determinize, Nfa } from "./automaton.ts";
import type { Budget } from "./budget.ts";
import { MAX_CODE } from "./code_points.ts";
import { parseRegex, type RegexNode } from "./regex_syntax.ts";

/** Whether the expression must match the whole text, or somewhere in it as JSON Schema's `pattern`. */
export type Anchoring = "whole" | "anywhere";

/** The texts that match. @throws RequestError for what is not supported or too large */
export function regexDfa(pattern: string, anchoring: Anchoring, budget: Budget): Dfa {
  const node = parseRegex(pattern, budget.place);
  const nfa = new Nfa(budget);
  const [start, first, last, final] = [nfa.state(), nfa.state(), nfa.state(), nfa.state()];
  if (anchoring === "anywhere") {
    for (const state of [start, final]) nfa.edge(state, 0, MAX_CODE, state);
  }
  nfa.move(start, first);
  add(nfa, node, first, last);
  nfa.move(last, final);
  return determinize(nfa, start, final);
}

/** Texts of min to max code points. */
export function lengthDfa(min: number, max: number, budget: Budget): Dfa {
  const endless = max === Number.POSITIVE_INFINITY;
  const last = endless ? min : max;
  budget.checkStates(last);
  budget.spend(last);
  const count = Array.from({ length: last + 1 }, (_, i) => i);
  return {
    edges: count.map((i) => (i < last ? [0, MAX_CODE, i + 1] : endless ? [0, MAX_CODE, i] : [])),
    final: count.map((i) => i >= min),
  };
}

function add(nfa: Nfa, node: RegexNode, from: number, to: number): void {
  if (node.kind === "set") {
    for (let i = 0; i < node.set.length; i += 2) nfa.edge(from, node.set[i]!, node.set[i + 1]!, to);
  } else if (node.kind === "alt") {
    for (const part of node.parts) add(nfa, part, from, to);
  } else if (node.kind === "seq") {
    let at = from;
    for (const part of node.parts) at = follow(nfa, part, at);
    nfa.move(at, to);
  } else if (node.kind === "repeat") {
    addRepeat(nfa, node, from, to);
  } else {
    nfa.move(from, to, node.kind);
  }
}

function addRepeat(nfa: Nfa, node: Extract<RegexNode, { kind: "repeat" }>, from: number, to: number): void {
  let at = nfa.state();
  nfa.move(from, at);
  for (let i = 0; i < node.min; i++) at = follow(nfa, node.part, at);
  if (node.max === Number.POSITIVE_INFINITY) {
    const loop = nfa.state();
    nfa.move(at, loop);
    add(nfa, node.part, loop, loop);
    at = loop;
  } else {
    for (let i = node.min; i < node.max; i++) {
      nfa.move(at, to);
      at = follow(nfa, node.part, at);
    }
  }
  nfa.move(at, to);
}

function follow(nfa: Nfa, node: RegexNode, from: number): number {
  const next = nfa.state();
  add(nfa, node, from, next);
  return next;
}
