// The commands convert, search, eval and export on a tiny model: the whole way, and what they say to bad input.
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { convertCommand } from "../../src/cli/convert.ts";
import { evalCommand } from "../../src/cli/eval.ts";
import { exportCommand } from "../../src/cli/export.ts";
import { searchCommand } from "../../src/cli/search.ts";
import type { SearchReport } from "../../src/cli/search_records.ts";
import { Store } from "../../src/store/database.ts";
import { idDocuments, writeConvertFiles } from "../convert/support.ts";
import { withTemporary } from "../support/checkpoints.ts";
import { runCli } from "../support/cli.ts";

function writeTask(path: string, seed: number): string {
  const lines = idDocuments(30, seed).map((ids, i) => {
    const choices = [0, 1, 2].map((shift) => [2 + ((ids[30]! + shift) % 38)]);
    return `${JSON.stringify({ id: i, context_ids: ids.slice(0, 30), choices_ids: choices, gold: 0 })}\n`;
  });
  writeFileSync(path, lines.join(""));
  return path;
}

interface EvalReport {
  readonly layers: readonly (string | null)[];
  readonly evaluations: readonly { readonly metrics: Readonly<Record<string, { readonly mean: number }>> }[];
}

test(
  "convert, search, eval and export go the whole way",
  () =>
    withTemporary(async (folder) => {
      const { model, data } = writeConvertFiles(folder);
      const home = ["--data-dir", join(folder, "home"), "--threads", "1"];
      const task = writeTask(join(folder, "recall.jsonl"), 9);
      const report = writeTask(join(folder, "report.jsonl"), 10);
      const json = async (...args: string[]) => JSON.parse(await runCli([...args, ...home, "--json"])) as unknown;

      const shown = await runCli(["convert", model, "--variant", "gla", "--data", data, "--tokens", "4k", ...home]);
      expect(shown).toContain("model gla:");
      expect(shown).toMatch(/tokens\/s, \d+ MiB of memory/);

      const found = (await json(
        "search",
        model,
        "--task",
        task,
        "--report",
        report,
        "--max-drop",
        "0.5",
      )) as SearchReport;
      expect(found).toMatchObject({ model: "model", hybrid: "recall", variant: "gla", metric: "acc", bos: "ids" });
      expect(found.report!.entries[""]!.paired).toBeNull();
      const { layers, score } = found.optimal;
      expect(score).toBeGreaterThanOrEqual(0.5 * found.trajectory.base);
      expect(layers.length).toBeGreaterThan(0);

      const store = Store.open(join(folder, "home"));
      expect(
        store.hybrids
          .list("model")
          .map(({ name }) => name)
          .sort(),
      ).toEqual(["recall", "recall-best"]);
      expect(store.searches.list()[0]).toMatchObject({ task: "recall", baseScore: found.trajectory.base });
      store.close();

      const named = (await json("eval", "model:recall", "--task", task)) as EvalReport;
      expect(named.layers.flatMap((layer, i) => (layer === "gla" ? [i] : []))).toEqual([...layers]);
      expect(named.evaluations[0]!.metrics.acc!.mean).toBe(score);
      const listed = (await json(
        "eval",
        model,
        "--layers",
        layers.join(),
        "--variant",
        "gla",
        "--task",
        task,
      )) as EvalReport;
      expect(listed.evaluations[0]!.metrics.acc!.mean).toBe(score);

      const out = join(folder, "alone");
      await runCli(["export", "model:recall", out, "--data-dir", join(folder, "home")]);
      const config = JSON.parse(readFileSync(join(out, "config.json"), "utf8")) as { layer_types: string[] };
      expect(config.layer_types.filter((type) => type === "linear_attention").length).toBe(layers.length);
      const records = join(folder, "records.jsonl");
      const alone = (await json("eval", out, "--task", task, "--text", data, "--records", records)) as EvalReport;
      expect(alone.evaluations[0]!.metrics.acc!.mean).toBe(score);
      expect(readFileSync(records, "utf8").trim().split("\n").length).toBe(30);
    }),
  60_000,
);

describe("bad input gets one line", () => {
  const inFolder = (use: (folder: string, home: string[]) => Promise<void>) => () =>
    withTemporary((folder) => use(folder, ["--data-dir", join(folder, "home"), "--threads", "1", "--json"]));

  test(
    "convert",
    inFolder(async (folder, home) => {
      const { model, data } = writeConvertFiles(folder);
      const run = (...args: string[]) => convertCommand.run([...args, ...home]);
      await expect(run(model, "--variant", "rwkv", "--data", data)).rejects.toThrow(
        'Invalid value for --variant: "rwkv"',
      );
      await expect(run(model, "--tokens", "lots", "--data", data)).rejects.toThrow(
        'Invalid value for --tokens: "lots"',
      );
      await expect(run(model)).rejects.toThrow("There is nothing to train on: give --data FILES");
      await expect(run(join(folder, "none"), "--data", data)).rejects.toThrow(
        "it is neither a folder with a config.json",
      );
      await expect(run(model, "--data", join(folder, "none.txt"))).rejects.toThrow("there is no such file or folder");
      await expect(run(model, "--data", data, "--row-length", "65")).rejects.toThrow("expected 2 to the context of 64");
      writeFileSync(join(folder, "text.txt"), "words");
      await expect(run(model, "--data", join(folder, "text.txt"))).rejects.toThrow("the model has no tokenizer");
    }),
  );

  test(
    "search",
    inFolder(async (folder, home) => {
      const { model } = writeConvertFiles(folder);
      const task = writeTask(join(folder, "task.jsonl"), 1);
      const run = (...args: string[]) => searchCommand.run([...args, ...home]);
      await expect(run(model)).rejects.toThrow("There is no task to search for: give --task FILE");
      await expect(run(model, "--task", join(folder, "none"))).rejects.toThrow("no such file");
      await expect(run(model, "--task", task, "--all", "--replace", "1")).rejects.toThrow("Give one of --max-drop");
      for (const name of ["", "../up", "a b", "-x", "x".repeat(129)]) {
        await expect(run(model, "--task", task, `--name=${name}`)).rejects.toThrow("Cannot name the hybrid");
      }
      await expect(run(model, "--task", task, "--name", "base")).rejects.toThrow("that always means the full backbone");
      await expect(run(model, "--task", join(folder, "my task.jsonl"))).rejects.toThrow("give --name NAME");
      await expect(run(model, "--task", task)).rejects.toThrow('"model" has no pool yet: run graft convert first');
      await expect(run(model, "--task", task, "--variant", "jet")).rejects.toThrow('Cannot find a jet pool of "model"');
      await expect(run(model, "--task", task, "--metric", "exact_match")).rejects.toThrow("has acc, acc_norm");
      const broken = join(folder, "broken.jsonl");
      writeFileSync(broken, `${readFileSync(task, "utf8")}{"context_ids":[1],"choices_ids":[[1]],"gold":0}\n`);
      await expect(run(model, "--task", broken)).rejects.toThrow('broken.jsonl" line 31: "choices_ids" has 1 entries');
      writeFileSync(broken, '{"context_ids":[1],"choices_ids":[[1],[99]],"gold":0}\n');
      await expect(run(model, "--task", broken)).rejects.toThrow("token id 99 is outside the vocabulary of 40");
    }),
  );

  test(
    "eval and export",
    inFolder(async (folder, home) => {
      const { model } = writeConvertFiles(folder);
      const task = writeTask(join(folder, "task.jsonl"), 1);
      const run = (...args: string[]) => evalCommand.run([...args, ...home]);
      await expect(run(model)).rejects.toThrow("Nothing to score: give --task FILE or --text FILES");
      await expect(run(model, "--task", task, "--layers", "7")).rejects.toThrow("expected all or numbers 0 to 2");
      await expect(run("model:fast", "--task", task)).rejects.toThrow('Cannot find hybrid "fast" of "model"');
      await expect(run(model, "--task", task, "--records", folder)).rejects.toThrow("is a folder, expected a file");
      await expect(run("modle", "--task", task)).rejects.toThrow('(did you mean "model"?)');
      const out = join(folder, "out");
      const exported = (name: string) => exportCommand.run([name, out, ...home.slice(0, 2)]);
      await expect(exported("model")).rejects.toThrow("Name the hybrid to export: MODEL:HYBRID");
      await expect(exported("model:fast")).rejects.toThrow("none is registered");
      expect(existsSync(out)).toBe(false);
    }),
  );
});
