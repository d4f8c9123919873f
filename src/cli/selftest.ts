// graft selftest: compares this machine's kernels with the reference kernels. The cases are in src/selftest.
import { Ops } from "../ops/ops.ts";
import { repeatedSteps } from "../selftest/repeated_steps.ts";
import { type SelftestResult, selftest } from "../selftest/selftest.ts";
import { defineCommand } from "./command.ts";
import { JSON_FLAG } from "./config.ts";
import { KERNEL_FLAGS, kernelOptions } from "./kernel_flags.ts";
import { type Column, formatTable } from "./table.ts";

const COLUMNS: readonly Column<SelftestResult>[] = [
  { title: "CASE", cell: (row) => row.name },
  { title: "ERROR", align: "right", cell: (row) => (row.error === null ? "-" : row.error.toExponential(1)) },
  { title: "LIMIT", align: "right", cell: (row) => (row.limit === 0 ? "equal" : row.limit.toExponential(0)) },
  { title: "RESULT", cell: (row) => (row.passed ? "ok" : `FAILED: ${row.detail}`) },
];

export const selftestCommand = defineCommand(
  {
    name: "selftest",
    summary: "Checks every kernel of this machine against plain reference code",
    positionals: [],
    flags: {
      ...KERNEL_FLAGS,
      json: JSON_FLAG,
    },
    details: `ERROR is the largest difference of any output over the reference's largest value; the same inputs go through both
libraries. Takes a few seconds, on a CUDA device up to a minute: sizes of real models come in. The exit status is 1 if a
kernel is wrong.`,
    examples: ["graft selftest", "graft selftest --isa avx2 --threads 1 --json", "graft selftest --device cuda"],
  },
  async ({ flags }) => {
    const ops = await Ops.load(kernelOptions(flags));
    const reference = await Ops.load({ ...kernelOptions(flags), device: "cpu", isa: "reference" });
    const results = [...selftest(ops, reference), repeatedSteps(ops)];
    const failed = results.filter((result) => !result.passed).length;
    const { name, threads } = ops.info() as { name: string; threads: number };
    if (flags.json) {
      const report = { device: ops.kind, name, isa: ops.isa, threads, failed, results };
      process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    } else {
      process.stdout.write(formatTable(COLUMNS, results, process.stdout));
      const verdict =
        failed === 0 ? `All ${results.length} cases agree` : `${failed} of ${results.length} cases FAILED`;
      const place = ops.kind === "cuda" ? name : `${threads} thread${threads === 1 ? "" : "s"}`;
      process.stdout.write(`${verdict}: ${ops.isa} kernels on ${place}\n`);
    }
    return failed === 0 ? 0 : 1;
  },
);
