// The rules of one grammar while it is compiled, and their way into flat arrays: empty matches moved to the callers, dead
// ends removed, endless calls refused. Knows bytes and calls, not what they spell.
import { type Dfa, determinize, liveStates, Nfa } from "./automaton.ts";
import { type Budget, refuse } from "./budget.ts";
import { callsOf, flattenRules, splitCalls } from "./flat_rules.ts";
import type { CompiledGrammar } from "./grammar.ts";
import { CALL, call, type Piece } from "./pieces.ts";

interface Rule {
  readonly place: string;
  body: Piece | null;
}

interface Draft {
  readonly nfa: Nfa;
  readonly start: number;
  readonly final: number;
}

/** Rules under construction. */
export class Rules {
  readonly budget: Budget;
  readonly #rules: Rule[] = [];
  readonly #shared = new Map<string, number>();

  constructor(budget: Budget) {
    this.budget = budget;
  }

  /** A rule whose body comes later, so that it can call itself. `place` is where the input asks for it. */
  declare(place: string): number {
    this.budget.spend(1);
    this.#rules.push({ place, body: null });
    return this.#rules.length - 1;
  }

  define(rule: number, body: Piece): void {
    this.#rules[rule]!.body = body;
  }

  /** Calls a rule of this body; one rule for all that share the key. */
  readonly share = (key: string, body: Piece): Piece => {
    let rule = this.#shared.get(key);
    if (rule === undefined) {
      rule = this.declare(this.budget.place);
      this.#shared.set(key, rule);
      this.define(rule, body);
    }
    return call(rule);
  };

  /** Calls a rule of this body that nobody else shares. */
  own(body: Piece): Piece {
    const rule = this.declare(this.budget.place);
    this.define(rule, body);
    return call(rule);
  }

  /** The grammar of what `root` matches. @throws RequestError where it is too large, endless or matches nothing */
  compile(root: number): CompiledGrammar {
    const drafts: Draft[] = [];
    // Bodies declare further rules while they are drafted.
    for (let i = 0; i < this.#rules.length; i++) drafts.push(this.#draft(this.#rules[i]!));
    const nullable = nullableRules(drafts);
    const dfas = drafts.map((draft, i) => {
      this.budget.place = this.#rules[i]!.place;
      return withoutEmpty(determinize(draft.nfa, draft.start, draft.final));
    });
    const live = liveRules(dfas);
    if (!nullable.has(root) && !live[root]![0]) {
      refuse(this.#rules[root]!.place, "no finite text can match it");
    }
    const ranks = this.#ranks(dfas, live);
    return flattenRules(dfas, live, ranks, root, nullable.has(root));
  }

  #draft({ place, body }: Rule): Draft {
    this.budget.place = place;
    const nfa = new Nfa(this.budget);
    const [start, final] = [nfa.state(), nfa.state()];
    if (body === null) throw new TypeError("A rule was declared and never defined");
    body(nfa, start, final);
    return { nfa, start, final };
  }

  /** Callers before callees, along calls that come before any byte. @throws RequestError for a circle of such calls */
  #ranks(dfas: readonly Dfa[], live: readonly (readonly boolean[])[]): Int32Array {
    const ranks = new Int32Array(dfas.length).fill(-1);
    const entered = new Uint8Array(dfas.length);
    let next = dfas.length;
    const callees = dfas.map(({ edges }, rule) =>
      callsOf(edges[0]!).filter((callee) => live[rule]![0] && live[callee]![0]),
    );
    for (let first = 0; first < dfas.length; first++) {
      const path: { rule: number; at: number }[] = entered[first] ? [] : [{ rule: first, at: 0 }];
      entered[first] = 1;
      while (path.length > 0) {
        const top = path.at(-1)!;
        const callee = callees[top.rule]![top.at++];
        if (callee === undefined) {
          ranks[top.rule] = --next;
          path.pop();
        } else if (!entered[callee]) {
          entered[callee] = 1;
          path.push({ rule: callee, at: 0 });
        } else if (ranks[callee] === -1) {
          refuse(this.#rules[callee]!.place, "it refers to itself without anything in between");
        }
      }
    }
    return ranks;
  }
}

/** Finds the rules that match the empty text and lets every caller step over a call of them. */
function nullableRules(drafts: readonly Draft[]): Set<number> {
  const callers: { rule: number; from: number; to: number }[][] = drafts.map(() => []);
  drafts.forEach(({ nfa }, rule) => {
    nfa.edges.forEach((edges, from) => {
      for (let i = 0; i < edges.length; i += 3) {
        if (edges[i]! >= CALL) callers[edges[i]! - CALL]!.push({ rule, from, to: edges[i + 2]! });
      }
    });
  });
  const nullable = new Set<number>();
  const queue = drafts.map((_, rule) => rule);
  for (let at = 0; at < queue.length; at++) {
    const rule = queue[at]!;
    if (nullable.has(rule) || !matchesEmpty(drafts[rule]!)) continue;
    nullable.add(rule);
    for (const { rule: caller, from, to } of callers[rule]!) {
      drafts[caller]!.nfa.move(from, to);
      queue.push(caller);
    }
  }
  return nullable;
}

function matchesEmpty({ nfa, start, final }: Draft): boolean {
  const seen = new Set([start]);
  for (const state of seen) {
    nfa.budget.spend(1);
    for (const next of nfa.free[state]!) seen.add(next);
  }
  return seen.has(final);
}

/** The automaton without the empty text. */
function withoutEmpty({ edges, final }: Dfa): Dfa {
  if (!final[0]) return { edges, final };
  // The start may be come back to, where it stays final: so there is a second one, at the end, that is swapped in front.
  const moved = edges.length;
  const rename = (state: number) => (state === 0 ? moved : state);
  const renamed = edges.map((list) => list.map((value, i) => (i % 3 === 2 ? rename(value) : value)));
  return { edges: [...renamed, renamed[0]!], final: [false, ...final.slice(1), true] };
}

/** Per rule, the states from which its end can be reached, calls of rules that cannot end being impassable. */
function liveRules(dfas: readonly Dfa[]): boolean[][] {
  const live = dfas.map((dfa) => dfa.edges.map(() => false));
  const callers: Set<number>[] = dfas.map(() => new Set());
  dfas.forEach(({ edges }, rule) => {
    for (const list of edges) for (const callee of callsOf(list)) callers[callee]!.add(rule);
  });
  const passable = (symbol: number) => symbol < CALL || live[symbol - CALL]![0]!;
  const queue = dfas.map((_, i) => dfas.length - 1 - i);
  for (let at = 0; at < queue.length; at++) {
    const rule = queue[at]!;
    const wasLive = live[rule]![0]!;
    live[rule] = liveStates(splitCalls(dfas[rule]!), passable);
    if (!wasLive && live[rule]![0]) queue.push(...callers[rule]!);
  }
  return live;
}
