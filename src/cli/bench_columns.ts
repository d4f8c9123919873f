// Columns and cells that the tables of graft bench decode and prefill share.
import type { Spread } from "../bench/statistics.ts";
import type { CaseRow } from "./bench_models.ts";
import type { BenchColumn } from "./bench_table.ts";
import { formatBytes, formatCount } from "./terminal.ts";

export const giga = (x: number): string => (x / 1e9).toFixed(1);
export const percent = (share: number): string => `${(100 * share).toFixed(0)}%`;

/** "46.21 ± 0.30" */
export function rateCell({ mean, deviation }: Spread): string {
  const digits = mean >= 1000 ? 0 : mean >= 100 ? 1 : 2;
  return `${mean.toFixed(digits)} ± ${deviation.toFixed(digits)}`;
}

/** As llama-bench begins its rows. */
export const caseColumns: readonly BenchColumn<CaseRow>[] = [
  { title: "model", cell: (row) => row.model },
  { title: "size", align: "right", cell: (row) => formatBytes(row.weightBytes) },
  { title: "params", align: "right", cell: (row) => formatCount(row.numParams) },
  { title: "backend", cell: (row) => row.backend },
  { title: "threads", align: "right", cell: (row) => String(row.threads) },
  { title: "weights", cell: (row) => row.weightType },
  { title: "kv", cell: (row) => row.kvDtype },
  { title: "state", cell: (row) => row.stateDtype },
  { title: "hybrid", cell: (row) => row.hybrid },
  { title: "batch", align: "right", cell: (row) => String(row.batch) },
  { title: "test", cell: (row) => row.test },
];

/** As the rows end. */
export const memoryColumns: readonly BenchColumn<CaseRow & { readonly peakMemoryBytes: number }>[] = [
  { title: "KV/seq", align: "right", cell: (row) => formatBytes(row.kvBytes) },
  { title: "state/seq", align: "right", cell: (row) => formatBytes(row.stateBytes) },
  { title: "peak memory", align: "right", cell: (row) => formatBytes(row.peakMemoryBytes) },
];
