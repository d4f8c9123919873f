// Deterministic rules as the flat arrays of a compiled grammar.
import { createHash } from "node:crypto";
import type { Dfa } from "./automaton.ts";
import type { CompiledGrammar } from "./grammar.ts";
import { CALL } from "./pieces.ts";

/** The rules that are called on some edges. */
export function callsOf(edges: readonly number[]): number[] {
  const rules: number[] = [];
  for (let i = 0; i < edges.length; i += 3) {
    for (let symbol = Math.max(CALL, edges[i]!); symbol <= edges[i + 1]!; symbol++) rules.push(symbol - CALL);
  }
  return rules;
}

/** Every call on an edge of its own: joined edges hold rules that live and rules that do not. */
export function splitCalls({ edges, final }: Dfa): Dfa {
  const split = edges.map((list) => {
    if (!list.some((value, i) => i % 3 === 1 && value > CALL && value !== list[i - 1])) return list;
    const out: number[] = [];
    for (let i = 0; i < list.length; i += 3) {
      const [lo, hi, to] = [list[i]!, list[i + 1]!, list[i + 2]!];
      if (lo < CALL) out.push(lo, Math.min(hi, CALL - 1), to);
      for (let symbol = Math.max(lo, CALL); symbol <= hi; symbol++) out.push(symbol, symbol, to);
    }
    return out;
  });
  return { edges: split, final };
}

/** The rules' states numbered through: a number per rule and state, -1 for a state that is left out. */
function numberStates(dfas: readonly Dfa[], live: readonly (readonly boolean[])[]) {
  const ruleStart = new Int32Array(dfas.length);
  let numStates = 0;
  const numbers = dfas.map(({ edges }, rule) => {
    ruleStart[rule] = numStates;
    // A rule that is never called keeps its start, so that every rule has one.
    return Int32Array.from(edges, (_, state) => (state === 0 || live[rule]![state] ? numStates++ : -1));
  });
  return { ruleStart, numbers };
}

/** The grammar of automata whose live states are known. */
export function flattenRules(
  dfas: readonly Dfa[],
  live: readonly (readonly boolean[])[],
  ruleRank: Int32Array,
  root: number,
  allowsEmpty: boolean,
): CompiledGrammar {
  const { ruleStart, numbers } = numberStates(dfas, live);
  const final: number[] = [];
  const bytes = { at: [0], lo: [] as number[], hi: [] as number[], to: [] as number[] };
  const calls = { at: [0], rule: [] as number[], to: [] as number[] };
  dfas.forEach((dfa, rule) => {
    splitCalls(dfa).edges.forEach((list, state) => {
      if (numbers[rule]![state] === -1) return;
      for (let i = 0; i < list.length; i += 3) {
        const [lo, hi, target] = [list[i]!, list[i + 1]!, list[i + 2]!];
        if (!live[rule]![target]) continue;
        if (lo < CALL) {
          bytes.lo.push(lo);
          bytes.hi.push(hi);
          bytes.to.push(numbers[rule]![target]!);
        } else if (live[lo - CALL]![0]) {
          calls.rule.push(lo - CALL);
          calls.to.push(numbers[rule]![target]!);
        }
      }
      bytes.at.push(bytes.to.length);
      calls.at.push(calls.to.length);
      final.push(dfa.final[state] ? 1 : 0);
    });
  });
  const arrays = {
    ruleStart,
    ruleRank,
    final: Uint8Array.from(final),
    byteAt: Int32Array.from(bytes.at),
    byteLo: Uint8Array.from(bytes.lo),
    byteHi: Uint8Array.from(bytes.hi),
    byteTo: Int32Array.from(bytes.to),
    callAt: Int32Array.from(calls.at),
    callRule: Int32Array.from(calls.rule),
    callTo: Int32Array.from(calls.to),
  };
  return { key: keyOf(root, allowsEmpty, Object.values(arrays)), root, allowsEmpty, ...arrays };
}

function keyOf(root: number, allowsEmpty: boolean, arrays: readonly (Int32Array | Uint8Array)[]): string {
  const hash = createHash("sha256").update(`${root} ${allowsEmpty}`);
  for (const array of arrays) hash.update(`,${array.length},`).update(array);
  return hash.digest("hex");
}
