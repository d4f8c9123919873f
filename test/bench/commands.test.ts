// graft bench decode and prefill as a person runs them: rows, exit status, refusals.
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "..", "..");
const data = mkdtempSync(join(tmpdir(), "graft-bench-"));
afterAll(() => rmSync(data, { recursive: true }));

async function bench(...args: string[]) {
  const command = [process.execPath, join(root, "src", "main.ts"), "bench", ...args, "--data-dir", data];
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "pipe" });
  const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { status: await child.exited, out, err };
}

const short = ["--contexts", "24", "--repeats", "2", "--threads", "1"];

test("bench decode measures a shape with replaced layers", async () => {
  const replaced = [
    "--tokens",
    "3",
    "--replaced",
    "0,10",
    "--variant",
    "gla",
    "--batch",
    "2",
    "--time-kernels",
    "-o",
    "json",
  ];
  const { status, out } = await bench("decode", "--shape", "tiny", ...short, ...replaced);
  const [base, linear] = JSON.parse(out) as Record<string, number | string>[];
  expect(base).toMatchObject({ model: "tiny", test: "tg3 @ d24", hybrid: "base", numLinear: 0, batch: 2, threads: 1 });
  expect(base).toMatchObject({ weightType: "bf16", kvDtype: "f32", speedup: null, stateBytes: 0, numChecked: 2 });
  expect(linear).toMatchObject({ hybrid: "gla-10", numLinear: 10, kvBytes: 0, numChecked: 2 });
  expect(linear!.stateBytes).toBeGreaterThan(0);
  expect(base!.outsideKernels).toBeGreaterThan(0);
  expect(base!.outsideKernels).toBeLessThan(1);
  expect(linear!.speedup).toBeGreaterThan(0);
  expect(status).toBe(0);
});

test("bench decode with random contexts takes those shorter than the sequences that it checks, and batches that fit the positions", async () => {
  const few = ["--tokens", "2", "--repeats", "1", "--threads", "1", "-o", "json"];
  const random = await bench("decode", "--shape", "tiny", "--contexts", "4", "--prompts", "random", ...few);
  expect(JSON.parse(random.out)).toMatchObject([{ test: "tg2 @ d4", batch: 1, numChecked: 3 }]);
  const most = await bench("decode", "--shape", "tiny", "--contexts", "400", "--batch", "max", "--chunk", "64", ...few);
  const [row] = JSON.parse(most.out) as { batch: number; numChecked: number }[];
  expect(row!.batch).toBeGreaterThan(1);
  expect(row!.batch).toBeLessThan(16);
  expect(row!.numChecked).toBe(row!.batch);
});

test("bench prefill measures a folder in a table", async () => {
  const { status, out } = await bench("prefill", join(root, "models", "tiny"), ...short, "--kv-dtype", "bf16");
  const lines = out.trimEnd().split("\n");
  expect(lines.length).toBe(3);
  expect(lines[0]).toMatch(/^\| model .* t\/s \| GFLOP\/s \|/);
  expect(lines[2]).toMatch(/\| tiny +\| .* \| bf16 +\| bf16 \| f32 +\| base +\| +1 \| pp24 /);
  expect(status).toBe(0);
});

test.each([
  [["decode"], "Name one model to measure"],
  [["decode", "x", "--shape", "tiny"], "Name one model to measure"],
  [["decode", "--shape", "tiny", "--variant", "gla"], "add --replaced"],
  [["decode", "--shape", "tiny", "--replaced", "11"], 'Invalid value for --replaced: "11", the model has 10 layers'],
  [["decode", "--shape", "tiny", "--contexts", "12,x"], 'Invalid value for --contexts: "x"'],
  [["decode", "--shape", "tiny", "--batch", "two"], "e.g. 8 or max"],
  [["prefill", "--shape", "tiny", "--batch", "0"], 'Invalid value for --batch: "0"'],
  [["prefill", "--shape", "tinny"], 'Invalid value for --shape: "tinny" (did you mean "tiny"?)'],
])("bench %p is refused", async (args, message) => {
  const { status, err } = await bench(...args);
  expect(err).toContain(message);
  expect(status).toBe(2);
});

test.each([
  [[join(root, "models", "tiny:nope")], 'Cannot find hybrid "nope" of "tiny"'],
  [["--shape", "tiny", "--contexts", "600"], "has positions for 512"],
  [["no-such-model"], 'Cannot find model "no-such-model"'],
])("bench decode %p fails in one line", async (args, message) => {
  const { status, out, err } = await bench("decode", ...args);
  expect(err).toContain(message);
  expect(out).toBe("");
  expect(status).toBe(1);
});
