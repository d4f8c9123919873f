// graft bench kernels: speed of single kernels beside the machine's limits. The measuring is in src/bench.

import { shapeNames } from "../../models/shapes.ts";
import { benchKernel, caseName, type KernelFigure, kernelCases } from "../bench/kernels.ts";
import { lastLevelCacheBytes } from "../bench/machine.ts";
import { Ops } from "../ops/ops.ts";
import { deviceKernels } from "./bench_device_kernels.ts";
import { defineCommand } from "./command.ts";
import { JSON_FLAG, UsageError } from "./config.ts";
import { KERNEL_FLAGS, kernelOptions } from "./kernel_flags.ts";
import { type Column, formatTable } from "./table.ts";
import { formatBytes } from "./terminal.ts";

const giga = (x: number) => (x / 1e9).toFixed(1);

const COLUMNS: readonly Column<KernelFigure>[] = [
  { title: "CASE", cell: (row) => caseName(row.case) },
  { title: "BEST", align: "right", cell: (row) => formatMicroseconds(row.bestSeconds) },
  { title: "MEDIAN", align: "right", cell: (row) => formatMicroseconds(row.medianSeconds) },
  { title: "GB/S", align: "right", cell: (row) => giga(row.bytesPerSecond) },
  { title: "GFLOP/S", align: "right", cell: (row) => giga(row.flopsPerSecond) },
  { title: "OF", cell: (row) => `${giga(row.limit)} ${row.bound === "read" ? "GB/s read" : "GFLOP/s"}` },
  { title: "SHARE", align: "right", cell: (row) => `${(100 * row.share).toFixed(0)}%` },
  { title: "ERROR", align: "right", cell: (row) => row.error.toExponential(1) },
];

export const benchKernelsCommand = defineCommand(
  {
    name: "bench kernels",
    summary: "Kernels against what this machine's memory and arithmetic can do",
    positionals: [],
    flags: {
      filter: {
        type: "string",
        value: "TEXT",
        help: 'only cases whose name contains this, e.g. "linear 1 "',
        env: false,
      },
      shape: {
        type: "string",
        choices: shapeNames,
        value: "NAME",
        help: "model whose layers are measured on a CUDA device (default: two of them)",
        env: false,
      },
      seconds: { type: "number", min: 0.01, max: 60, default: 0.5, help: "time per case", env: false },
      ...KERNEL_FLAGS,
      json: JSON_FLAG,
    },
    details: `Each case is compared with the reference kernels before it is timed. Kernel and limit take turns, and SHARE is best
against best, so other work on the machine disturbs the times more than the shares. Weights of decode cases are spread
over more memory than the caches hold.

On a CUDA device the cases are the steps of a model's layers for 1, 16 and 128 rows and for a long prompt, recorded and
repeated on operands that no cache holds; SHARE is the time that a large copy would take to move the same bytes, or the
device's matrix rate for the same operations, whichever is longer. A small model is held against the reference first.`,
    examples: [
      "graft bench kernels",
      'graft bench kernels --threads 1 --filter "bf16" --json',
      "graft bench kernels --device cuda --shape llama-3.2-3b --filter gated_linear",
    ],
  },
  async ({ flags }) => {
    const ops = await Ops.load(kernelOptions(flags));
    const reference = await Ops.load({ ...kernelOptions(flags), device: "cpu", isa: "reference" });
    if (ops.kind === "cuda") {
      const { shape, filter = "", seconds, json } = flags;
      const { text, status } = deviceKernels(ops, reference, { shape, filter, seconds, json });
      process.stdout.write(text);
      return status;
    }
    if (flags.shape !== undefined) throw new UsageError("--shape is for a CUDA device: add --device cuda");
    const cases = kernelCases.filter((one) => caseName(one).includes(flags.filter ?? ""));
    if (cases.length === 0) throw new UsageError(`Invalid value for --filter: no case contains "${flags.filter}"`);
    const cache = lastLevelCacheBytes();
    const options = { seconds: flags.seconds, uncachedBytes: 4 * cache };
    const { name, threads } = ops.info() as { name: string; threads: number };
    const machine = { processor: name, isa: ops.isa, threads, lastLevelCacheBytes: cache };
    if (!flags.json) {
      const words = `${name}, ${ops.isa} kernels, ${threads} threads, last-level cache ${formatBytes(cache)}`;
      process.stderr.write(`${words}; ${cases.length} cases\n`);
    }
    const figures = cases.map((one) => benchKernel(ops, reference, one, options));
    process.stdout.write(
      flags.json ? `${JSON.stringify({ machine, figures }, null, 2)}\n` : formatTable(COLUMNS, figures, process.stdout),
    );
    return 0;
  },
);

function formatMicroseconds(seconds: number): string {
  return `${(seconds * 1e6).toFixed(seconds < 1e-4 ? 2 : 0)} µs`;
}
