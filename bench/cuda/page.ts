// The page of a run: a table of what was to be reached, then a table per section. Pure text of what was measured.
import { type ContextFit, fitContexts } from "../../src/bench/fit.ts";
import { type Goal, goalsOf } from "./goals.ts";
import type { Run, Section } from "./results.ts";
import { type DecodeRow, decodeRows, type KernelRow, type PeerRow, type PrefillRow } from "./rows.ts";

/** The whole page. */
export function renderPage(run: Run): string {
  const { setting, sections } = run;
  return [
    setting.driver === "none" ? "# A rehearsal without a CUDA device" : "# A CUDA device",
    "",
    `${setting.device}, driver ${setting.driver}, ${setting.processor}; ${setting.date}, commit ${setting.commit}.`,
    "",
    "Made by `bun bench/cuda.ts`. Random weights in bfloat16, KV in bfloat16 and states as named, contexts filled with random",
    "numbers, greedy tokens. A bound is what would take all of the bandwidth that a copy of 1 GiB showed in the same run.",
    "docs/measuring.md says how every figure is made.",
    "",
    "## What was to be reached",
    "",
    table(["what", "goal", "measured", ""], goalsOf(sections).map(goalRow)),
    "",
    ...sections.flatMap((section) => renderSection(section, sections)),
  ].join("\n");
}

function goalRow({ what, goal, measured, reached }: Goal): string[] {
  return [what, goal, measured ?? "not measured", reached === null ? "" : reached ? "yes" : "no"];
}

function renderSection(section: Section, all: readonly Section[]): string[] {
  const { name, command, status, seconds, rows, notes } = section;
  const failed = status === "failed" ? ["", "```", notes.trim().split("\n").slice(-8).join("\n"), "```"] : [];
  const state = status === "done" ? "" : ` (${status})`;
  const body = rows.length === 0 ? [] : ["", ...renderRows(name, rows, all)];
  return [`## ${name}${state}`, "", `\`${command}\`, ${seconds.toFixed(0)} s`, ...failed, ...body, ""];
}

function renderRows(name: string, rows: readonly unknown[], all: readonly Section[]): string[] {
  if (name.startsWith("decode")) return renderDecode(rows as readonly DecodeRow[]);
  if (name.startsWith("prefill")) return [renderPrefill(rows as readonly PrefillRow[])];
  if (name.startsWith("pytorch")) {
    const own = all.find((section) => section.name === name.replace("pytorch", "decode"));
    return [renderPeer(rows as readonly PeerRow[], (own?.rows ?? []) as readonly DecodeRow[])];
  }
  if (name.startsWith("kernels")) return renderKernels(rows[0] as KernelDocument);
  const { results, failed } = rows[0] as { results: unknown[]; failed: number };
  return [`${results.length - failed} of ${results.length} cases agree with the reference.`];
}

/** Contexts down, replaced layers across; the same for every batch. */
function renderDecode(rows: readonly DecodeRow[]): string[] {
  const batches = [...new Set(rows.map(batchName))];
  const hybrids = [...new Set(rows.map(({ hybrid }) => hybrid))];
  const cell = (row: DecodeRow | undefined) => {
    if (row === undefined) return "";
    const speedup = row.speedup === null ? "" : `, ${row.speedup.toFixed(2)}x of ${row.boundSpeedup!.toFixed(2)}x`;
    const batch = row.largest ? `${row.batch}: ` : "";
    return `${batch}${rate(row.tokensPerSecond)} (${percent(row.share)}${speedup})`;
  };
  const tables = batches.flatMap((batch) => {
    const own = rows.filter((row) => batchName(row) === batch);
    const contexts = [...new Set(own.map(({ context }) => context))];
    const body = contexts.map((context) => [
      String(context),
      ...hybrids.map((hybrid) => cell(own.find((row) => row.context === context && row.hybrid === hybrid))),
    ]);
    return [
      `${batch}, tokens/s (share of the bound, speed-up of the bound's):`,
      "",
      table(["context", ...hybrids], body),
      "",
    ];
  });
  const fits = hybrids.flatMap((hybrid) => fitLine(hybrid, decodeRows(rows, hybrid)));
  return [...tables, ...(fits.length > 0 ? ["One sequence's step over its context:", "", ...fits] : [])];
}

function batchName({ largest, batch }: DecodeRow): string {
  return largest ? "Largest batch" : `Batch ${batch}`;
}

function fitLine(hybrid: string, rows: readonly DecodeRow[]): string[] {
  const fit: ContextFit | null = fitContexts(
    rows.map(({ meanContext, tokensPerSecond }) => ({ context: meanContext, seconds: 1 / tokensPerSecond.mean })),
  );
  if (fit === null) return [];
  return [
    `- ${hybrid}: ${(1e3 * fit.interceptSeconds).toFixed(3)} ms + ${(1e3 * fit.slopeSeconds).toExponential(2)} ms a token`,
  ];
}

function renderPrefill(rows: readonly PrefillRow[]): string {
  return table(
    ["hybrid", "tokens", "tokens/s", "TFLOP/s", "of the matrix rate"],
    rows.map((row) => [
      row.hybrid,
      String(row.context),
      rate(row.tokensPerSecond),
      tera(row.flopsPerSecond),
      `${percent(row.share)} of ${tera(row.limit)}`,
    ]),
  );
}

/** Beside what graft made of the same case in this run. */
function renderPeer(rows: readonly PeerRow[], own: readonly DecodeRow[]): string {
  const versions = [...new Set(rows.map(({ torch, transformers }) => `torch ${torch}, transformers ${transformers}`))];
  return table(
    [versions.join("; "), "batch", "context", "tokens/s", "graft", "graft over it"],
    rows.map(({ mode, batch, context, tokensPerSecond, error }) => {
      const graft = own.find(
        (row) => row.numLinear === 0 && !row.largest && row.batch === batch && row.context === context,
      );
      return [
        mode,
        String(batch),
        String(context),
        tokensPerSecond === undefined ? (error ?? "") : rate(tokensPerSecond),
        graft === undefined ? "" : rate(graft.tokensPerSecond),
        graft && tokensPerSecond ? `${(graft.tokensPerSecond.mean / tokensPerSecond.mean).toFixed(2)}x` : "",
      ];
    }),
  );
}

interface KernelDocument {
  readonly figures: readonly KernelRow[];
}

function renderKernels({ figures }: KernelDocument): string[] {
  return [
    table(
      ["case", "µs", "GB/s", "TFLOP/s", "share"],
      figures.map((row) => [
        row.name ?? "",
        (1e6 * row.bestSeconds).toFixed(2),
        (row.bytesPerSecond / 1e9).toFixed(0),
        tera(row.flopsPerSecond),
        `${percent(row.share)} of ${row.bound}`,
      ]),
    ),
  ];
}

function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(titles), line(titles.map(() => "---")), ...rows.map(line)].join("\n");
}

function rate({ mean, deviation }: { readonly mean: number; readonly deviation: number }): string {
  const digits = mean >= 1000 ? 0 : 1;
  return `${mean.toFixed(digits)} ± ${deviation.toFixed(digits)}`;
}

const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
const tera = (flops: number) => (flops / 1e12).toFixed(flops >= 1e14 ? 0 : 1);
