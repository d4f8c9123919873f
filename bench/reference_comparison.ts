// Repeats the independent PyTorch run of Distill-then-Replace on the real test data and writes the comparison to
// bench/results/. Usage: bun bench/reference_comparison.ts [--data DIR] [--work DIR] [--threads N] [--machine TEXT]
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Variant } from "../models/attention/mixer.ts";
import { Ops } from "../src/ops/ops.ts";
import { distil, plans } from "./reference/distillation.ts";
import { searchAll } from "./reference/searches.ts";
import { readReference, type Setting } from "./reference/setting.ts";
import { sortAll } from "./reference/sorting.ts";
import { type Comparison, toMarkdown } from "./reference/tables.ts";

const { values } = parseArgs({
  options: {
    data: { type: "string", default: process.env.GRAFT_DATA ?? join(import.meta.dir, "..", "..", "shared", "data") },
    work: { type: "string" },
    threads: { type: "string", default: "1" },
    machine: { type: "string", default: "2-core x86-64 AVX-512" },
  },
});

const threads = Number(values.threads);
const ops = await Ops.load({ threads });
const setting: Setting = {
  ops,
  data: values.data,
  work: values.work ?? mkdtempSync(join(tmpdir(), "graft-comparison-")),
  reference: readReference(values.data),
  log: (line) => console.log(`${new Date().toISOString()} ${line}`),
};
mkdirSync(setting.work, { recursive: true });

const sorting = await sortAll(setting);
const models = [];
for (const plan of plans) models.push(await distil(setting, plan));
const folders = Object.fromEntries(models[0]!.runs.map(({ variant, folder }) => [variant, folder])) as Record<
  Variant,
  string
>;
const comparison: Comparison = {
  date: new Date().toISOString().slice(0, 10),
  machine: values.machine,
  commit: execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: import.meta.dir, encoding: "utf8" }).trim(),
  isa: ops.isa,
  threads,
  models: models.map(({ name, runs }) => ({ name, runs: runs.map((run) => ({ ...run, folder: "" })) })),
  searches: await searchAll(setting, folders),
  sorting,
};
const results = join(import.meta.dir, "results");
mkdirSync(results, { recursive: true });
const markdown = toMarkdown(comparison, setting.reference);
writeFileSync(join(results, "reference_comparison.json"), `${JSON.stringify(comparison, null, 1)}\n`);
writeFileSync(join(results, "reference_comparison.md"), markdown);
console.log(markdown);
