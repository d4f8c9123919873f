// graft bench, selftest and doctor as a person runs them: output, JSON and exit status.
import { expect, test } from "bun:test";
import { join } from "node:path";

const main = join(import.meta.dir, "..", "..", "src", "main.ts");

async function graft(...args: string[]) {
  const child = Bun.spawn([process.execPath, main, ...args], { stdout: "pipe", stderr: "pipe" });
  const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { status: await child.exited, out, err };
}

test("selftest prints JSON and exits with 0", async () => {
  const { status, out } = await graft("selftest", "--json", "--threads", "1");
  const report = JSON.parse(out) as { failed: number; threads: number; results: { passed: boolean }[] };
  expect(report.failed).toBe(0);
  expect(report.threads).toBe(1);
  expect(report.results.length).toBeGreaterThan(20);
  expect(status).toBe(0);
});

test("doctor prints a table and exits with 1 where the data folder cannot be", async () => {
  const { status, out } = await graft("doctor", "--data-dir", join(main, "data"));
  expect(out).toStartWith("TOPIC");
  expect(out).toMatch(/data folder\s+PROBLEM\s+.*is not a folder/);
  expect(status).toBe(1);
});

test("bench kernels measures the cases of a filter", async () => {
  const { status, out } = await graft("bench", "kernels", "--json", "--seconds", "0.01", "--filter", "64 × [128, 128]");
  const { machine, figures } = JSON.parse(out) as { machine: { isa: string }; figures: { share: number }[] };
  expect(machine.isa).not.toBe("reference");
  expect(figures.length).toBe(1);
  expect(figures[0]!.share).toBeGreaterThan(0);
  expect(status).toBe(0);
});

test("bench refuses what it does not know and a filter without cases", async () => {
  const unknown = await graft("bench", "kernel");
  expect(unknown.err).toContain('Unknown measurement "kernel" (did you mean "kernels"?)');
  expect(unknown.status).toBe(2);
  const empty = await graft("bench", "kernels", "--filter", "zzz");
  expect(empty.err).toContain('no case contains "zzz"');
  expect(empty.status).toBe(2);
});
