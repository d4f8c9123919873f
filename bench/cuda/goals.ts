// What was to be reached on an H200, and whether it was: shares of what the same run showed the device can do.
import { fitContexts } from "../../src/bench/fit.ts";
import type { Section } from "./results.ts";
import { type DecodeRow, decodeRows, type KernelRow, type PrefillRow } from "./rows.ts";

export interface Goal {
  readonly what: string;
  readonly goal: string;
  /** null where nothing was measured. */
  readonly measured: string | null;
  readonly reached: boolean | null;
}

const SHORT = 512;
const MIDDLE = 16_384;
const LONG = 65_536;

/** Every goal, of the models that were measured. */
export function goalsOf(sections: readonly Section[]): Goal[] {
  const decode = rowsBySubject<DecodeRow>(sections, "decode ");
  const prefill = rowsBySubject<PrefillRow>(sections, "prefill ");
  return [
    ...decode.flatMap(([name, rows]) => [
      oneSequence(name, rows),
      slope(name, rows),
      ...largest(name, rows),
      curve(name, rows),
    ]),
    ...prefill.map(([name, rows]) => prompt(name, rows)),
    ...rowsBySubject<KernelDocument>(sections, "kernels ").flatMap(([name, rows]) =>
      steps(name, rows[0]?.figures ?? []),
    ),
  ];
}

function rowsBySubject<T>(sections: readonly Section[], prefix: string): [string, readonly T[]][] {
  const own = sections.filter(({ name }) => name.startsWith(prefix) && !name.includes(","));
  return own.map(({ name, rows }) => [name.slice(prefix.length), rows as readonly T[]]);
}

function oneSequence(name: string, rows: readonly DecodeRow[]): Goal {
  const row = rows.find((each) => each.batch === 1 && each.context === SHORT && each.numLinear === 0);
  return share(`${name}: share of the bandwidth, batch 1 at ${SHORT}`, 0.75, row?.share);
}

/** Keys and values of one token over the time that a token of context adds. */
function slope(name: string, rows: readonly DecodeRow[]): Goal {
  const base = decodeRows(rows, "base");
  const fit = fitContexts(base.map((row) => ({ context: row.meanContext, seconds: 1 / row.tokensPerSecond.mean })));
  const row = base.at(-1);
  const measured = fit && row ? row.kvBytes / row.lastContext / row.limit / fit.slopeSeconds : undefined;
  return share(`${name}: share of the bandwidth of what context adds, batch 1`, 0.9, measured);
}

/** With no, half and three quarters of the layers replaced. */
function largest(name: string, rows: readonly DecodeRow[]): Goal[] {
  const counts = [...new Set(rows.map(({ numLinear }) => numLinear))].sort((a, b) => a - b).slice(0, -1);
  return counts
    .filter((_, i) => i !== 1)
    .map((numLinear) => {
      const row = rows.find((each) => each.largest && each.context === LONG && each.numLinear === numLinear);
      return share(`${name}: share of the bandwidth, largest batch at ${LONG}, k = ${numLinear}`, 0.85, row?.share);
    });
}

/** The worst of all cases. */
function curve(name: string, rows: readonly DecodeRow[]): Goal {
  const ratios = rows.flatMap(({ speedup, boundSpeedup }) =>
    speedup === null || boundSpeedup === null ? [] : [speedup / boundSpeedup],
  );
  const measured = ratios.length === 0 ? undefined : Math.min(...ratios);
  return share(`${name}: speed-up over k = 0 as a share of the bound's, the worst case`, 0.9, measured);
}

interface KernelDocument {
  readonly figures: readonly KernelRow[];
}

/** Single steps of a layer: products of one row, and states of one sequence and of many. */
function steps(name: string, figures: readonly KernelRow[]): Goal[] {
  const of = (step: string) => figures.find((figure) => figure.name === `${name} ${step}`);
  const states = (["gla", "gdn"] as const).flatMap((kind) => [
    atMost(`${name}: ${kind} step of one sequence`, 4, of(`${kind} 1 rows, f32 states`)?.bestSeconds),
    share(
      `${name}: share of the bandwidth, ${kind} step of 128 sequences`,
      0.85,
      of(`${kind} 128 rows, f32 states`)?.share,
    ),
  ]);
  const product = of("gated_linear 1 rows")?.share;
  return [share(`${name}: share of the bandwidth, gate and up of one row`, 0.9, product), ...states];
}

function atMost(what: string, microseconds: number, seconds: number | undefined): Goal {
  const known = seconds !== undefined;
  return {
    what,
    goal: `≤ ${microseconds} µs`,
    measured: known ? `${(1e6 * seconds).toFixed(2)} µs` : null,
    reached: known ? seconds <= 1e-6 * microseconds : null,
  };
}

function prompt(name: string, rows: readonly PrefillRow[]): Goal {
  const row = rows.find((each) => each.context === MIDDLE && each.numLinear === 0);
  return share(`${name}: share of the matrix rate, a prompt of ${MIDDLE}`, 0.55, row?.share);
}

function share(what: string, least: number, measured: number | undefined): Goal {
  const text = (x: number) => `${(100 * x).toFixed(0)} %`;
  const known = measured !== undefined;
  return {
    what,
    goal: `≥ ${text(least)}`,
    measured: known ? text(measured) : null,
    reached: known ? measured >= least : null,
  };
}
