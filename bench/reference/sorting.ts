// gpt-nano-sort: conversion on the 729 sequences' own ids, then how many inputs every subset of linear layers sorts exactly.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import { loadModel } from "../../models/load.ts";
import { convert } from "../../src/convert/convert.ts";
import { prepareData } from "../../src/convert/prepare_data.ts";
import { resolveRecipe } from "../../src/convert/recipe.ts";
import { maskOf } from "../../src/search/search.ts";
import { open, type Setting, subsets, VARIANTS } from "./setting.ts";

export interface SortingResult {
  readonly variant: Variant;
  readonly tokens: number;
  readonly unexplained: readonly number[];
  readonly tokensPerSecond: number;
  /** Exactly sorted of 729, by layers joined with "+", "none" for the parent. */
  readonly sorted: Readonly<Record<string, number>>;
  readonly sortedUndistilled: Readonly<Record<string, number>>;
}

const LETTERS = 6;
const NUM_INPUTS = 3 ** LETTERS;
const TOKENS = 1_584_000;
const TOKENS_PER_STEP = 1056;

const inputs = Array.from({ length: NUM_INPUTS }, (_, n) =>
  Array.from({ length: LETTERS }, (_, i) => Math.floor(n / 3 ** i) % 3),
);
const sorted = (ids: readonly number[]) => [...ids].sort((a, b) => a - b);

export async function sortAll(setting: Setting): Promise<SortingResult[]> {
  const results: SortingResult[] = [];
  for (const variant of VARIANTS) results.push(await sortOne(setting, variant));
  return results;
}

async function sortOne(setting: Setting, variant: Variant): Promise<SortingResult> {
  const { ops, work, log } = setting;
  const model = loadModel(ops, join(setting.data, "gpt-nano-sort"));
  const file = join(work, "sort.jsonl");
  const lines = inputs.map((ids) => JSON.stringify({ ids: [...ids, ...sorted(ids).slice(0, -1)] }));
  writeFileSync(file, `${lines.join("\n")}\n`);
  const rowLength = 2 * LETTERS - 1;
  const data = { data: [file], heldout: 0, tokenizer: null, vocabSize: model.config.vocabSize, rowLength };
  const { training } = prepareData(data);
  const run = async (tokens: number, name: string) => {
    const folder = join(work, "gpt-nano-sort", name);
    const recipe = resolveRecipe({ variants: [variant], tokens, rowLength, tokensPerStep: TOKENS_PER_STEP }, rowLength);
    const options = { ops, model, recipe, training, heldout: training, folder, poolFolder: () => folder };
    const result = await convert({ ...options, restart: true });
    return { result, counts: countSorted(setting, folder, variant) };
  };
  const untrained = await run(0, `${variant}-undistilled`);
  const { result, counts } = await run(TOKENS, variant);
  model.free();
  log(`gpt-nano-sort ${variant}: ${JSON.stringify(counts)}`);
  return {
    variant,
    tokens: TOKENS,
    unexplained: result.pools[0]!.unexplained!,
    tokensPerSecond: result.tokensPerSecond,
    sorted: counts,
    sortedUndistilled: untrained.counts,
  };
}

function countSorted(setting: Setting, folder: string, variant: Variant): Record<string, number> {
  const { engine, close } = open(setting, "gpt-nano-sort", [folder]);
  const { numLayers } = engine.info;
  const counts: Record<string, number> = {};
  for (const layers of subsets(numLayers)) {
    engine.registerHybrid({ name: "sorter", layers: maskOf(layers, numLayers, variant) });
    const requests = inputs.map((promptIds) => ({ hybrid: "sorter", promptIds, maxTokens: LETTERS }));
    const results = engine.generate(requests);
    const right = results.filter(({ tokenIds }, i) => tokenIds.join() === sorted(inputs[i]!).join());
    counts[layers.length === 0 ? "none" : layers.join("+")] = right.length;
  }
  close();
  return counts;
}
