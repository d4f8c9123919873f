// The result of a search as text: the trajectory with report scores beside it, then what was registered.
import type { ReportEntry } from "../search/report.ts";
import type { SearchReport } from "./search_records.ts";
import { formatTable } from "./table.ts";

interface Row {
  readonly replaced: number;
  readonly added: string;
  readonly layers: string;
  readonly score: number;
  readonly entry: ReportEntry | undefined;
  readonly note: string;
}

/** Lines for a person, ending in a line break. */
export function describeSearch(result: SearchReport): string {
  const { model, hybrid, task, metric, variant, trajectory, best, optimal, numDocuments, report, bos } = result;
  const entryOf = (layers: readonly number[]) => report?.entries[layers.join()];
  const note = (layers: readonly number[]) =>
    [best.layers.join() === layers.join() ? "best" : "", optimal.layers.join() === layers.join() ? "optimal" : ""]
      .filter((word) => word !== "")
      .join(", ");
  const rows: Row[] = [
    { replaced: 0, added: "", layers: "-", score: trajectory.base, entry: entryOf([]), note: note([]) },
    ...trajectory.rounds.map(({ chosen }) => ({
      replaced: chosen.layers.length,
      added: chosen.layer === null ? "" : String(chosen.layer),
      layers: chosen.layers.join("+"),
      score: chosen.score,
      entry: entryOf(chosen.layers),
      note: note(chosen.layers),
    })),
  ];
  const limit = trajectory.minScore === null ? "no limit" : `limit ${trajectory.minScore.toFixed(4)}`;
  const heading = `${task} by ${metric} on ${numDocuments} documents, ${variant}, ${trajectory.strategy}, bos ${bos}, ${limit}`;
  const table = formatTable<Row>(
    [
      { title: "replaced", align: "right", cell: (row) => row.replaced },
      { title: "added", align: "right", cell: (row) => row.added },
      { title: "linear layers", cell: (row) => row.layers },
      { title: "search", align: "right", cell: (row) => row.score.toFixed(4) },
      { title: "report", align: "right", cell: (row) => row.entry?.score.toFixed(4) },
      { title: "against base", cell: (row) => against(row.entry) },
      { title: "", cell: (row) => row.note },
    ],
    rows,
  );
  return `${heading}\n${table}\nRegistered ${model}:${hybrid} (optimal) and ${model}:${hybrid}-best in ${result.seconds.toFixed(1)} s\n`;
}

function against(entry: ReportEntry | undefined): string | null {
  if (!entry?.paired) return null;
  const { difference, standardError, onlyA, onlyB, pValue } = entry.paired;
  const sign = difference > 0 ? "+" : "";
  return `${sign}${difference.toFixed(4)} ± ${(standardError ?? 0).toFixed(4)} (-${onlyA} +${onlyB}, p ${pValue.toFixed(2)})`;
}
