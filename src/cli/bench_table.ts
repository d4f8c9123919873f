// Rows of measurements as a Markdown table, CSV, JSON or JSON lines. Knows columns, not what was measured.

export type BenchFormat = "md" | "csv" | "json" | "jsonl";

/** A column of the Markdown table; the other formats hold every field of a row. */
export interface BenchColumn<T> {
  readonly title: string;
  readonly align?: "right";
  cell(row: T): string;
}

/** The text for standard output, ending in a newline. Nested fields become columns such as "tokensPerSecond.mean" in CSV. */
export function formatRows<T extends object>(
  columns: readonly BenchColumn<T>[],
  rows: readonly T[],
  format: BenchFormat,
): string {
  switch (format) {
    case "md":
      return markdown(columns, rows);
    case "csv":
      return csv(rows);
    case "json":
      return `${JSON.stringify(rows, null, 2)}\n`;
    case "jsonl":
      return rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  }
}

/** Rows as they are measured: JSON lines leave at once, so that a run that is cut short keeps what it has. */
export class RowWriter<T extends object> {
  readonly rows: T[] = [];
  readonly #columns: readonly BenchColumn<T>[];
  readonly #format: BenchFormat;

  constructor(columns: readonly BenchColumn<T>[], format: BenchFormat) {
    this.#columns = columns;
    this.#format = format;
  }

  add(row: T): void {
    this.rows.push(row);
    if (this.#format === "jsonl") process.stdout.write(formatRows(this.#columns, [row], "jsonl"));
  }

  /** What is left to write when all are measured. */
  rest(): string {
    return this.#format === "jsonl" ? "" : formatRows(this.#columns, this.rows, this.#format);
  }
}

function markdown<T>(columns: readonly BenchColumn<T>[], rows: readonly T[]): string {
  const cells = rows.map((row) => columns.map((column) => column.cell(row).replaceAll("|", "\\|")));
  const widths = columns.map(({ title }, i) => Math.max(3, title.length, ...cells.map((row) => row[i]!.length)));
  const line = (texts: readonly string[]) => {
    const padded = texts.map((text, i) => (columns[i]!.align ? text.padStart(widths[i]!) : text.padEnd(widths[i]!)));
    return `| ${padded.join(" | ")} |`;
  };
  const rule = widths.map((width, i) => (columns[i]!.align ? `${"-".repeat(width - 1)}:` : "-".repeat(width)));
  return `${[line(columns.map(({ title }) => title)), line(rule), ...cells.map(line)].join("\n")}\n`;
}

function csv(rows: readonly object[]): string {
  const flat = rows.map((row) => new Map(leaves(row)));
  const names = [...new Set(flat.flatMap((row) => [...row.keys()]))];
  const quoted = (text: string) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = flat.map((row) => names.map((name) => quoted(row.get(name) ?? "")).join(","));
  return `${[names.join(","), ...lines].join("\n")}\n`;
}

function leaves(value: object, prefix = ""): [string, string][] {
  return Object.entries(value).flatMap(([key, inner]): [string, string][] =>
    typeof inner === "object" && inner !== null
      ? leaves(inner, `${prefix}${key}.`)
      : [[prefix + key, inner === null || inner === undefined ? "" : String(inner)]],
  );
}
