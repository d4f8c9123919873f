// graft bench prefill: prompt tokens per second of the engine, beside the machine's multiply-adds. The measuring is in
// src/bench.
import { measurePrefill, type PrefillCase, type PrefillFigure } from "../bench/prefill.ts";
import { caseColumns, giga, memoryColumns, percent, rateCell } from "./bench_columns.ts";
import { type CaseRow, cacheTypes, countsIn, MODEL_BENCH_FLAGS, openSubject } from "./bench_models.ts";
import { Refusals } from "./bench_refusals.ts";
import { type BenchColumn, RowWriter } from "./bench_table.ts";
import { defineCommand } from "./command.ts";

type PrefillRow = CaseRow & { readonly context: number; readonly chunk: number } & PrefillFigure;

/** Token rows of one step: a device needs many to be busy. */
const DEFAULT_CHUNK = { cpu: 512, cuda: 8192 };

const COLUMNS: readonly BenchColumn<PrefillRow>[] = [
  ...caseColumns,
  { title: "t/s", align: "right", cell: (row) => rateCell(row.tokensPerSecond) },
  { title: "GFLOP/s", align: "right", cell: (row) => giga(row.flopsPerSecond) },
  { title: "of peak", align: "right", cell: (row) => `${percent(row.share)} of ${giga(row.limit)}` },
  ...memoryColumns,
];

export const benchPrefillCommand = defineCommand(
  {
    name: "bench prefill",
    summary: "Prefill rate of the engine as a share of the multiply-add peak",
    positionals: ["[MODEL]"],
    flags: {
      ...MODEL_BENCH_FLAGS,
      chunk: { ...MODEL_BENCH_FLAGS.chunk, help: "token rows of one step (default: 512, on a CUDA device 8192)" },
    },
    details: `MODEL is a folder or a registered name, with :HYBRID or without. A figure is the time from prompts to the first token of
each, after one run that does not count. GFLOP/s counts the linear layers, attention over the tokens before, states, and the
head for one token per prompt, in the best repeat; the peak of multiply-adds (on a CUDA device the matrix rate of bfloat16)
takes turns with the repeats. Every figure stands only after the same prompt in other chunks has given the same token and log-probability, bit for bit.`,
    examples: [
      "graft bench prefill --shape qwen2.5-0.5b --contexts 512,2048",
      "graft bench prefill ./tiny1m --contexts 128 --batch 1,8 -o csv",
    ],
  },
  async ({ flags, positionals }) => {
    const [contexts, batches] = [countsIn("contexts", flags.contexts), countsIn("batch", flags.batch)];
    const longest = Math.max(...contexts) + 8;
    const { subject, masks, describe, weightType } = await openSubject(positionals[0], flags, longest);
    const { ops } = subject;
    const chunk = flags.chunk ?? DEFAULT_CHUNK[ops.kind];
    const common = { repeats: flags.repeats, chunk, ...cacheTypes(flags, ops) };
    const writer = new RowWriter(COLUMNS, flags.output);
    const refusals = new Refusals();
    for (const batch of batches) {
      for (const context of contexts) {
        for (const mask of masks) {
          const one: PrefillCase = { ...common, mask, context, batch, weightType };
          const name = `pp${context}, ${mask.name}, batch ${batch}`;
          const figure = refusals.attempt(name, () => measurePrefill(subject, one));
          if (figure === null) continue;
          const row = describe(mask, batch, `pp${context}`, context);
          writer.add({ ...row, context, chunk, ...figure });
          process.stderr.write(`${row.test}, ${mask.name}, batch ${batch}: ${rateCell(figure.tokensPerSecond)} t/s\n`);
        }
      }
    }
    process.stdout.write(writer.rest());
    return refusals.status(writer.rows.length);
  },
);
