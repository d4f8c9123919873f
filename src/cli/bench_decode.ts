// graft bench decode: tokens per second of the engine at given contexts, beside the machine's streaming read. The measuring
// is in src/bench.
import { type DecodeCase, type DecodeFigure, decodeSizes, measureDecode } from "../bench/decode.ts";
import { StreamingRead } from "../bench/machine.ts";
import { caseColumns, giga, memoryColumns, percent, rateCell } from "./bench_columns.ts";
import { type CaseRow, cacheTypes, countsIn, MODEL_BENCH_FLAGS, openSubject } from "./bench_models.ts";
import { type BenchColumn, formatRows } from "./bench_table.ts";
import { defineCommand } from "./command.ts";

/** Rate over that of no replaced layer at the same context and batch; null where that was not measured. */
type DecodeRow = CaseRow & { readonly context: number; readonly speedup: number | null } & DecodeFigure;

const COLUMNS: readonly BenchColumn<DecodeRow>[] = [
  ...caseColumns,
  { title: "t/s", align: "right", cell: (row) => rateCell(row.tokensPerSecond) },
  { title: "speed-up", align: "right", cell: (row) => (row.speedup === null ? "-" : `${row.speedup.toFixed(2)}x`) },
  { title: "p50 ms", align: "right", cell: (row) => (1000 * row.stepSeconds.p50).toFixed(2) },
  { title: "p99 ms", align: "right", cell: (row) => (1000 * row.stepSeconds.p99).toFixed(2) },
  { title: "GB/s", align: "right", cell: (row) => giga(row.bytesPerSecond) },
  { title: "of read", align: "right", cell: (row) => `${percent(row.share)} of ${giga(row.limit)}` },
  {
    title: "outside kernels",
    align: "right",
    cell: (row) => (row.outsideKernels === null ? "-" : `${(100 * row.outsideKernels).toFixed(1)}%`),
  },
  ...memoryColumns,
];

export const benchDecodeCommand = defineCommand(
  {
    name: "bench decode",
    summary: "Decode rate of the engine as a share of a streaming read",
    positionals: ["[MODEL]"],
    flags: {
      ...MODEL_BENCH_FLAGS,
      tokens: { type: "integer", min: 1, max: 65_536, default: 32, help: "tokens per sequence and repeat", env: false },
      "time-kernels": { type: "boolean", help: "show the share of a step spent outside kernels", env: false },
    },
    details: `MODEL is a folder or a registered name, with :HYBRID or without. The prompts are computed first and three steps warm
up; the first token counts as prefill. Repeats go on in the same sequences. GB/s counts the weights, KV and states that a
step reads over the fastest step (states are written once in a block of tokens only); the limit is the fastest streaming
read of as many bytes between the repeats. Every figure stands only after a forward pass over prompt and answer has given
the same tokens and log-probabilities, bit for bit. Weights come from memory unless a cache holds them all.`,
    examples: [
      "graft bench decode --shape qwen2.5-0.5b --contexts 512,2048",
      "graft bench decode --shape llama-3.2-1b --replaced all --variant jet --kv-dtype bf16 -o json",
    ],
  },
  async ({ flags, positionals }) => {
    const [contexts, batches] = [countsIn("contexts", flags.contexts), countsIn("batch", flags.batch)];
    const { tokens, repeats, chunk } = flags;
    const common = { tokens, repeats, chunk, ...cacheTypes(flags) };
    const sizes = { ...common, context: Math.max(...contexts), batch: Math.max(...batches) };
    const longest = decodeSizes({ ...sizes, mask: { name: "", layers: [] } }).maxTokens;
    const { subject, masks, describe } = await openSubject(positionals[0], flags, longest, flags["time-kernels"]);
    const read = new StreamingRead(subject.ops);
    const rows: DecodeRow[] = [];
    for (const batch of batches) {
      for (const context of contexts) {
        for (const mask of masks) {
          const one: DecodeCase = { ...common, mask, context, batch };
          const figure = measureDecode(subject, one, read);
          const row = describe(mask, batch, `tg${tokens} @ d${context}`, figure.lastContext);
          rows.push({ ...row, context, speedup: speedup(rows, row, context, figure), ...figure });
          process.stderr.write(`${row.test}, ${mask.name}, batch ${batch}: ${rateCell(figure.tokensPerSecond)} t/s\n`);
        }
      }
    }
    process.stdout.write(formatRows(COLUMNS, rows, flags.output));
    return 0;
  },
);

/** The base comes first in the order of masks. */
function speedup(rows: readonly DecodeRow[], row: CaseRow, context: number, figure: DecodeFigure): number | null {
  if (row.numLinear === 0) return null;
  const base = rows.find((other) => other.numLinear === 0 && other.batch === row.batch && other.context === context);
  return base === undefined ? null : figure.tokensPerSecond.best / base.tokensPerSecond.best;
}
