// graft bench decode: tokens per second of the engine at given contexts, beside what the machine's memory allows. The
// measuring is in src/bench.
import { type Bandwidth, bandwidthOf } from "../bench/bandwidth.ts";
import {
  CHECKED_TOKENS,
  checkDecode,
  type DecodeCase,
  type DecodeFigure,
  decodeSizes,
  largestBatch,
  measureDecode,
} from "../bench/decode.ts";
import { fitContexts } from "../bench/fit.ts";
import { Ops } from "../ops/ops.ts";
import { caseColumns, giga, memoryColumns, percent, rateCell } from "./bench_columns.ts";
import {
  batchesIn,
  type CaseRow,
  cacheTypes,
  countsIn,
  MODEL_BENCH_FLAGS,
  type OpenedSubject,
  openSubject,
  variantsOf,
} from "./bench_models.ts";
import { agreeingVariants, doesNotFit, Refusals } from "./bench_refusals.ts";
import { type BenchColumn, RowWriter } from "./bench_table.ts";
import { defineCommand } from "./command.ts";
import type { Flags } from "./config.ts";

/** Rates over those of no replaced layer at the same context and the same, or each the largest, batch; null without these. */
type DecodeRow = CaseRow & {
  readonly context: number;
  readonly largest: boolean;
  readonly speedup: number | null;
  readonly boundSpeedup: number | null;
} & DecodeFigure;

const times = (factor: number | null) => (factor === null ? "-" : `${factor.toFixed(2)}x`);

const COLUMNS: readonly BenchColumn<DecodeRow>[] = [
  ...caseColumns,
  { title: "t/s", align: "right", cell: (row) => rateCell(row.tokensPerSecond) },
  { title: "bound", align: "right", cell: (row) => row.bound.tokensPerSecond.toFixed(1) },
  { title: "textbook", align: "right", cell: (row) => row.textbook.tokensPerSecond.toFixed(1) },
  { title: "speed-up", align: "right", cell: (row) => times(row.speedup) },
  { title: "of bound", align: "right", cell: (row) => times(row.boundSpeedup) },
  { title: "p50 ms", align: "right", cell: (row) => (1000 * row.stepSeconds.p50).toFixed(2) },
  { title: "p99 ms", align: "right", cell: (row) => (1000 * row.stepSeconds.p99).toFixed(2) },
  { title: "GB/s", align: "right", cell: (row) => giga(row.bytesPerSecond) },
  { title: "share", align: "right", cell: (row) => `${percent(row.share)} of ${giga(row.limit)} ${row.limitKind}` },
  {
    title: "outside kernels",
    align: "right",
    cell: (row) => (row.outsideKernels === null ? "-" : `${(100 * row.outsideKernels).toFixed(1)}%`),
  },
  { title: "ahead", align: "right", cell: (row) => percent(row.stepsAhead) },
  { title: "replayed", align: "right", cell: (row) => percent(row.stepsReplayed) },
  ...memoryColumns,
];

const FLAGS = {
  ...MODEL_BENCH_FLAGS,
  batch: {
    type: "string",
    value: "N,N,...|max",
    default: "1",
    help: "sequences at once; max = as many as fit",
    env: false,
  },
  "max-batch": { type: "integer", min: 1, max: 4096, default: 1024, help: "most that --batch max tries", env: false },
  prompts: {
    type: "string",
    choices: ["auto", "computed", "random"],
    default: "auto",
    help: "random: KV and states are random numbers instead of computed; auto: random on a CUDA device",
    env: false,
  },
  tokens: { type: "integer", min: 1, max: 65_536, default: 32, help: "tokens per sequence and repeat", env: false },
  "time-kernels": { type: "boolean", help: "show the share of a step spent outside kernels", env: false },
} as const;

type DecodeFlags = Flags<typeof FLAGS>;

export const benchDecodeCommand = defineCommand(
  {
    name: "bench decode",
    summary: "Decode rate of the engine as a share of what the memory allows",
    positionals: ["[MODEL]"],
    flags: FLAGS,
    details: `MODEL is a folder or a registered name, with :HYBRID or without. Six steps warm up; the first token counts as prefill.
Repeats go on in the same sequences. GB/s counts the weights, KV and states that a step moves (states are written once in a
block of tokens only). The share is of a streaming read of as many bytes between the repeats, over the fastest step; on a
CUDA device of a copy of 1 GiB before and after each case, over the mean step. "bound" is the rate at which these bytes would
take all of that bandwidth, "textbook" the same for the full model's weights and states read and written every step.

With computed prompts every figure stands only after a forward pass over prompt and answer has given the same tokens and
log-probabilities, bit for bit. With random ones, short sequences of every hybrid pass that test first, and a small model of
the same head layout has the reference's log-probabilities. Weights come from memory unless a cache holds them all.`,
    examples: [
      "graft bench decode --shape qwen2.5-0.5b --contexts 512,2048",
      "graft bench decode --shape llama-3.2-1b --replaced all --variant jet --kv-dtype bf16 -o json",
      "graft bench decode --shape llama-3.2-3b --contexts 512,2048,16384,65536 --replaced 0,7,14,21,28 --batch 1,16,max",
    ],
  },
  async ({ flags, positionals }) => {
    const [contexts, batches] = [countsIn("contexts", flags.contexts), batchesIn(flags.batch)];
    const longest = Math.max(CHECKED_TOKENS, longestSequence(flags, Math.max(...contexts), batches));
    const opened = await openSubject(positionals[0], flags, longest, flags["time-kernels"]);
    const { subject, masks } = opened;
    const types = cacheTypes(flags, subject.ops);
    const prompts = flags.prompts === "auto" ? (subject.ops.kind === "cuda" ? "random" : "computed") : flags.prompts;
    const refusals = new Refusals();
    const checked = prompts === "random" ? await check(opened, flags, refusals) : null;
    const bandwidth = bandwidthOf(subject.ops);
    const writer = new RowWriter(COLUMNS, flags.output);
    for (const wanted of batches) {
      for (const context of contexts) {
        for (const mask of masks) {
          if (checked !== null && !checked.has(mask.name)) continue;
          const common = { ...stepsOf(flags), ...types, mask, context, prompts } as const;
          const measured = refusals.attempt(`d${context}, ${mask.name}, batch ${wanted}`, () =>
            measureBatch(subject, common, wanted, flags["max-batch"], bandwidth),
          );
          if (measured === null) continue;
          const { batch, figure } = measured;
          const row = opened.describe(mask, batch, `tg${flags.tokens} @ d${context}`, figure.lastContext);
          const numChecked = checked?.get(mask.name) ?? figure.numChecked;
          const known = { ...row, context, largest: wanted === "max", ...figure, numChecked };
          writer.add({ ...known, ...speedups(writer.rows, known) });
          process.stderr.write(`${row.test}, ${mask.name}, batch ${batch}: ${rateCell(figure.tokensPerSecond)} t/s\n`);
          if (figure.replayProblem !== null)
            process.stderr.write(`  steps are not replayed: ${figure.replayProblem}\n`);
        }
      }
    }
    process.stdout.write(writer.rest());
    writeFits(writer.rows, bandwidth.kind);
    return refusals.status(writer.rows.length);
  },
);

/** Positions that the cases need, whatever the device: prompts that are computed together need the most. */
function longestSequence(flags: DecodeFlags, context: number, batches: readonly (number | "max")[]): number {
  const batch = Math.max(...batches.map((wanted) => (wanted === "max" ? flags["max-batch"] : wanted)));
  const prompts = flags.prompts === "random" ? "random" : "computed";
  return decodeSizes({ ...stepsOf(flags), context, batch, prompts } as DecodeCase).maxTokens;
}

function stepsOf({ tokens, repeats, chunk }: DecodeFlags) {
  return { tokens, repeats, chunk: chunk ?? 512 };
}

/** One case; where the largest batch turns out not to fit after all, with a few sequences less. */
function measureBatch(
  subject: OpenedSubject["subject"],
  one: Omit<DecodeCase, "batch">,
  wanted: number | "max",
  most: number,
  bandwidth: Bandwidth,
): { readonly batch: number; readonly figure: DecodeFigure } {
  for (let batch = wanted === "max" ? largestBatch(subject, one, most) : wanted; ; batch = Math.floor(0.95 * batch)) {
    try {
      return { batch, figure: measureDecode(subject, { ...one, batch }, bandwidth) };
    } catch (error) {
      if (wanted !== "max" || batch === 1 || !doesNotFit(error)) throw error;
    }
  }
}

/** What must hold before contexts that nobody computed are measured; sequences compared, by hybrids that passed. */
async function check(
  { subject, masks, weightType }: OpenedSubject,
  flags: DecodeFlags,
  refusals: Refusals,
): Promise<Map<string, number>> {
  const types = cacheTypes(flags, subject.ops);
  const reference = await Ops.load({ device: "cpu", isa: "reference", threads: 1 });
  const { config } = subject.model;
  const wanted = { ...types, weightType };
  const agreeing = agreeingVariants(subject.ops, reference, config, variantsOf(masks), wanted, refusals);
  const passed = new Map<string, number>();
  for (const mask of masks) {
    if (!variantsOf([mask]).every((variant) => agreeing.includes(variant))) continue;
    const numChecked = refusals.attempt(mask.name, () => checkDecode(subject, mask, types));
    if (numChecked !== null) passed.set(mask.name, numChecked);
  }
  return passed;
}

/** The base comes first in the order of masks. */
function speedups(rows: readonly DecodeRow[], row: Omit<DecodeRow, "speedup" | "boundSpeedup">) {
  const base = rows.find(
    ({ numLinear, context, batch, largest }) =>
      numLinear === 0 && context === row.context && (row.largest ? largest : !largest && batch === row.batch),
  );
  if (row.numLinear === 0 || base === undefined) return { speedup: null, boundSpeedup: null };
  // What other work on the processor takes is no part of a speed-up.
  const rate = ({ tokensPerSecond, limitKind }: typeof row) =>
    limitKind === "read" ? tokensPerSecond.best : tokensPerSecond.mean;
  return {
    speedup: rate(row) / rate(base),
    boundSpeedup: row.bound.bytes === 0 ? null : row.batch / row.bound.bytes / (base.batch / base.bound.bytes),
  };
}

/** Intercept and slope of one sequence's steps over the contexts. */
function writeFits(rows: readonly DecodeRow[], kind: Bandwidth["kind"]): void {
  for (const hybrid of new Set(rows.map((row) => row.hybrid))) {
    const own = rows.filter((row) => row.hybrid === hybrid && row.batch === 1 && !row.largest);
    const fit = fitContexts(own.map((row) => ({ context: row.meanContext, seconds: 1 / row.tokensPerSecond.mean })));
    if (fit === null) continue;
    const { limit, kvBytes, lastContext } = own.at(-1)!;
    const ideal = kvBytes / lastContext / limit;
    const share = ideal > 0 && fit.slopeSeconds > 0 ? `, ${percent(ideal / fit.slopeSeconds)} of the ${kind}` : "";
    process.stderr.write(
      `${hybrid}: ${(1e3 * fit.interceptSeconds).toFixed(3)} ms + ${(1e3 * fit.slopeSeconds).toExponential(2)} ms a token of context${share}\n`,
    );
  }
}
