// Rows of measurements in their four formats.
import { expect, test } from "bun:test";
import { type BenchColumn, formatRows } from "../../src/cli/bench_table.ts";

interface Row {
  readonly name: string;
  readonly rate: { readonly mean: number; readonly best: number };
  readonly speedup: number | null;
}
const rows: Row[] = [
  { name: "a|b", rate: { mean: 1.5, best: 2 }, speedup: null },
  { name: 'x,"y"', rate: { mean: 10, best: 20 }, speedup: 3 },
];
const columns: BenchColumn<Row>[] = [
  { title: "name", cell: (row) => row.name },
  { title: "t/s", align: "right", cell: (row) => row.rate.mean.toFixed(1) },
];

test("Markdown lines up and escapes", () => {
  expect(formatRows(columns, rows, "md").split("\n")).toEqual([
    "| name  |  t/s |",
    "| ----- | ---: |",
    "| a\\|b  |  1.5 |",
    '| x,"y" | 10.0 |',
    "",
  ]);
});

test("CSV has every field and quotes", () => {
  expect(formatRows(columns, rows, "csv").split("\n")).toEqual([
    "name,rate.mean,rate.best,speedup",
    "a|b,1.5,2,",
    '"x,""y""",10,20,3',
    "",
  ]);
});

test("JSON and JSON lines hold the rows themselves", () => {
  expect(JSON.parse(formatRows(columns, rows, "json"))).toEqual(rows);
  const lines = formatRows(columns, rows, "jsonl").trimEnd().split("\n");
  expect(lines.map((line) => JSON.parse(line))).toEqual(rows);
  expect(formatRows(columns, [], "jsonl")).toBe("");
});
