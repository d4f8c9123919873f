// Finite automata over ranges of integers, which stand for code points, bytes or calls of rules; what they stand for is
// the callers' business. Building (Nfa), making deterministic (Dfa) and intersecting.
import type { Budget } from "./budget.ts";

/** When a free move may be taken: always, only at the very start of the text, only at its very end. */
export type FreeMove = "always" | "start" | "end";

/** A nondeterministic automaton under construction. Edges of a state are flat triples lo, hi, to. */
export class Nfa {
  readonly edges: number[][] = [];
  readonly free: number[][] = [];
  /** Conditional moves, rare: by state. */
  readonly atStart = new Map<number, number[]>();
  readonly atEnd = new Map<number, number[]>();
  readonly #budget: Budget;

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  get budget(): Budget {
    return this.#budget;
  }

  state(): number {
    this.#budget.spend(1);
    this.#budget.checkStates(this.edges.length);
    this.edges.push([]);
    this.free.push([]);
    return this.edges.length - 1;
  }

  edge(from: number, lo: number, hi: number, to: number): void {
    this.#budget.spend(1);
    this.edges[from]!.push(lo, hi, to);
  }

  move(from: number, to: number, when: FreeMove = "always"): void {
    this.#budget.spend(1);
    if (when === "always") {
      this.free[from]!.push(to);
      return;
    }
    const moves = when === "start" ? this.atStart : this.atEnd;
    moves.set(from, [...(moves.get(from) ?? []), to]);
  }
}

/** Deterministic; state 0 is the start. Edges of a state are flat triples lo, hi, to: sorted and disjoint. */
export interface Dfa {
  readonly edges: readonly (readonly number[])[];
  readonly final: readonly boolean[];
}

/** The deterministic automaton of the texts that lead from `start` to `final`. @throws RequestError where it is too large */
export function determinize(nfa: Nfa, start: number, final: number): Dfa {
  const subsets = new Subsets(nfa, final);
  subsets.intern(subsets.close([start], true), true);
  for (let at = 0; at < subsets.members.length; at++) subsets.expand(at);
  return { edges: subsets.edges, final: subsets.final };
}

/** The subset construction, state by state. */
class Subsets {
  readonly members: (readonly number[])[] = [];
  readonly edges: number[][] = [];
  readonly final: boolean[] = [];
  readonly #known = new Map<string, number>();
  readonly #seen: Uint32Array;
  readonly #nfa: Nfa;
  readonly #final: number;
  #mark = 0;

  constructor(nfa: Nfa, final: number) {
    this.#nfa = nfa;
    this.#final = final;
    this.#seen = new Uint32Array(nfa.edges.length);
  }

  /** All states that free moves lead to; those that matter for what follows, in order. */
  close(from: readonly number[], atStart: boolean, atEnd = false): number[] {
    const { free, edges, atStart: starts, atEnd: ends } = this.#nfa;
    const mark = ++this.#mark;
    const reached: number[] = [];
    const visit = (state: number) => {
      if (this.#seen[state] === mark) return;
      this.#seen[state] = mark;
      reached.push(state);
    };
    from.forEach(visit);
    for (let i = 0; i < reached.length; i++) {
      const state = reached[i]!;
      free[state]!.forEach(visit);
      if (atStart) starts.get(state)?.forEach(visit);
      if (atEnd) ends.get(state)?.forEach(visit);
    }
    this.#nfa.budget.spend(reached.length);
    return reached
      .filter((state) => state === this.#final || edges[state]!.length > 0 || ends.has(state))
      .sort((a, b) => a - b);
  }

  intern(set: readonly number[], atStart = false): number {
    const key = set.join();
    // The start's own finality may rest on moves that hold only there, so nothing else may share it.
    const known = this.#known.get(key);
    if (known !== undefined && !atStart) return known;
    const id = this.members.length;
    this.#nfa.budget.checkStates(id);
    if (!atStart || this.#nfa.atStart.size === 0) this.#known.set(key, id);
    this.members.push(set);
    this.edges.push([]);
    const { atEnd } = this.#nfa;
    const ends = atEnd.size === 0 ? set : this.close(set, atStart, true);
    this.final.push(ends.includes(this.#final));
    return id;
  }

  expand(id: number): void {
    const all = this.members[id]!.flatMap((state) => this.#nfa.edges[state]!);
    const points = new Set<number>();
    for (let i = 0; i < all.length; i += 3) points.add(all[i]!).add(all[i + 1]! + 1);
    const cuts = [...points].sort((a, b) => a - b);
    const place = new Map(cuts.map((cut, i) => [cut, i]));
    const targets: number[][] = cuts.map(() => []);
    for (let i = 0; i < all.length; i += 3) {
      for (let cut = place.get(all[i]!)!; cuts[cut]! <= all[i + 1]!; cut++) targets[cut]!.push(all[i + 2]!);
    }
    const out = this.edges[id]!;
    targets.forEach((set, i) => {
      if (set.length === 0) return;
      this.#nfa.budget.spend(set.length);
      const next = this.close(set, false);
      if (next.length > 0) appendEdge(out, cuts[i]!, cuts[i + 1]! - 1, this.intern(next));
    });
  }
}

/** Appends an edge behind sorted ones, joining it to a neighbour with the same target. */
function appendEdge(edges: number[], lo: number, hi: number, to: number): void {
  const n = edges.length;
  if (n > 0 && edges[n - 2] === lo - 1 && edges[n - 1] === to) edges[n - 2] = hi;
  else edges.push(lo, hi, to);
}

/** The texts that both automata take. @throws RequestError where the product is too large */
export function intersect(a: Dfa, b: Dfa, budget: Budget): Dfa {
  const edges: number[][] = [];
  const final: boolean[] = [];
  const pairs: [number, number][] = [];
  const known = new Map<number, number>();
  const intern = (x: number, y: number) => {
    const key = x * b.final.length + y;
    const id = known.get(key) ?? pairs.length;
    if (id === pairs.length) {
      budget.checkStates(id);
      known.set(key, id);
      pairs.push([x, y]);
      final.push(a.final[x]! && b.final[y]!);
      edges.push([]);
    }
    return id;
  };
  intern(0, 0);
  for (let at = 0; at < pairs.length; at++) {
    const [x, y] = pairs[at]!;
    const [left, right] = [a.edges[x]!, b.edges[y]!];
    budget.spend(left.length + right.length);
    for (let i = 0, j = 0; i < left.length && j < right.length; ) {
      const lo = Math.max(left[i]!, right[j]!);
      const hi = Math.min(left[i + 1]!, right[j + 1]!);
      if (lo <= hi) appendEdge(edges[at]!, lo, hi, intern(left[i + 2]!, right[j + 2]!));
      if (left[i + 1]! < right[j + 1]!) i += 3;
      else j += 3;
    }
  }
  return { edges, final };
}

/**
 * Which states lead to a final one by edges that can be passed.
 * @param passable whether an edge over symbols lo.. can ever be passed; default: all
 */
export function liveStates({ edges, final }: Dfa, passable: (lo: number) => boolean = () => true): boolean[] {
  const before: number[][] = edges.map(() => []);
  edges.forEach((list, from) => {
    for (let i = 0; i < list.length; i += 3) if (passable(list[i]!)) before[list[i + 2]!]!.push(from);
  });
  const live = final.slice();
  const queue = live.flatMap((is, state) => (is ? [state] : []));
  for (let at = 0; at < queue.length; at++) {
    for (const from of before[queue[at]!]!) {
      if (live[from]) continue;
      live[from] = true;
      queue.push(from);
    }
  }
  return live;
}
