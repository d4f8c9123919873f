// The records that graft bench serve prints: one row a run, as two Markdown tables (throughput, latencies), JSON or CSV.
import type { LoadFigures } from "../bench/serve/figures.ts";
import type { EngineWork } from "../bench/serve/server_stats.ts";
import type { Distribution } from "../bench/statistics.ts";
import { type BenchColumn, type BenchFormat, formatRows } from "./bench_table.ts";

/** One run. */
export interface ServeRow extends LoadFigures {
  /** "c=8", "rate=4/s". */
  readonly load: string;
  readonly models: string;
  readonly prompts: string;
  readonly seed: number;
  readonly server: EngineWork | null;
}

const number = (value: number) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));
const percent = (share: number | null | undefined) =>
  typeof share === "number" ? `${(100 * share).toFixed(1)}%` : "-";
const right = "right" as const;

const throughput: readonly BenchColumn<ServeRow>[] = [
  { title: "load", cell: (row) => row.load },
  { title: "model", cell: (row) => row.models },
  { title: "prompts", cell: (row) => row.prompts },
  { title: "seed", align: right, cell: (row) => String(row.seed) },
  { title: "ok", align: right, cell: (row) => String(row.successful) },
  { title: "failed", align: right, cell: (row) => String(row.failed) },
  { title: "s", align: right, cell: (row) => row.seconds.toFixed(2) },
  { title: "in tok", align: right, cell: (row) => String(row.inputTokens) },
  { title: "cached", align: right, cell: (row) => String(row.cachedTokens) },
  { title: "out tok", align: right, cell: (row) => String(row.outputTokens) },
  { title: "req/s", align: right, cell: (row) => number(row.requestsPerSecond) },
  { title: "out tok/s", align: right, cell: (row) => number(row.outputTokensPerSecond) },
  { title: "all tok/s", align: right, cell: (row) => number(row.totalTokensPerSecond) },
  { title: "goodput/s", align: right, cell: (row) => (row.goodput === null ? "-" : number(row.goodput)) },
  { title: "outside kernels", align: right, cell: ({ server }) => percent(server?.outsideKernels) },
  { title: "client", align: right, cell: (row) => percent(row.clientShare) },
];

interface LatencyRow {
  readonly load: string;
  readonly name: string;
  readonly values: Distribution;
}

const latencies: readonly BenchColumn<LatencyRow>[] = [
  { title: "load", cell: (row) => row.load },
  { title: "ms", cell: (row) => row.name },
  ...(["mean", "median", "p90", "p99", "max"] as const).map((part) => ({
    title: part,
    align: right,
    cell: (row: LatencyRow) => row.values[part].toFixed(2),
  })),
];

/** The text for standard output. */
export function formatServeRows(rows: readonly ServeRow[], format: BenchFormat): string {
  if (format !== "md") return formatRows(throughput, rows, format);
  const latencyRows = rows.flatMap((row) =>
    (["ttft", "tpot", "itl", "e2e"] as const).flatMap((name) => {
      const values = row[name];
      return values === null ? [] : [{ load: `${row.load} #${row.seed}`, name: name.toUpperCase(), values }];
    }),
  );
  const failures = rows.flatMap((row) =>
    Object.entries(row.failures).map(([reason, times]) => `- ${row.load} #${row.seed}: ${times} failed: ${reason}\n`),
  );
  const times = latencyRows.length === 0 ? "" : formatRows(latencies, latencyRows, "md");
  const parts = [formatRows(throughput, rows, "md"), times, failures.join("")];
  return parts.filter((part) => part !== "").join("\n");
}
