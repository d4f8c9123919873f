// bench/cuda.ts: rows are kept as they come, a section is stopped at its time, and the page says what was reached.
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runChild } from "../../bench/cuda/child.ts";
import { goalsOf } from "../../bench/cuda/goals.ts";
import { renderPage } from "../../bench/cuda/page.ts";
import { earlierSections, type Run, type Section } from "../../bench/cuda/results.ts";
import { sectionPlans } from "../../bench/cuda/sections.ts";

const root = join(import.meta.dir, "..", "..");
const folder = mkdtempSync(join(tmpdir(), "graft-cuda-run-"));
afterAll(() => rmSync(folder, { recursive: true }));

const options = { form: "lines", milliseconds: 60_000, cwd: folder } as const;
const script = (text: string) => {
  const path = join(folder, `${Bun.hash(text)}.ts`);
  writeFileSync(path, text);
  return [process.execPath, path];
};

test("rows of a command are taken as they come, and what it says last is kept", async () => {
  const rows: unknown[] = [];
  const print = script('console.log(`{"a":1}\\n{"a":2}`); console.error("so far"); process.exit(3);');
  const end = await runChild(print, options, (row) => rows.push(row));
  expect(rows).toEqual([{ a: 1 }, { a: 2 }]);
  expect(end.status).toBe("failed");
  expect(end.notes).toBe("so far\n");
  expect((await runChild(script("console.log('{}')"), options, () => {})).status).toBe("done");
  const broken = await runChild(script("console.log('oh')"), { ...options, form: "document" }, () => {});
  expect(broken.notes).toContain("no JSON: oh");
  expect((await runChild([join(folder, "nothing")], options, () => {})).status).toBe("failed");
});

test("a command is stopped at its time and keeps what it has", async () => {
  const rows: unknown[] = [];
  const endless = script("console.log('{\"first\":true}'); setInterval(() => {}, 1000);");
  const end = await runChild(endless, { ...options, milliseconds: 1500 }, (row) => rows.push(row));
  expect(end.status).toBe("stopped");
  expect(rows).toEqual([{ first: true }]);
});

test("the first shape's sections come first, each once", () => {
  const plans = sectionPlans({
    ...{ device: "cuda", shapes: ["a", "b", "c"], contexts: "512", batches: "1,max", tokens: 4, repeats: 2 },
    ...{ maxBatch: 64, configFile: (shape: string) => `${shape}.json`, numLayers: () => 28 },
  });
  const names = plans.map(({ name }) => name);
  expect(names.slice(0, 4)).toEqual(["selftest", "decode a", "prefill a", "decode b"]);
  expect(new Set(names).size).toBe(names.length);
  expect(plans[1]!.args).toContain("0,7,14,21,28");
  expect(plans.find(({ name }) => name === "pytorch a")!.args).not.toContain("1,max");
});

/** A decode row whose step takes what its bytes do at `share` of 4 TB/s. */
function decodeRow(numLinear: number, batch: number, context: number, share: number, largest = false) {
  const bytes = 6.4e9 + batch * context * 4096 * (28 - numLinear);
  const rate = (batch * 4e12 * share) / bytes;
  const meanContext = context + 50;
  return {
    ...{
      hybrid: numLinear === 0 ? "base" : `gdn-${numLinear}`,
      numLinear,
      batch,
      context,
      meanContext,
      largest,
      share,
    },
    ...{ lastContext: context + 100, kvBytes: (context + 100) * 4096 * (28 - numLinear), limit: 4e12 },
    tokensPerSecond: { mean: rate, deviation: 1 },
    ...{ speedup: numLinear === 0 ? null : 1.5, boundSpeedup: numLinear === 0 ? null : 1.6 },
  };
}

const section = (name: string, rows: unknown[]): Section => {
  return { name, command: `graft ${name}`, status: "done", seconds: 3, rows, notes: "" };
};
const decode = section("decode llama", [
  ...[512, 16_384, 65_536].map((context) => decodeRow(0, 1, context, 0.8)),
  ...[0, 7, 14, 21, 28].map((k) => decodeRow(k, 18, 65_536, k === 14 ? 0.84 : 0.9, true)),
]);
const peer = { mode: "compiled", batch: 1, context: 512, torch: "2", transformers: "5" };
const run: Run = {
  setting: { device: "a device", driver: "1", processor: "a processor", commit: "abc", date: "today" },
  sections: [
    decode,
    section("prefill llama", [
      {
        hybrid: "base",
        numLinear: 0,
        context: 16_384,
        tokensPerSecond: { mean: 7e4, deviation: 3 },
        share: 0.5,
        limit: 7e14,
        flopsPerSecond: 3.5e14,
      },
    ]),
    section("pytorch llama", [
      { ...peer, tokensPerSecond: { mean: 250, deviation: 2 } },
      { ...peer, batch: 16, error: "OutOfMemoryError: so much" },
    ]),
  ],
};

test("goals are reached or not by what was measured", () => {
  const goals = goalsOf(run.sections);
  const reached = (part: string) => goals.filter(({ what }) => what.includes(part)).map((goal) => goal.reached);
  expect(reached("batch 1 at 512")).toEqual([true]);
  expect(reached("what context adds")).toEqual([false]); // 80 % of the bandwidth everywhere, 90 % wanted
  expect(goals.find(({ what }) => what.includes("what context adds"))!.measured).toBe("80 %");
  expect(reached("largest batch")).toEqual([true, false, true]); // k = 0, 14, 21
  expect(reached("the worst case")).toEqual([true]); // 1.5 of 1.6
  expect(reached("a prompt of 16384")).toEqual([false]);
  const figure = { bestSeconds: 3.9e-6, bytesPerSecond: 1, flopsPerSecond: 1, bound: "copy", share: 0.86 };
  const names = ["gdn 1 rows, f32 states", "gdn 128 rows, f32 states", "gated_linear 1 rows"];
  const steps = goalsOf([section("kernels m", [{ figures: names.map((name) => ({ name: `m ${name}`, ...figure })) }])]);
  expect(steps.map((goal) => goal.reached)).toEqual([false, null, null, true, true]);
  expect(goalsOf([section("decode other", [])]).every(({ measured }) => measured === null)).toBe(true);
});

test("the page has every section, and a peer beside graft's own", () => {
  const page = renderPage(run);
  for (const text of ["a device, driver 1", "## decode llama", "Largest batch", "## prefill llama"]) {
    expect(page).toContain(text);
  }
  const rate = (decode.rows[0] as ReturnType<typeof decodeRow>).tokensPerSecond.mean;
  expect(page).toContain(
    `| compiled | 1 | 512 | 250.0 ± 2.0 | ${rate.toFixed(1)} ± 1.0 | ${(rate / 250).toFixed(2)}x |`,
  );
  expect(page).toContain("OutOfMemoryError: so much");
});

test("a run on the processor leaves its files, and goes on where it was", async () => {
  const out = join(folder, "run");
  const sizes = ["--shapes", "tiny", "--contexts", "64", "--repeats", "2", "--minutes", "2", "--commit", "abc"];
  const command = [process.execPath, join(root, "bench", "cuda.ts"), "--device", "cpu", ...sizes, "--out", out];
  const child = Bun.spawn([...command, "--only", "prefill"], { stdout: "ignore", stderr: "pipe" });
  const notes = await new Response(child.stderr).text();
  expect(await child.exited, notes).toBe(0);
  const { sections, setting } = JSON.parse(readFileSync(`${out}.json`, "utf8")) as Run;
  expect(sections.map(({ name, status, rows }) => [name, status, rows.length])).toEqual([["prefill tiny", "done", 3]]);
  expect(readFileSync(`${out}.md`, "utf8")).toContain("| base | 64 |");
  expect(existsSync(`${out}.json.tmp`)).toBe(false);
  expect(earlierSections(`${out}.json`, setting)).toEqual([...sections]);
  expect(() => earlierSections(`${out}.json`, { ...setting, commit: "def" })).toThrow("is of abc");
}, 60_000);

test.each([
  [["--minutes", "abc"], 'Invalid value for --minutes: "abc", expected a number above 0'],
  [["--device", "gpu"], 'Invalid value for --device: "gpu", expected auto | cpu | cuda'],
  [["--shapes", "tiny,nope"], 'Cannot find shape "nope"'],
  [["--only", "nothing"], 'No section begins with "nothing": selftest | decode'],
  [["--nope"], "Unknown option '--nope'"],
])("%p is refused in one line before anything is measured", async (args, message) => {
  const out = join(folder, "refused");
  const command = [process.execPath, join(root, "bench", "cuda.ts"), "--out", out, ...args];
  const child = Bun.spawn(command, { stdout: "ignore", stderr: "pipe" });
  const said = await new Response(child.stderr).text();
  expect(said).toStartWith(`error: ${message}`);
  expect(said.trimEnd()).not.toContain("\n");
  expect(await child.exited).toBe(2);
  expect(existsSync(`${out}.json`)).toBe(false);
});
