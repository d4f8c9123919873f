// graft bench kernels on a CUDA device: the steps of layers at the sizes of known models. The measuring is in src/bench.
import { shapeConfig } from "../../models/shapes.ts";
import { DeviceCopy } from "../bench/bandwidth.ts";
import { type DeviceFigure, type DeviceLimits, measureLayerCase } from "../bench/device_kernels.ts";
import { layerCases } from "../bench/layer_cases.ts";
import { peakFlops } from "../bench/machine.ts";
import type { Ops } from "../ops/ops.ts";
import { agreeingVariants, Refusals } from "./bench_refusals.ts";
import { UsageError } from "./config.ts";
import { type Column, formatTable } from "./table.ts";

/** Variants whose steps are measured. */
const VARIANTS = ["gla", "gdn"] as const;
/** Models whose layers are measured where none is named. */
const SHAPES = ["llama-3.2-3b", "qwen2.5-1.5b"];

const COLUMNS: readonly Column<DeviceFigure>[] = [
  { title: "CASE", cell: (row) => row.name },
  { title: "BEST µs", align: "right", cell: (row) => micro(row.bestSeconds) },
  { title: "MEDIAN µs", align: "right", cell: (row) => micro(row.medianSeconds) },
  { title: "GB/S", align: "right", cell: (row) => (row.bytesPerSecond / 1e9).toFixed(0) },
  { title: "TFLOP/S", align: "right", cell: (row) => (row.flopsPerSecond / 1e12).toFixed(1) },
  { title: "OF", cell: (row) => row.bound },
  { title: "SHARE", align: "right", cell: (row) => `${(100 * row.share).toFixed(0)}%` },
];

/** What the command was asked for. */
export interface DeviceKernelOptions {
  readonly shape: string | undefined;
  readonly filter: string;
  /** Of one case. */
  readonly seconds: number;
  readonly json: boolean;
}

/**
 * Measures; returns what is to be printed and the exit status.
 * @throws UsageError where no case is left, KernelError where there is no figure at all
 */
export function deviceKernels(
  ops: Ops,
  reference: Ops,
  options: DeviceKernelOptions,
): { readonly text: string; readonly status: number } {
  const shapes = options.shape === undefined ? SHAPES : [options.shape];
  const wanted = shapes.flatMap((shape) => {
    const cases = layerCases(shape, shapeConfig(shape)).filter(({ name }) => name.includes(options.filter));
    return cases.length > 0 ? [{ shape, cases }] : [];
  });
  if (wanted.length === 0) throw new UsageError(`Invalid value for --filter: no case contains "${options.filter}"`);
  const types = { kvDtype: "bf16", stateDtype: "f32", weightType: "bf16" } as const;
  const refusals = new Refusals();
  const cases = wanted.flatMap(({ shape, cases }) => {
    const agreeing = agreeingVariants(ops, reference, shapeConfig(shape), VARIANTS, types, refusals);
    return cases.filter(({ variant }) => variant === null || agreeing.includes(variant));
  });
  const limits: DeviceLimits = {
    bytesPerSecond: new DeviceCopy(ops).measure(),
    flopsPerSecond: peakFlops(ops, "bf16", 0.3),
  };
  const { name } = ops.info() as { name: string };
  const { bytesPerSecond, flopsPerSecond } = limits;
  process.stderr.write(
    `${name}: a copy moves ${(bytesPerSecond / 1e9).toFixed(0)} GB/s, matrix products ${(flopsPerSecond / 1e12).toFixed(0)} TFLOP/s\n`,
  );
  const figures = cases.flatMap((one) => {
    const figure = refusals.attempt(one.name, () => measureLayerCase(ops, one, limits, options.seconds));
    if (figure === null) return [];
    process.stderr.write(`${one.name}: ${micro(figure.bestSeconds)} µs, ${(100 * figure.share).toFixed(0)}%\n`);
    return [figure];
  });
  const text = options.json
    ? `${JSON.stringify({ device: name, limits, figures }, null, 2)}\n`
    : formatTable(COLUMNS, figures, process.stdout);
  return { text, status: refusals.status(figures.length) };
}

function micro(seconds: number): string {
  return (1e6 * seconds).toFixed(seconds < 1e-4 ? 2 : 0);
}
