import { describe, expect, test } from "bun:test";
import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import { loadModel } from "../../models/load.ts";
import { loadPool } from "../../models/pool.ts";
import { ConvertCancelled, type ConvertOptions, convert } from "../../src/convert/convert.ts";
import { prepareData } from "../../src/convert/prepare_data.ts";
import { type RecipeOptions, resolveRecipe } from "../../src/convert/recipe.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { noProgress } from "../../src/train/progress.ts";
import { withTemporary } from "../support/checkpoints.ts";
import { dataPath } from "../support/data.ts";
import { bestOps } from "../support/kernels.ts";
import { writeConvertFiles } from "./support.ts";

const VARIANTS: readonly Variant[] = ["gla", "gdn", "jet"];

async function optionsFor(
  folder: string,
  out: string,
  recipe: Partial<RecipeOptions> & { variants: readonly Variant[] },
  numLayers = 3,
): Promise<ConvertOptions> {
  const { model: directory, data } = writeConvertFiles(folder, numLayers);
  const ops = await bestOps();
  const model = loadModel(ops, directory);
  const resolved = resolveRecipe({ tokens: 12_000, rowLength: 40, tokensPerStep: 160, ...recipe }, 64);
  const rows = prepareData({ data: [data], heldout: 0.1, tokenizer: null, vocabSize: 40, rowLength: 40 });
  const target = join(folder, out);
  return {
    ops,
    model,
    recipe: resolved,
    training: rows.training,
    heldout: rows.heldout,
    folder: target,
    poolFolder: (variant) => join(target, variant),
  };
}

const weights = (folder: string, out: string, variant: Variant) =>
  readFileSync(join(folder, out, variant, "linear.safetensors"));
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

describe("convert()", () => {
  test("lowers the unexplained variance of every layer, all variants in one pass as each alone", () =>
    withTemporary(async (folder) => {
      const result = await convert(await optionsFor(folder, "together", { variants: VARIANTS }));
      for (const { variant, history, unexplained } of result.pools) {
        const first = history[0]!.unexplained;
        expect(history[0]!.tokens).toBe(0);
        expect(history.at(-1)!.tokens).toBe(12_000);
        expect(unexplained).toEqual(history.at(-1)!.unexplained);
        unexplained!.forEach((value, layer) => {
          expect(value).toBeLessThan(0.5 * first[layer]!);
        });
        await convert(await optionsFor(folder, "alone", { variants: [variant] }));
        expect(weights(folder, "alone", variant).equals(weights(folder, "together", variant))).toBe(true);
      }
    }));

  test("a cancelled run goes on to the same weights, at any number of threads", () =>
    withTemporary(async (folder) => {
      const whole = await optionsFor(folder, "whole", { variants: ["gdn"] });
      await convert(whole);
      const part = await optionsFor(folder, "part", { variants: ["gdn"] });
      let asked = 0;
      const progress = { progress() {}, event() {}, cancelled: () => asked++ === 0 };
      await expect(convert({ ...part, progress })).rejects.toThrow(ConvertCancelled);
      part.ops.setThreads(1);
      const resumed = await convert(part);
      part.ops.setThreads(2);
      expect(resumed.resumedSteps).toBeGreaterThan(0);
      expect(resumed.resumedSteps).toBeLessThan(part.recipe.steps);
      expect(weights(folder, "part", "gdn").equals(weights(folder, "whole", "gdn"))).toBe(true);
    }));

  test("a finished run is not done again, and one with other settings is refused", () =>
    withTemporary(async (folder) => {
      const options = await optionsFor(folder, "out", { variants: ["gla"], tokens: 800 });
      const first = await convert(options);
      const again = await convert(options);
      expect(again.resumedSteps).toBe(options.recipe.steps);
      expect(again.pools[0]!.unexplained).toEqual(first.pools[0]!.unexplained);
      const other = await optionsFor(folder, "out", { variants: ["gla"], tokens: 800, seed: 2 });
      await expect(convert(other)).rejects.toThrow("holds a pool whose seed is 1, now it is 2");
      const before = weights(folder, "out", "gla");
      await convert({ ...other, restart: true });
      expect(weights(folder, "out", "gla").equals(before)).toBe(false);
    }));

  test("a rate that is far too high is refused in one line, and the pool before it stays", () =>
    withTemporary(async (folder) => {
      await convert(await optionsFor(folder, "out", { variants: ["gla"], tokens: 800 }));
      const before = weights(folder, "out", "gla");
      const wild = await optionsFor(folder, "out", { variants: ["gla"], tokens: 800, learningRate: 1e300 });
      await expect(convert({ ...wild, restart: true })).rejects.toThrow(
        /^Cannot go on converting: layer \d \(gla\) has diverged at step \d+, .*try a lower --learning-rate$/,
      );
      expect(weights(folder, "out", "gla").equals(before)).toBe(true);
      expect((await convert(await optionsFor(folder, "out", { variants: ["gla"], tokens: 800 }))).alreadyMade).toBe(
        true,
      );
    }));

  test("a restart that is interrupted keeps the pool until the new one is there, and goes on to it", () =>
    withTemporary(async (folder) => {
      const old = { variants: ["gla"] as const, tokens: 800 };
      await convert(await optionsFor(folder, "out", old));
      const before = weights(folder, "out", "gla");
      const cancelled = { ...noProgress, cancelled: () => true };
      const wanted = await optionsFor(folder, "out", { ...old, seed: 2 });
      await expect(convert({ ...wanted, restart: true, progress: cancelled })).rejects.toThrow(ConvertCancelled);
      expect(weights(folder, "out", "gla").equals(before)).toBe(true);
      expect((await convert(wanted)).resumedSteps).toBeGreaterThan(0);
      await convert(await optionsFor(folder, "alone", { ...old, seed: 2 }));
      expect(weights(folder, "out", "gla").equals(weights(folder, "alone", "gla"))).toBe(true);
    }));

  test("a pool that was torn while it was replaced is made again", () =>
    withTemporary(async (folder) => {
      const options = await optionsFor(folder, "out", { variants: ["gla"], tokens: 800 });
      await convert(options);
      const whole = weights(folder, "out", "gla");
      await convert(await optionsFor(folder, "other", { variants: ["gla"], tokens: 800, seed: 2 }));
      const name = join("gla", "linear.safetensors");
      copyFileSync(join(folder, "other", name), join(folder, "out", name));
      expect((await convert(options)).alreadyMade).toBe(false);
      expect(weights(folder, "out", "gla").equals(whole)).toBe(true);
    }));

  test("two conversions into one folder do not mix", () =>
    withTemporary(async (folder) => {
      const options = await optionsFor(folder, "out", { variants: ["gla"], tokens: 800 });
      const first = convert(options);
      await expect(convert(options)).rejects.toThrow("another conversion is writing there");
      expect((await first).alreadyMade).toBe(false);
      expect((await convert(options)).alreadyMade).toBe(true);
    }));

  test("writes pools that load for the backbone they were made for", () =>
    withTemporary(async (folder) => {
      const options = await optionsFor(folder, "out", { variants: ["jet"], tokens: 0 });
      await convert(options);
      const pool = loadPool(options.ops, join(folder, "out", "jet"));
      expect(pool).toMatchObject({ variant: "jet", backbone: options.model.identity });
      expect(pool.mixers.length).toBe(3);
      pool.free();
    }));

  test("needs no more scratch memory for three layers than for one", () =>
    withTemporary(async (folder) => {
      const recipe = { variants: VARIANTS, tokens: 800 };
      const one = await convert(await optionsFor(folder, "one", recipe, 1));
      const three = await convert(await optionsFor(folder, "three", recipe, 3));
      expect(three.scratchBytes).toBe(one.scratchBytes);
      expect(three.studentBytes).toBe(3 * one.studentBytes);
    }));
});

describe("convert() on tiny1m", () => {
  const directory = dataPath("tiny1m");
  const stories = dataPath("text/tinystories_1000.json");
  test.skipIf(directory === null || stories === null)(
    "0.1M tokens of stories explain more than half of every layer",
    () =>
      withTemporary(async (folder) => {
        const ops = await bestOps();
        const model = loadModel(ops, directory!);
        const recipe = resolveRecipe({ variants: ["gla"], tokens: 100_000 }, model.config.maxPositions);
        const rows = prepareData({
          data: [`${stories}[100:]`],
          heldout: [`${stories}[:40]`],
          tokenizer: Tokenizer.load(directory!),
          vocabSize: model.config.vocabSize,
          rowLength: recipe.rowLength,
        });
        const options = { ops, model, recipe, training: rows.training, heldout: rows.heldout, folder };
        const { pools } = await convert({ ...options, poolFolder: (variant) => join(folder, variant) });
        const [start, end] = [pools[0]!.history[0]!.unexplained, pools[0]!.unexplained!];
        expect(mean(start)).toBeLessThan(1);
        expect(Math.max(...end)).toBeLessThan(0.5);
        expect(mean(end)).toBeLessThan(0.32);
        model.free();
      }),
    60_000,
  );
});
