// Aligned tables on standard output. Knows columns, not what they mean.

import { painter, type TerminalStream } from "./terminal.ts";

/** One column: its heading and how its cells line up. */
export interface Column<T> {
  readonly title: string;
  readonly align?: "left" | "right";
  cell(row: T): string | number | null | undefined;
}

/** The table as text with a heading line; absent cells are "-". No rows give the heading alone. */
export function formatTable<T>(columns: readonly Column<T>[], rows: readonly T[], stream?: TerminalStream): string {
  const paint = painter(stream ?? { write: () => true });
  const cells = rows.map((row) => columns.map((column) => String(column.cell(row) ?? "-")));
  const widths = columns.map((column, i) => Math.max(column.title.length, ...cells.map((row) => [...row[i]!].length)));
  const line = (texts: readonly string[]) =>
    texts
      .map((text, i) => {
        const gap = " ".repeat(widths[i]! - [...text].length);
        return columns[i]!.align === "right" ? gap + text : text + gap;
      })
      .join("  ")
      .trimEnd();
  const heading = paint("bold", line(columns.map((column) => column.title)));
  return `${[heading, ...cells.map(line)].join("\n")}\n`;
}

/** Prints rows as a table, or with `json` as one JSON array. */
export function printRows<T>(columns: readonly Column<T>[], rows: readonly T[], json: boolean): void {
  process.stdout.write(json ? `${JSON.stringify(rows, null, 2)}\n` : formatTable(columns, rows, process.stdout));
}
