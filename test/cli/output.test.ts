// What people see: progress bars and lines, tables, figures, colours, and lines that belong together in the chat.
import { expect, test } from "bun:test";
import { joinLines } from "../../src/cli/chat.ts";
import { TerminalReporter } from "../../src/cli/progress.ts";
import { formatTable } from "../../src/cli/table.ts";
import { formatAge, formatBytes, formatCount, formatDuration, usesColor } from "../../src/cli/terminal.ts";

class Screen {
  text = "";
  readonly isTTY: boolean;
  readonly columns = 100;
  constructor(isTTY: boolean) {
    this.isTTY = isTTY;
  }
  write(text: string): boolean {
    this.text += text;
    return true;
  }
}

test("without a terminal progress is plain lines, seldom, with rate and time left", () => {
  const screen = new Screen(false);
  let now = 0;
  const reporter = new TerminalReporter(screen, () => now);
  reporter.progress(0, 1000, "tokens");
  for (let i = 1; i <= 20; i++) {
    now = i * 1000;
    reporter.progress(i * 10, 1000, "tokens", { loss: 0.123456, round: 2 });
  }
  expect(screen.text).toBe(
    "0% 0/1000 tokens\n" +
      "10% 100/1000 tokens 10 tokens/s, 1m 30s left  loss 0.1235  round 2\n" +
      "20% 200/1000 tokens 10 tokens/s, 1m 20s left  loss 0.1235  round 2\n",
  );
  reporter.event("round", { layer: 3 });
  now = 21_000;
  reporter.progress(1000, 1000, "tokens");
  expect(screen.text).toEndWith("round  layer 3\n100% 1000/1000 tokens 47.6 tokens/s\n");
});

test("on a terminal it is one bar that fits the width and ends its line", () => {
  const screen = new Screen(true);
  let now = 0;
  const reporter = new TerminalReporter(screen, () => now);
  reporter.progress(0, 4, "documents");
  now = 50;
  reporter.progress(1, 4, "documents");
  expect(screen.text).not.toContain("1/4");
  now = 1000;
  reporter.progress(2, 4, "documents", { note: "x".repeat(200) });
  expect(screen.text).toContain("2/4 documents 2 documents/s, 1s left");
  const plain = (text: string) => Bun.stripANSI(text);
  for (const line of plain(screen.text).split("\r")) expect([...line].length).toBeLessThanOrEqual(100);
  expect(screen.text).not.toContain("\n");
  reporter.event("saved");
  reporter.progress(4, 4, "documents");
  expect(plain(screen.text)).toMatch(/saved\n\r100% █{24} 4\/4 documents.*\n$/);
  const before = screen.text;
  reporter.close();
  expect(screen.text).toBe(before);
});

test("a new stage has a rate of its own", () => {
  const screen = new Screen(false);
  let now = 0;
  const reporter = new TerminalReporter(screen, () => now);
  reporter.progress(100, 100, "tokens");
  now = 60_000;
  reporter.progress(0, 10, "documents");
  now = 71_000;
  reporter.progress(5, 10, "documents");
  expect(screen.text).toEndWith("0% 0/10 documents\n50% 5/10 documents 0.455 documents/s, 11s left\n");
});

test("tables align, count characters and show absent cells", () => {
  const columns = [
    { title: "NAME", cell: (row: { name: string; size: number | null }) => row.name },
    { title: "SIZE", align: "right" as const, cell: (row: { size: number | null }) => row.size },
  ];
  const rows = [
    { name: "é", size: 5 },
    { name: "longer", size: null },
  ];
  expect(formatTable(columns, rows)).toBe("NAME    SIZE\né          5\nlonger     -\n");
  expect(formatTable(columns, [])).toBe("NAME  SIZE\n");
});

test("figures are short", () => {
  expect([0, 1023, 1024, 1536, 5 * 2 ** 30].map(formatBytes)).toEqual(["0 B", "1023 B", "1 KiB", "1.5 KiB", "5 GiB"]);
  expect([0.4, 61, 3725, Number.POSITIVE_INFINITY].map(formatDuration)).toEqual(["0s", "1m 01s", "1h 02m", "?"]);
  expect([999, 12_345, 2_500_000, 0.1234].map(formatCount)).toEqual(["999", "12.3k", "2.50M", "0.123"]);
  expect([0, 5 * 60_000, 3 * 3_600_000, 3 * 86_400_000].map(formatAge)).toEqual([
    "just now",
    "5m ago",
    "3h ago",
    "3d ago",
  ]);
});

test("colours are off when piped, with NO_COLOR, and on a dumb terminal", () => {
  const tty = { isTTY: true, write: () => true };
  expect(usesColor(tty, {})).toBe(true);
  expect(usesColor({ write: () => true }, {})).toBe(false);
  expect(usesColor(tty, { NO_COLOR: "1" })).toBe(false);
  expect(usesColor(tty, { NO_COLOR: "" })).toBe(true);
  expect(usesColor(tty, { TERM: "dumb" })).toBe(false);
});

test('lines between """ belong together', () => {
  expect(joinLines("hello", null)).toEqual({ text: "hello", open: null });
  expect(joinLines('"""one"""', null)).toEqual({ text: "one", open: null });
  const first = joinLines('"""a', null);
  const second = joinLines("b", first.open);
  expect([first.text, second]).toEqual([null, { text: null, open: ["a", "b"] }]);
  expect(joinLines('c"""', second.open)).toEqual({ text: "a\nb\nc", open: null });
  expect(joinLines('"""', joinLines('"""', null).open)).toEqual({ text: "", open: null });
});
