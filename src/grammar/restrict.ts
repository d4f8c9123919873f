// A grammar cut down to the bytes that a vocabulary can write one by one, so that no text in it leads where nothing can
// follow. Most vocabularies hold every byte and need none of this.
import type { CompiledGrammar } from "./grammar.ts";

/** The part of the grammar that uses these bytes only; null where nothing is left. */
export function restrictTo(grammar: CompiledGrammar, bytes: ReadonlySet<number>): CompiledGrammar | null {
  if (bytes.size === 256) return grammar;
  const live = liveStates(grammar, bytes);
  if (!grammar.allowsEmpty && live[grammar.ruleStart[grammar.root]!] === 0) return null;
  const { final, byteAt, byteTo, byteLo, byteHi, callAt, callTo, callRule, ruleStart } = grammar;
  const kept = { byteAt: [0], byteLo: [] as number[], byteHi: [] as number[], byteTo: [] as number[] };
  const calls = { callAt: [0], callRule: [] as number[], callTo: [] as number[] };
  for (let state = 0; state < final.length; state++) {
    for (let edge = byteAt[state]!; edge < byteAt[state + 1]!; edge++) {
      if (live[byteTo[edge]!] === 0) continue;
      for (const [lo, hi] of runs(byteLo[edge]!, byteHi[edge]!, bytes)) {
        kept.byteLo.push(lo);
        kept.byteHi.push(hi);
        kept.byteTo.push(byteTo[edge]!);
      }
    }
    for (let edge = callAt[state]!; edge < callAt[state + 1]!; edge++) {
      if (live[callTo[edge]!] === 0 || live[ruleStart[callRule[edge]!]!] === 0) continue;
      calls.callRule.push(callRule[edge]!);
      calls.callTo.push(callTo[edge]!);
    }
    kept.byteAt.push(kept.byteTo.length);
    calls.callAt.push(calls.callTo.length);
  }
  return {
    ...grammar,
    byteAt: Int32Array.from(kept.byteAt),
    byteLo: Uint8Array.from(kept.byteLo),
    byteHi: Uint8Array.from(kept.byteHi),
    byteTo: Int32Array.from(kept.byteTo),
    callAt: Int32Array.from(calls.callAt),
    callRule: Int32Array.from(calls.callRule),
    callTo: Int32Array.from(calls.callTo),
  };
}

/** 1 for states from which the end of their rule can be written. */
function liveStates(grammar: CompiledGrammar, bytes: ReadonlySet<number>): Uint8Array {
  const { final, byteAt, byteTo, byteLo, byteHi, callAt, callTo, callRule, ruleStart } = grammar;
  const live = final.slice();
  const canStep = (state: number) => {
    for (let edge = byteAt[state]!; edge < byteAt[state + 1]!; edge++) {
      if (live[byteTo[edge]!] === 1 && runs(byteLo[edge]!, byteHi[edge]!, bytes).length > 0) return true;
    }
    for (let edge = callAt[state]!; edge < callAt[state + 1]!; edge++) {
      if (live[callTo[edge]!] === 1 && live[ruleStart[callRule[edge]!]!] === 1) return true;
    }
    return false;
  };
  for (let changed = true; changed; ) {
    changed = false;
    // States of a rule mostly lead to later ones, so that going backwards takes few rounds.
    for (let state = final.length - 1; state >= 0; state--) {
      if (live[state] === 1 || !canStep(state)) continue;
      live[state] = 1;
      changed = true;
    }
  }
  return live;
}

/** The parts of lo..hi that are in the set. */
function runs(lo: number, hi: number, bytes: ReadonlySet<number>): [number, number][] {
  const out: [number, number][] = [];
  for (let byte = lo; byte <= hi; byte++) {
    if (!bytes.has(byte)) continue;
    const last = out.at(-1);
    if (last !== undefined && last[1] === byte - 1) last[1] = byte;
    else out.push([byte, byte]);
  }
  return out;
}
