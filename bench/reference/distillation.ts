// Conversions of the two story models at the reference's token budgets, and the perplexity of every subset of layers.
import { join } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import { loadModel } from "../../models/load.ts";
import { type ConvertResult, convert } from "../../src/convert/convert.ts";
import { prepareData, rowEncoder } from "../../src/convert/prepare_data.ts";
import { type Recipe, resolveRecipe } from "../../src/convert/recipe.ts";
import { sampleIntoRows } from "../../src/convert/sample_rows.ts";
import { readDocuments } from "../../src/data/documents.ts";
import { encodeDocuments, measuringRows, numRows, rowIds } from "../../src/data/rows.ts";
import { perplexity } from "../../src/eval/perplexity.ts";
import { maskOf } from "../../src/search/search.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { open, type Setting, subsets, VARIANTS } from "./setting.ts";

export interface ModelPlan {
  readonly name: string;
  readonly tokens: number;
  readonly sampledRows: number;
}

export const plans: readonly ModelPlan[] = [
  { name: "tiny1m", tokens: 2_000_000, sampledRows: 3072 },
  { name: "stories260k", tokens: 1_000_000, sampledRows: 0 },
];

export interface DistilledModel {
  readonly name: string;
  readonly runs: readonly DistilledRun[];
}

export interface DistilledRun {
  readonly variant: Variant;
  readonly recipe: Recipe;
  readonly folder: string;
  readonly history: ConvertResult["pools"][number]["history"];
  readonly unexplained: readonly number[];
  /** By wall clock and by processor time of the training steps, one thread. */
  readonly tokensPerSecond: number;
  readonly tokensPerCpuSecond: number;
  readonly scratchBytes: number;
  readonly studentBytes: number;
  /** By set of linear layers joined with "+", "none" for the base. */
  readonly perplexity: Readonly<Record<string, number>>;
}

const ROW_LENGTH = 256;

export async function distil(setting: Setting, plan: ModelPlan): Promise<DistilledModel> {
  const runs: DistilledRun[] = [];
  for (const variant of VARIANTS) runs.push(await distilOne(setting, plan, variant));
  return { name: plan.name, runs };
}

async function distilOne(setting: Setting, plan: ModelPlan, variant: Variant): Promise<DistilledRun> {
  const { ops, data, work, log } = setting;
  const directory = join(data, plan.name);
  const model = loadModel(ops, directory);
  const tokenizer = Tokenizer.load(directory);
  const stories = join(data, "text", "tinystories_1000.json");
  const recipe = resolveRecipe(
    { variants: [variant], tokens: plan.tokens, rowLength: ROW_LENGTH },
    model.config.maxPositions,
  );
  const prepared = prepareData({
    data: [`${stories}[100:]`],
    heldout: [`${stories}[:100]`],
    tokenizer,
    vocabSize: model.config.vocabSize,
    rowLength: ROW_LENGTH,
  });
  const sampling = {
    count: plan.sampledRows,
    rowLength: ROW_LENGTH,
    prefixId: rowEncoder(tokenizer)!.prefixId!,
    seed: 5,
  };
  const training =
    plan.sampledRows === 0
      ? prepared.training
      : await sampleIntoRows(ops, model, prepared.training, sampling, join(work, plan.name));
  const folder = join(work, plan.name, variant);
  const before = process.cpuUsage();
  const options = { ops, model, recipe, training, heldout: prepared.heldout, folder, poolFolder: () => folder };
  const result = await convert({ ...options, restart: true });
  const cpu = process.cpuUsage(before);
  const pool = result.pools[0]!;
  const cpuShare = (cpu.user + cpu.system) / 1e6 / result.seconds;
  model.free();
  log(`${plan.name} ${variant}: ${pool.unexplained!.map((value) => value.toFixed(4)).join(" ")}`);
  return {
    variant,
    recipe,
    folder,
    history: pool.history,
    unexplained: pool.unexplained!,
    tokensPerSecond: result.tokensPerSecond,
    tokensPerCpuSecond: result.tokensPerSecond / cpuShare,
    scratchBytes: result.scratchBytes,
    studentBytes: result.studentBytes,
    perplexity: await perplexities(setting, plan.name, variant, folder),
  };
}

/** The protocol of reference.json: the pure-ASCII ones of the first 100 texts, bos in front, cut to the context. */
async function perplexities(
  setting: Setting,
  name: string,
  variant: Variant,
  folder: string,
): Promise<Record<string, number>> {
  const opened = open(setting, name, [folder]);
  const { numLayers, vocabSize, maxPositions } = opened.model.config;
  const stories = join(setting.data, "text", "tinystories_1000.json");
  const ascii = readDocuments([`${stories}[:100]`]).filter(
    (document) => "text" in document && [...document.text].every((letter) => letter.charCodeAt(0) < 128),
  );
  const encoder = rowEncoder(Tokenizer.load(join(setting.data, name)));
  const rows = measuringRows(encodeDocuments(ascii, encoder, vocabSize), maxPositions);
  const lists = Array.from({ length: numRows(rows) }, (_, row) => rowIds(rows, row));
  const wanted = subsets(numLayers).filter(({ length }) => length <= 1 || length === numLayers);
  const found: Record<string, number> = {};
  for (const layers of wanted) {
    opened.engine.registerHybrid({ name: "measured", layers: maskOf(layers, numLayers, variant) });
    const result = await perplexity(opened.engine, "measured", lists);
    found[layers.length === 0 ? "none" : layers.join("+")] = result.perplexity;
  }
  opened.close();
  return found;
}
