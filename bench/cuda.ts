// Measures a CUDA device and writes bench/results/cuda.{json,md}: selftest, decoding, prefill, kernels, and transformers on
// PyTorch with the same shapes. Every row is written as soon as it is there; what does not fit into the time is left out.
//   bun bench/cuda.ts --minutes 25
//   BUN_BE_BUN=1 dist/graft bench/cuda.ts      where there is no Bun: graft is its own
//   bun bench/cuda.ts --continue FILE.json     goes on with an earlier run of this commit on such a device
//   bun bench/cuda.ts --only "decode llama"    sections whose names begin so
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { shapeConfig } from "../models/shapes.ts";
import { deviceNames } from "../src/ops/library.ts";
import { runChild } from "./cuda/child.ts";
import { earlierSections, RunFile, type RunSetting, type Section } from "./cuda/results.ts";
import { type SectionPlan, sectionPlans } from "./cuda/sections.ts";

const root = join(import.meta.dir, "..");
/** Time that starting a section must be worth. */
const LEAST_MS = 20_000;

const options = {
  minutes: { type: "string", default: "25" },
  device: { type: "string", default: "cuda" },
  shapes: { type: "string", default: "llama-3.2-3b,qwen2.5-1.5b,llama-3.1-8b" },
  contexts: { type: "string", default: "512,2048,16384,65536" },
  batches: { type: "string", default: "1,16,max" },
  tokens: { type: "string", default: "32" },
  repeats: { type: "string", default: "3" },
  only: { type: "string", default: "" },
  out: { type: "string", default: join(root, "bench", "results", "cuda") },
  python: { type: "string", default: "python3" },
  commit: { type: "string" },
  continue: { type: "string", default: "" },
  "max-batch": { type: "string", default: "1024" },
} as const;
const values = orStop(() => parseArgs({ options }).values);

/** What cannot be used ends the run in one line, before anything is measured. */
function orStop<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    process.stderr.write(`error: ${(error as Error).message}\n`);
    process.exit(2);
  }
}

function positive(name: "minutes" | "tokens" | "repeats" | "max-batch"): number {
  const value = Number(values[name]);
  if (value > 0 && (name === "minutes" || Number.isInteger(value))) return value;
  throw new RangeError(`Invalid value for --${name}: "${values[name]}", expected a number above 0`);
}

/** With BUN_BE_BUN this runs in graft itself, else in Bun beside the sources. */
const graft = process.env.BUN_BE_BUN ? [process.execPath] : [process.execPath, join(root, "src", "main.ts")];

function output(command: string[]): string | null {
  try {
    const { exitCode, stdout } = Bun.spawnSync(command, { cwd: root, stderr: "ignore" });
    return exitCode === 0 ? stdout.toString().trim() : null;
  } catch {
    return null;
  }
}

function settingOf(device: string): RunSetting {
  const processor = cpus()[0]?.model.trim() ?? "unknown processor";
  const query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"];
  const [name, driver] = (device === "cpu" ? null : output(query))?.split("\n")[0]?.split(", ") ?? [];
  const changed = output(["git", "status", "--porcelain", "--untracked-files=no"]);
  const commit = values.commit ?? output(["git", "rev-parse", "--short=12", "HEAD"]) ?? "unknown";
  return {
    device: name ?? (device === "cpu" ? processor : "unknown"),
    driver: driver ?? "none",
    processor,
    commit: values.commit === undefined && changed ? `${commit} with changes` : commit,
    date: new Date().toISOString().slice(0, 16).replace("T", " "),
  };
}

/** Runs one section to its end or its time; what it prints is in the file at once. */
async function runSection(file: RunFile, plan: SectionPlan, milliseconds: number) {
  const program = plan.program === "graft" ? graft : [values.python];
  const rows: unknown[] = [];
  const known = { name: plan.name, command: [plan.program, ...plan.args].join(" "), rows };
  const running: Section = { ...known, status: "running", seconds: 0, notes: "" };
  const options = { form: plan.form, milliseconds, cwd: root };
  const end = await runChild([...program, ...plan.args], options, (row) => {
    rows.push(row);
    file.put(running);
  });
  file.put({ ...known, ...end });
  return { status: end.status, rows: rows.length };
}

/** The sections that were asked for. @throws RangeError, RequestError */
function plansIn(temporary: string): SectionPlan[] {
  const configFile = (shape: string) => {
    const path = join(temporary, `${shape}.json`);
    writeFileSync(path, JSON.stringify(shapeConfig(shape).raw));
    return path;
  };
  if (!deviceNames.some((name) => name === values.device)) {
    throw new RangeError(`Invalid value for --device: "${values.device}", expected ${deviceNames.join(" | ")}`);
  }
  const plans = sectionPlans({
    device: values.device,
    shapes: values.shapes.split(","),
    contexts: values.contexts,
    batches: values.batches,
    tokens: positive("tokens"),
    repeats: positive("repeats"),
    maxBatch: positive("max-batch"),
    configFile,
    numLayers: (shape) => shapeConfig(shape).numLayers,
  });
  const wanted = plans.filter(({ name }) => name.startsWith(values.only));
  if (wanted.length > 0) return wanted;
  throw new RangeError(`No section begins with "${values.only}": ${plans.map(({ name }) => name).join(" | ")}`);
}

async function main(temporary: string): Promise<void> {
  const end = performance.now() + 60_000 * orStop(() => positive("minutes"));
  const plans = orStop(() => plansIn(temporary));
  const setting = settingOf(values.device);
  const known = values.continue === "" ? [] : orStop(() => earlierSections(values.continue, setting));
  const file = new RunFile(values.out, setting, known);
  for (const plan of plans) {
    if (known.some(({ name, status }) => name === plan.name && status === "done")) continue;
    const left = end - performance.now();
    if (left < LEAST_MS) {
      process.stderr.write(`No time is left for ${plan.name}\n`);
      continue;
    }
    process.stderr.write(`== ${plan.name}\n`);
    const { status, rows } = await runSection(file, plan, Math.min(left, 60_000 * plan.minutes));
    process.stderr.write(`== ${plan.name}: ${status}\n`);
    if (plan.name === "selftest" && status === "failed" && rows === 0) {
      process.stderr.write("Nothing else is measured: the selftest did not begin\n");
      process.exitCode = 1;
      return;
    }
  }
}

const temporary = mkdtempSync(join(tmpdir(), "graft-cuda-"));
process.on("exit", () => rmSync(temporary, { recursive: true, force: true }));
await main(temporary);
