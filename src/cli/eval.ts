// graft eval: scores of a model or hybrid on task files, perplexity on texts. Scoring is in src/eval.
import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import { VARIANTS } from "../../models/attention/shape.ts";
import { rowEncoder } from "../convert/prepare_data.ts";
import { readDocuments } from "../data/documents.ts";
import { encodeDocuments, measuringRows, numRows, rowIds } from "../data/rows.ts";
import { BASE_HYBRID } from "../engine/types.ts";
import { RequestError } from "../errors.ts";
import { type Evaluation, evaluate, metricsOf } from "../eval/evaluate.ts";
import { type Perplexity, perplexity } from "../eval/perplexity.ts";
import { bosPolicies } from "../eval/requests.ts";
import { maskOf } from "../search/search.ts";
import { Store } from "../store/database.ts";
import { writeFileAtomically } from "../store/files.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, type Flags, JSON_FLAG, type ParsedArgs, UsageError } from "./config.ts";
import { type OpenedModel, openModel } from "./eval_engine.ts";
import { DTYPE_FLAG, KERNEL_FLAGS, kernelOptions, MEMORY_FRACTION_FLAG, STATE_DTYPE_FLAG } from "./kernel_flags.ts";
import { type ModelArgument, resolveModel } from "./model_argument.ts";
import { TerminalReporter } from "./progress.ts";
import { formatTable } from "./table.ts";

const FLAGS = {
  task: {
    type: "string",
    multiple: true,
    value: "FILE",
    help: "task file (JSONL, see docs/task_format.md); may be repeated",
  },
  text: { type: "string", multiple: true, value: "FILES", help: "text to compute the perplexity of; may be repeated" },
  layers: { type: "string", value: "LIST", help: "layers to make linear, e.g. 0,2 or all, instead of a named hybrid" },
  variant: { type: "string", choices: VARIANTS, help: "variant of --layers", default: "gla" },
  pool: { type: "string", value: "DIR", help: "pool of --layers (default: the registered one)" },
  bos: {
    type: "string",
    choices: bosPolicies,
    help: "bos in front of contexts; auto: as the tokenizer does",
    default: "auto",
  },
  generate: { type: "boolean", help: "completions: decode and compare texts instead of checking the greedy ids" },
  records: { type: "string", value: "FILE", help: "write what every document got, as JSONL" },
  dtype: DTYPE_FLAG,
  "memory-fraction": MEMORY_FRACTION_FLAG,
  "state-dtype": STATE_DTYPE_FLAG,
  ...KERNEL_FLAGS,
  "data-dir": DATA_DIR_FLAG,
  json: JSON_FLAG,
} as const;

type EvalFlags = Flags<typeof FLAGS>;

export const evalCommand = defineCommand(
  {
    name: "eval",
    summary: "Scores a model or one of its hybrids on tasks and texts",
    positionals: ["MODEL[:HYBRID]"],
    flags: FLAGS,
    details: `Multiple choice gives acc and acc_norm, completions give exact_match, each with its standard error, zero-shot as in
lm-evaluation-harness. The hybrid is a registered one (as graft search makes them) or --layers of a pool.`,
    examples: [
      "graft eval ./tiny1m --task recall.jsonl",
      "graft eval tiny1m:recall --task recall.jsonl --json",
      "graft eval tiny1m --layers 0,1 --variant gdn --text 'stories.json[:100]'",
    ],
  },
  async ({ flags, positionals }: ParsedArgs<typeof FLAGS>) => {
    if (flags.task.length + flags.text.length === 0)
      throw new UsageError("Nothing to score: give --task FILE or --text FILES");
    const store = Store.open(flags["data-dir"]);
    try {
      const target = resolveModel(store, positionals[0]!);
      const opened = await openModel(store, target, kernelOptions(flags), {
        stateDtype: flags["state-dtype"],
        ...(flags.dtype === undefined ? {} : { weightDtype: flags.dtype }),
        ...(flags["memory-fraction"] === undefined ? {} : { memoryFraction: flags["memory-fraction"] }),
      });
      try {
        await run(store, target, opened, flags);
      } finally {
        opened.close();
      }
    } finally {
      store.close();
    }
    return 0;
  },
);

async function run(store: Store, target: ModelArgument, opened: OpenedModel, flags: EvalFlags): Promise<void> {
  const chosen = chooseHybrid(store, target, opened, flags);
  const tasks = flags.task.map((file) => ({ file, task: opened.prepare(file, flags.bos) }));
  checkRecords(flags.records);
  const progress = flags.json ? null : new TerminalReporter();
  const { tokenizer, engine } = opened;
  const evaluations: Scored[] = [];
  for (const { file, task } of tasks) {
    const evaluation = await evaluate(engine, chosen.hybrid, task, {
      onDocument: (done, total) => progress?.progress(done, total, "documents", { task: task.name }),
      generate: flags.generate
        ? { decode: (ids) => tokenizer?.decode(ids, { continuation: true }) ?? ids.join(" ") }
        : null,
    });
    evaluations.push({ ...evaluation, file });
    record(store, target, chosen.layers, evaluation, file);
  }
  const texts = flags.text.length === 0 ? null : await textPerplexity(opened, chosen.hybrid, flags.text);
  progress?.close();
  const heading = { model: target.name, hybrid: chosen.name, layers: chosen.layers };
  if (flags.json) {
    const results = evaluations.map(({ documents: _documents, ...rest }) => rest);
    process.stdout.write(`${JSON.stringify({ ...heading, evaluations: results, perplexity: texts }, null, 2)}\n`);
  } else {
    process.stdout.write(describe(heading, evaluations, texts));
  }
  // Last, so that a full disk does not take the scores with it.
  if (flags.records !== undefined) writeRecords(flags.records, evaluations);
}

/** A result with the file it is of. */
type Scored = Evaluation & { readonly file: string };

interface ChosenHybrid {
  /** Name in the engine. */
  readonly hybrid: string;
  readonly name: string;
  readonly layers: readonly (string | null)[];
}

function chooseHybrid(store: Store, target: ModelArgument, opened: OpenedModel, flags: EvalFlags): ChosenHybrid {
  const { numLayers } = opened.model.config;
  if (flags.layers !== undefined && target.hybrid !== null)
    throw new UsageError("Give MODEL:HYBRID or --layers, not both");
  if (flags.layers !== undefined) {
    const layers = maskOf(parseLayers(flags.layers, numLayers), numLayers, flags.variant);
    if (layers.some((layer) => layer !== null)) opened.usePool(flags.variant, flags.pool && resolve(flags.pool));
    return define(opened, `${flags.variant}:${flags.layers}`, layers);
  }
  if (target.hybrid === null || target.hybrid === BASE_HYBRID) {
    return { hybrid: BASE_HYBRID, name: BASE_HYBRID, layers: Array.from({ length: numLayers }, () => null) };
  }
  return define(opened, target.hybrid, storedLayers(store, target, opened));
}

/** Layers of a registered hybrid, its pools loaded. @throws RequestError where there is none of that name */
export function storedLayers(store: Store, target: ModelArgument, opened: OpenedModel): (Variant | null)[] {
  const hybrid = store.hybrids.get(target.name, target.hybrid ?? "");
  if (hybrid === null) {
    const known = store.hybrids.list(target.name).map(({ name }) => name);
    const hint = known.length === 0 ? "none is registered" : `registered are ${known.join(", ")}`;
    throw new RequestError("unknown_hybrid", `Cannot find hybrid "${target.hybrid}" of "${target.name}": ${hint}`);
  }
  const layers = hybrid.layers as (Variant | null)[];
  for (const variant of new Set(layers)) if (variant !== null) opened.usePool(variant);
  return layers;
}

function define(opened: OpenedModel, name: string, layers: readonly (Variant | null)[]): ChosenHybrid {
  const hybrid = "evaluated";
  opened.engine.registerHybrid({ name: hybrid, layers });
  return { hybrid, name, layers };
}

/** "0,2,5" or "all". @throws UsageError */
function parseLayers(text: string, numLayers: number): number[] {
  if (text === "all") return Array.from({ length: numLayers }, (_, layer) => layer);
  return text.split(",").map((word) => {
    const layer = Number(word);
    if (word.trim() === "" || !Number.isInteger(layer) || layer < 0 || layer >= numLayers) {
      throw new UsageError(`Invalid value for --layers: "${word}", expected all or numbers 0 to ${numLayers - 1}`);
    }
    return layer;
  });
}

async function textPerplexity(opened: OpenedModel, hybrid: string, paths: readonly string[]): Promise<Perplexity> {
  const encoder = rowEncoder(opened.tokenizer);
  const ids = encodeDocuments(readDocuments(paths), encoder, opened.model.config.vocabSize);
  const rows = measuringRows(ids, opened.engine.info.maxContext);
  if (numRows(rows) === 0) throw new RangeError("Cannot compute the perplexity: the text has no token to predict");
  return perplexity(
    opened.engine,
    hybrid,
    Array.from({ length: numRows(rows) }, (_, row) => rowIds(rows, row)),
  );
}

/** Hash by which results of the same documents are known. */
export function sha256OfFile(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

function record(
  store: Store,
  target: ModelArgument,
  layers: readonly (string | null)[],
  evaluation: Evaluation,
  file: string,
): void {
  const { task, numDocuments, bos, metrics } = evaluation;
  for (const [metric, summary] of Object.entries(metrics)) {
    store.evaluations.add({
      backbone: target.name,
      layers,
      task,
      taskSha256: sha256OfFile(file),
      metric,
      score: summary.mean,
      numDocuments,
      details: { bos, standardError: summary.standardError, file: resolve(file) },
    });
  }
}

/** @throws UsageError before anything is scored where no file can be */
function checkRecords(path: string | undefined): void {
  if (path !== undefined && statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) {
    throw new UsageError(`Invalid value for --records: "${path}" is a folder, expected a file`);
  }
}

function writeRecords(path: string, evaluations: readonly Scored[]): void {
  const lines = evaluations.flatMap(({ task, documents }) =>
    documents.map((document) => JSON.stringify({ task, ...document })),
  );
  writeFileAtomically(resolve(path), `${lines.join("\n")}\n`);
}

function describe(
  heading: { model: string; hybrid: string; layers: readonly (string | null)[] },
  evaluations: readonly Scored[],
  texts: Perplexity | null,
): string {
  const linear = heading.layers.flatMap((variant, layer) => (variant === null ? [] : [`${layer}:${variant}`]));
  const lines = [`${heading.model}:${heading.hybrid} (${linear.length === 0 ? "full attention" : linear.join(" ")})`];
  const rows = evaluations.flatMap((evaluation) =>
    metricsOf(evaluation.metrics.exact_match ? "completion" : "choice").map((metric) => ({ evaluation, metric })),
  );
  if (rows.length > 0) {
    lines.push(
      formatTable(
        [
          { title: "task", cell: ({ evaluation }) => evaluation.file.split("/").slice(-2).join("/") },
          { title: "metric", cell: ({ metric }) => metric },
          {
            title: "score",
            align: "right",
            cell: ({ evaluation, metric }) => evaluation.metrics[metric]?.mean.toFixed(4),
          },
          {
            title: "±",
            align: "right",
            cell: ({ evaluation, metric }) => evaluation.metrics[metric]?.standardError?.toFixed(4),
          },
          { title: "documents", align: "right", cell: ({ evaluation }) => evaluation.numDocuments },
          { title: "bos", cell: ({ evaluation }) => evaluation.bos },
          { title: "cut", align: "right", cell: ({ evaluation }) => evaluation.numTruncated },
        ],
        rows,
      ).trimEnd(),
    );
  }
  if (texts !== null) lines.push(`perplexity ${texts.perplexity.toFixed(4)} over ${texts.predictedTokens} tokens`);
  for (const { task, numFailed } of evaluations) {
    if (numFailed > 0) lines.push(`${task}: ${numFailed} documents gave a log-likelihood that is not a number`);
  }
  return `${lines.join("\n")}\n`;
}
