// --device and its twin: what the kernels' options and the words of a job's process come to, and that training refuses a
// device in one line.
import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseCommand } from "../../src/cli/config.ts";
import { KERNEL_FLAGS, kernelOptions, kernelUse, kernelWords, trainingOptions } from "../../src/cli/kernel_flags.ts";
import { startCli } from "../support/cli.ts";

const spec = { name: "x", summary: "", positionals: [], flags: KERNEL_FLAGS, examples: [] } as const;
const given = (args: readonly string[], environment = {}) => parseCommand(spec, args, environment).flags;

test("--device has three values, auto when nothing is said, and a twin in the environment", () => {
  expect(kernelOptions(given([])).device).toBe("auto");
  expect(kernelOptions(given(["--device", "cpu"])).device).toBe("cpu");
  expect(kernelOptions(given([], { GRAFT_DEVICE: "cuda" })).device).toBe("cuda");
  expect(kernelOptions(given(["--device=cpu"], { GRAFT_DEVICE: "cuda" })).device).toBe("cpu");
  expect(() => given(["--device", "tpu"])).toThrow('Invalid value for --device: "tpu"');
  expect(() => given([], { GRAFT_DEVICE: "simt" })).toThrow("GRAFT_DEVICE");
});

test("a job that trains gets the processor whatever its server computes on; one that scores gets the server's device", () => {
  expect(["convert", "pretrain", "search", "eval"].map(kernelUse)).toEqual([
    "training",
    "training",
    "scoring",
    "scoring",
  ]);
  expect(kernelWords(given([]), "training")).toEqual(["--device", "cpu"]);
  const open = kernelWords(given(["--device", "auto"], { GRAFT_DEVICE: "cuda" }), "scoring");
  expect(given(open, { GRAFT_DEVICE: "cuda" }).device).toBe("auto");
  const training = kernelWords(given(["--device", "auto"], { GRAFT_DEVICE: "cuda" }), "training");
  expect(trainingOptions(given(training, { GRAFT_DEVICE: "cuda" })).device).toBe("cpu");
  expect(kernelWords(given([], { GRAFT_DEVICE: "cuda" }), "training")).toEqual(["--device", "cpu"]);
  expect(kernelWords(given(["--device", "cuda"]), "scoring")).toEqual(["--device", "cuda"]);
  expect(kernelWords(given(["--device", "cpu", "--isa", "avx2"]), "scoring")).toEqual([
    "--device",
    "cpu",
    "--isa",
    "avx2",
  ]);
});

test("training takes the processor silently where the device is left open, and refuses one that is named", () => {
  expect(trainingOptions(given([])).device).toBe("cpu");
  expect(() => trainingOptions(given(["--device", "cuda"]))).toThrow(/training runs on the processor only; give/);
});

test("convert and pretrain with --device cuda end with one line before anything is written", async () => {
  for (const words of [
    ["convert", "nowhere", "--device", "cuda"],
    ["pretrain", "--out", "nowhere", "--device", "cuda"],
  ]) {
    const { status, stderr } = await startCli(words).finished;
    expect(stderr).toMatch(/^error: Cannot use --device cuda: training runs on the processor only; [^\n]+\n$/);
    expect(status).toBe(1);
  }
});

test("demo with --device cuda asks for the device before it converts anything", async () => {
  const home = mkdtempSync(join(tmpdir(), "graft-demo-"));
  const words = ["demo", "--once", "--device", "cuda", "--isa", "avx2", "--data-dir", home];
  const { status, stdout, stderr } = await startCli(words).finished;
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toMatch(/^error: Cannot use --isa avx2 with --device cuda: [^\n]+\n$/);
  expect(readdirSync(home)).toEqual([]);
  rmSync(home, { recursive: true });
});

test("a context beyond the model's positions, and pages too few for one token, are refused by the flag's name", async () => {
  const tiny = join(import.meta.dir, "..", "..", "models", "tiny");
  const refused = async (...words: string[]) => {
    const { status, stderr } = await startCli(["run", tiny, "hi", "--threads", "1", ...words]).finished;
    expect(status).toBe(1);
    return stderr;
  };
  expect(await refused("--max-context", "513")).toMatch(
    /^error: Cannot use --max-context 513: "[^"]+" has 512 positions; [^\n]+\n$/,
  );
  expect(await refused("--kv-memory", "1")).toMatch(
    /^error: Cannot use --kv-memory 1: expected an integer from 163840 [^\n]+\n$/,
  );
});
