// The measured sections as one Markdown page.

import { type BenchColumn, formatRows } from "../../src/cli/bench_table.ts";
import type { DisconnectReport } from "../load/disconnects.ts";
import type { SwapReport } from "../load/swaps.ts";
import type { InterferenceRow } from "./interference.ts";
import type { PrefixRow } from "./prefix.ts";
import type { ThroughputRow } from "./throughput.ts";

/** Everything measured so far; a section that is absent has not been measured. */
export interface Sections {
  readonly throughputSmall?: readonly ThroughputRow[];
  readonly throughputLarge?: readonly ThroughputRow[];
  readonly prefix?: readonly PrefixRow[];
  readonly interference?: readonly InterferenceRow[];
  readonly swaps?: SwapReport;
  readonly disconnects?: DisconnectReport;
}

/** Of what the sections were measured with. */
export interface Setting {
  readonly commit: string;
  readonly date: string;
  readonly device: string;
  readonly threads: number;
}

const right = "right" as const;
const ms = (value: number) => (value >= 100 ? value.toFixed(0) : value.toFixed(2));
const percent = (share: number | null) => (share === null ? "-" : `${(100 * share).toFixed(1)}%`);
const column = <T>(title: string, cell: (row: T) => string): BenchColumn<T> => ({ title, align: right, cell });

const throughput: readonly BenchColumn<ThroughputRow>[] = [
  { title: "model", cell: (row) => row.model },
  column("concurrency", (row) => String(row.concurrency)),
  column("requests", (row) => String(row.figures.successful)),
  column("out tok/s", (row) => row.figures.outputTokensPerSecond.toFixed(0)),
  column("all tok/s", (row) => row.figures.totalTokensPerSecond.toFixed(0)),
  column("events/s", (row) => row.figures.eventsPerSecond.toFixed(0)),
  column("TTFT median", (row) => ms(row.figures.ttft!.median)),
  column("p99", (row) => ms(row.figures.ttft!.p99)),
  column("TPOT median", (row) => ms(row.figures.tpot!.median)),
  column("ITL p99", (row) => ms(row.figures.itl!.p99)),
  column("step ms", (row) => ms(1000 * row.server.secondsPerStep)),
  column("step outside kernels", (row) => percent(row.server.outsideKernels)),
  column("kernels of wall", (row) => percent(row.server.kernelShare)),
  column("client", (row) => percent(row.figures.clientShare)),
];

const prefix: readonly BenchColumn<PrefixRow>[] = [
  { title: "model", cell: (row) => row.model },
  column("prompt", (row) => String(row.tokens)),
  column("cold TTFT ms", (row) => ms(row.cold)),
  column("hit TTFT ms", (row) => ms(row.hit)),
  column("cached", (row) => String(row.cachedTokens)),
  column("hit / cold", (row) => percent(row.share)),
];

const interference: readonly BenchColumn<InterferenceRow>[] = [
  { title: "model", cell: (row) => row.model },
  column("streams", (row) => String(row.streams)),
  column("prompt", (row) => String(row.promptTokens)),
  column("ITL before: median", (row) => ms(row.before.median)),
  column("p99", (row) => ms(row.before.p99)),
  column("during: median", (row) => ms(row.during.median)),
  column("p99", (row) => ms(row.during.p99)),
  column("last fifth: median", (row) => ms(row.late.median)),
  column("after: median", (row) => ms(row.after.median)),
  column("last fifth / after", (row) => `${row.ratio.toFixed(2)}x`),
  column("prompt's TTFT ms", (row) => ms(row.ttft)),
];

/** The whole page. */
export function renderPage(setting: Setting, sections: Sections): string {
  const parts = [
    "# Serving\n",
    `Measured by \`bun bench/serving.ts\` at commit ${setting.commit} on ${setting.date}: ${setting.device}, ` +
      `${setting.threads} kernel threads. Clients run on the same machine and take what "client" says of one core. Prompts ` +
      "are random ids that differ between requests and runs; answers have their full length; latencies are milliseconds.\n",
  ];
  const rows = [...(sections.throughputSmall ?? []), ...(sections.throughputLarge ?? [])];
  if (rows.length > 0) parts.push("## Throughput\n", formatRows(throughput, rows, "md"));
  if (sections.prefix) {
    parts.push("## A prefix hit against a cold prefill\n", formatRows(prefix, sections.prefix, "md"));
  }
  if (sections.interference) {
    const title = "## Streams beside the prefill of a long prompt\n";
    parts.push(title, formatRows(interference, sections.interference, "md"));
  }
  if (sections.swaps) parts.push("## Swaps under load\n", swapText(sections.swaps));
  if (sections.disconnects) parts.push("## Clients that leave\n", disconnectText(sections.disconnects));
  return parts.join("\n");
}

function swapText({ swaps, seconds, streams, wrong, followers, late, normal, swapping, p99Ratio }: SwapReport): string {
  return `${swaps} redirections of a hybrid's name in ${seconds.toFixed(1)} s: ${wrong} of ${streams} streams with tokens
of another hybrid than they began with, ${late} of ${followers} following requests not of the new one. Gaps between tokens,
median / p99: ${ms(normal.median)} / ${ms(normal.p99)} without swaps, ${ms(swapping.median)} / ${ms(swapping.p99)} during
them (p99 ${p99Ratio.toFixed(2)}x).
`;
}

function disconnectText({ cuts, seconds, cutSending, healthy, changed, before, after }: DisconnectReport): string {
  return `${cuts} connections cut at random bytes in ${seconds.toFixed(0)} s, ${cutSending} of them while the request was
sent; ${changed} of ${healthy} healthy answers beside them changed. Held before and after: sequences ${before.running} and
${after.running}, KV bytes ${before.kvBytes} and ${after.kvBytes}, state bytes ${before.stateBytes} and ${after.stateBytes},
open files ${before.openFiles} and ${after.openFiles}.
`;
}
