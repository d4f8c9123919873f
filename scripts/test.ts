// Runs all test files, then the kernels' tests again on libraries built with AddressSanitizer and
// UndefinedBehaviorSanitizer, and ends with one line of the runner's own counts: "N passed, N failed, N skipped".
//   bun scripts/test.ts            both passes
//   bun scripts/test.ts PATHS...   those files only, without the second pass
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { buildKernels } from "../kernels/build.ts";
import { supportedIsas } from "../src/ops/library.ts";

const root = dirname(import.meta.dir);

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** One run of the test runner; a run that ends badly without a failed test counts as one failure. */
async function runTests(name: string, paths: string[], env: Record<string, string>): Promise<Counts> {
  const report = join(root, "build", `test-report-${name}.xml`);
  mkdirSync(dirname(report), { recursive: true });
  rmSync(report, { force: true });
  const child = Bun.spawn(
    [process.execPath, "test", "--timeout=120000", "--reporter=junit", `--reporter-outfile=${report}`, ...paths],
    {
      cwd: root,
      stdout: "inherit",
      stderr: "inherit",
      // Tests that concern a device name it.
      env: { ...process.env, GRAFT_DEVICE: "cpu", ...env },
    },
  );
  const status = await child.exited;
  const text = existsSync(report) ? readFileSync(report, "utf8") : "";
  const suites = /<testsuites [^>]*>/.exec(text)?.[0] ?? "";
  const count = (key: string) => Number(new RegExp(`\\b${key}="(\\d+)"`).exec(suites)?.[1] ?? 0);
  const [tests, failed, skipped] = [count("tests"), count("failures"), count("skipped")];
  const passed = tests - failed - skipped;
  return { passed, failed: failed === 0 && (status !== 0 || passed === 0) ? 1 : failed, skipped };
}

/** Where the compiler keeps a sanitizer's runtime; it has to be loaded before Bun itself. */
function runtime(name: string): string {
  return Bun.spawnSync(["g++", `-print-file-name=${name}`])
    .stdout.toString()
    .trim();
}

async function runSanitized(): Promise<Counts> {
  const isa = supportedIsas().at(-1)!;
  await buildKernels([...new Set(["reference", isa] as const)], { sanitize: true });
  console.log(`\nThe kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer (${isa})`);
  return runTests("sanitized", ["test/kernels"], {
    GRAFT_ISA: isa,
    GRAFT_KERNELS: join(root, "build", "kernels-sanitize"),
    LD_PRELOAD: `${runtime("libasan.so")} ${runtime("libubsan.so")}`,
    // Leaks are the runtime's own; its signal handlers have to stay with Bun.
    ASAN_OPTIONS: "detect_leaks=0:handle_segv=0:allow_user_segv_handler=1",
  });
}

const paths = process.argv.slice(2);
const runs = [await runTests("all", paths, {})];
if (paths.length === 0) runs.push(await runSanitized());
const total = (key: keyof Counts) => runs.reduce((sum, run) => sum + run[key], 0);
console.log(`${total("passed")} passed, ${total("failed")} failed, ${total("skipped")} skipped`);
process.exit(total("failed") === 0 && total("passed") > 0 ? 0 : 1);
