// Runs the test files and ends with one line of the runner's own counts: "N passed, N failed, N skipped".
//   bun scripts/test.ts [paths...]
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";

const root = dirname(import.meta.dir);
const report = join(root, "build", "test-report.xml");
mkdirSync(dirname(report), { recursive: true });
rmSync(report, { force: true });

const child = Bun.spawn(
  [process.execPath, "test", "--reporter=junit", `--reporter-outfile=${report}`, ...process.argv.slice(2)],
  { cwd: root, stdout: "inherit", stderr: "inherit" },
);
const status = await child.exited;
if (!existsSync(report)) {
  console.error("error: The test runner wrote no report");
  process.exit(1);
}
const suites = /<testsuites [^>]*>/.exec(readFileSync(report, "utf8"))?.[0] ?? "";
const count = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(suites)?.[1] ?? Number.NaN);
const [tests, failed, skipped] = [count("tests"), count("failures"), count("skipped")];
const passed = tests - failed - skipped;
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exit(status !== 0 || failed !== 0 || !(passed > 0) ? 1 : 0);
