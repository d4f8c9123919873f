// graft convert: texts and a model in, pools of linear counterparts out. The method is in src/convert; this file reads the
// command line, prepares rows and shows the result.
import { join, resolve } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import { VARIANTS } from "../../models/attention/shape.ts";
import { loadModel } from "../../models/load.ts";
import type { LoadedModel } from "../../models/model.ts";
import { ConvertCancelled, type ConvertResult, convert } from "../convert/convert.ts";
import { type PreparedData, prepareData, rowEncoder } from "../convert/prepare_data.ts";
import { type Recipe, type RecipeOptions, resolveRecipe } from "../convert/recipe.ts";
import { sampleIntoRows } from "../convert/sample_rows.ts";
import { JobCancelled } from "../jobs/reporter.ts";
import type { LibraryOptions } from "../ops/library.ts";
import { Ops } from "../ops/ops.ts";
import { Tokenizer } from "../text/tokenizer.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, type Flags, JOB_FLAG, JSON_FLAG, type ParsedArgs, UsageError } from "./config.ts";
import { TRAINING_FLAGS, trainingOptions } from "./kernel_flags.ts";
import { registerModel, resolveModel } from "./model_argument.ts";
import { runReported, type WorkContext } from "./reported.ts";
import { formatTable } from "./table.ts";

const FLAGS = {
  variant: { type: "string", value: "LIST", help: "gla, gdn, jet, or several with commas", default: "gla" },
  data: {
    type: "string",
    multiple: true,
    value: "FILES",
    help: "text to train on: .txt, .json, .jsonl, folders, globs, slices as in x.json[100:]; may be repeated",
  },
  heldout: {
    type: "string",
    value: "FILES|SHARE",
    help: "text to measure on, or the share of --data to set aside for it",
    default: "0.02",
  },
  tokens: { type: "string", value: "COUNT", help: "tokens to train on, e.g. 2M", default: "2M" },
  out: { type: "string", value: "DIR", help: "where to put the pool (default: in the data folder)" },
  init: {
    type: "string",
    choices: ["copy", "random"],
    help: "start from the attention layer's projections, or afresh",
    default: "copy",
  },
  loss: { type: "string", choices: ["nmse", "mse"], help: "normalised or plain squared error", default: "nmse" },
  "gate-init": {
    type: "string",
    choices: ["ridge", "random"],
    help: "start of the output gate: a positive constant, or noise",
    default: "ridge",
  },
  "gla-conv": { type: "integer", min: 0, max: 4, help: "taps of a short convolution in gla, 0 for none", default: 0 },
  "sample-rows": { type: "integer", min: 0, value: "N", help: "rows sampled from the model itself to add", default: 0 },
  "row-length": { type: "integer", min: 2, value: "N", help: "tokens of one training row (default by budget)" },
  "tokens-per-step": { type: "integer", min: 1, value: "N", help: "tokens of one update (default by budget)" },
  "learning-rate": { type: "number", min: 0, value: "RATE", help: "peak rate (default by budget)" },
  seed: { type: "integer", min: 0, help: "of new weights and the order of rows", default: 1 },
  "checkpoint-every": { type: "number", min: 0.01, value: "SECONDS", help: "time between checkpoints", default: 60 },
  restart: { type: "boolean", help: "forget an earlier run with the same output" },
  ...TRAINING_FLAGS,
  "data-dir": DATA_DIR_FLAG,
  json: JSON_FLAG,
  job: JOB_FLAG,
} as const;

type ConvertFlags = Flags<typeof FLAGS>;

interface Report {
  readonly model: string;
  readonly recipe: Recipe;
  readonly numDocuments: number;
  readonly result: ConvertResult;
  readonly memoryBytes: number;
  readonly [key: string]: unknown;
}

export const convertCommand = defineCommand(
  {
    name: "convert",
    summary: "Distils linear counterparts of a model's attention layers into a pool",
    positionals: ["MODEL"],
    flags: FLAGS,
    details: `One pass of the model over each batch trains the counterparts of all its layers, each on its own input and
output. The error shown is the unexplained variance per layer on held-out text. An interrupted run is gone on with by the
same command and ends with the same weights.`,
    examples: [
      "graft convert ./tiny1m --variant gdn --data 'stories.json[100:]' --heldout 'stories.json[:100]' --tokens 2M",
      "graft convert ./tiny1m --variant gla,gdn,jet --data corpus/ --sample-rows 3072",
    ],
  },
  async ({ flags, positionals }: ParsedArgs<typeof FLAGS>) => {
    const kernels = trainingOptions(flags);
    const [model] = positionals;
    const { out, ...rest } = flags;
    const identity = {
      ...rest,
      model: resolve(model!),
      out: out === undefined ? null : resolve(out),
      job: undefined,
      "lib-dir": undefined,
      device: undefined,
    };
    const report = await runReported(
      {
        kind: "convert",
        job: flags.job,
        dataDir: flags["data-dir"],
        quiet: flags.json,
        args: [JSON.stringify(identity)],
        subject: { backbone: model, variant: flags.variant },
      },
      (context) => run(context, model!, flags, kernels),
    );
    process.stdout.write(flags.json ? `${JSON.stringify(report, null, 2)}\n` : describe(report));
    return 0;
  },
);

async function run(
  context: WorkContext,
  argument: string,
  flags: ConvertFlags,
  kernels: LibraryOptions,
): Promise<Report> {
  const { store, reporter } = context;
  const ops = await Ops.load(kernels);
  const target = resolveModel(store, argument);
  const model = loadModel(ops, target.path);
  try {
    registerModel(store, target, { ...model.config, identity: model.identity });
    const recipe = resolveRecipe(recipeOptions(flags), model.config.maxPositions);
    const folder = flags.out === undefined ? join(store.dir.pools, target.name) : resolve(flags.out);
    const poolFolder = (variant: Variant) =>
      flags.out !== undefined && recipe.variants.length === 1 ? folder : join(folder, variant);
    const runFolder = recipe.variants.length === 1 ? poolFolder(recipe.variants[0]!) : folder;
    const data = await readData(ops, model, recipe, flags, reporter, runFolder);
    const result = await convert({
      ops,
      model,
      recipe,
      training: data.training,
      heldout: data.heldout,
      folder: runFolder,
      poolFolder,
      checkpointSeconds: flags["checkpoint-every"],
      restart: flags.restart,
      progress: reporter,
    });
    for (const pool of result.pools) {
      const path = resolve(pool.folder);
      if (result.alreadyMade && store.pools.get(target.name, pool.variant)?.path === path) continue;
      const recipe = { ...pool.recipe, unexplained: pool.unexplained };
      store.pools.put({ backbone: target.name, variant: pool.variant, path, recipe });
    }
    const memoryBytes = process.memoryUsage.rss();
    return { model: target.name, recipe, numDocuments: data.numDocuments, result, memoryBytes };
  } catch (error) {
    if (error instanceof ConvertCancelled) throw new JobCancelled();
    throw error;
  } finally {
    model.free();
  }
}

async function readData(
  ops: Ops,
  model: LoadedModel,
  recipe: Recipe,
  flags: ConvertFlags,
  reporter: WorkContext["reporter"],
  folder: string,
): Promise<PreparedData> {
  const count = flags["sample-rows"];
  if (flags.data.length === 0 && count === 0 && recipe.steps > 0) {
    throw new UsageError("There is nothing to train on: give --data FILES, or --sample-rows N");
  }
  const tokenizer = Tokenizer.load(model.directory);
  const share = Number(flags.heldout);
  const data = prepareData({
    data: flags.data,
    heldout: Number.isFinite(share) && share >= 0 && share < 1 ? share : [flags.heldout],
    tokenizer,
    vocabSize: model.config.vocabSize,
    rowLength: recipe.rowLength,
  });
  if (count === 0) return data;
  const prefixId = rowEncoder(tokenizer)?.prefixId ?? model.config.bosTokenId;
  if (prefixId === null) throw new UsageError("Rows cannot be sampled: the model has no bos token to begin with");
  const { rowLength, seed } = recipe;
  const sampling = { count, rowLength, prefixId, seed, progress: reporter };
  return { ...data, training: await sampleIntoRows(ops, model, data.training, sampling, folder) };
}

function recipeOptions(flags: ConvertFlags): RecipeOptions {
  return {
    variants: parseVariants(flags.variant),
    tokens: parseCount(flags.tokens),
    seed: flags.seed,
    init: flags.init,
    loss: flags.loss,
    gateInit: flags["gate-init"],
    glaConv: flags["gla-conv"],
    ...(flags["row-length"] === undefined ? {} : { rowLength: flags["row-length"] }),
    ...(flags["tokens-per-step"] === undefined ? {} : { tokensPerStep: flags["tokens-per-step"] }),
    ...(flags["learning-rate"] === undefined ? {} : { learningRate: flags["learning-rate"] }),
  };
}

/** @throws UsageError naming the word that is no variant */
export function parseVariants(text: string): Variant[] {
  return text.split(",").map((word) => {
    const variant = VARIANTS.find((known) => known === word.trim());
    if (variant === undefined) {
      throw new UsageError(`Invalid value for --variant: "${word}", expected ${VARIANTS.join(", ")}`);
    }
    return variant;
  });
}

/** 2000000, 2M, 1.5M, 500k. @throws UsageError */
export function parseCount(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([kMG]?)$/.exec(text);
  const scale = { "": 1, k: 1e3, M: 1e6, G: 1e9 }[match?.[2] ?? ""] ?? 1;
  const count = match === null ? Number.NaN : Math.round(Number(match[1]) * scale);
  if (!Number.isSafeInteger(count)) throw new UsageError(`Invalid value for --tokens: "${text}", expected e.g. 2M`);
  return count;
}

function describe({ model, recipe, result, memoryBytes }: Report): string {
  const lines = result.pools.map((pool) => {
    const cells = (values: readonly number[] | null) => (values ?? []).map((value) => value.toFixed(4)).join(" ");
    const rows = pool.history.map(({ tokens, unexplained }) => ({ tokens, layers: cells(unexplained) }));
    const table = formatTable(
      [
        { title: "tokens", align: "right", cell: (row) => row.tokens },
        { title: "unexplained variance per layer", cell: (row) => row.layers },
      ],
      rows,
    );
    return `${model} ${pool.variant}: ${pool.folder}\n${table}`;
  });
  const speed = result.tokensPerSecond > 0 ? `${Math.round(result.tokensPerSecond)} tokens/s, ` : "";
  const tokens = recipe.steps * recipe.rowsPerStep * recipe.rowLength;
  const summary = `${tokens} tokens in ${result.seconds.toFixed(1)} s, ${speed}${(memoryBytes / 2 ** 20).toFixed(0)} MiB of memory`;
  return `${lines.join("\n")}\n${summary}\n`;
}
