// Progress of long work on the terminal: a bar with rate and time left for a person, a plain line now and then for a
// log. Does not know what the work is; where it is also stored is reported.ts.

import type { JobReporter, ReportData } from "../jobs/reporter.ts";
import { formatCount, formatDuration, painter, type TerminalStream } from "./terminal.ts";

const BAR_INTERVAL_MS = 100;
const LINE_INTERVAL_MS = 10_000;
const BAR_CELLS = 24;

/** Draws on `stream` (standard error by default, so that results can be piped). */
export class TerminalReporter implements JobReporter {
  readonly #stream: TerminalStream;
  readonly #now: () => number;
  readonly #paint: ReturnType<typeof painter>;
  #unit = "";
  #startDone = 0;
  #startTime = 0;
  #lastDone = -1;
  #lastDraw = Number.NEGATIVE_INFINITY;
  #barShown = false;

  /** `now` is a monotonic clock in milliseconds. */
  constructor(stream: TerminalStream = process.stderr, now: () => number = () => performance.now()) {
    this.#stream = stream;
    this.#now = now;
    this.#paint = painter(stream);
  }

  progress(done: number, total: number, unit: string, data: ReportData = {}): void {
    const now = this.#now();
    // A new unit or a smaller count is a new stage with a rate of its own.
    if (unit !== this.#unit || done < this.#lastDone || this.#lastDone < 0) {
      this.#unit = unit;
      this.#startDone = done;
      this.#startTime = now;
      this.#lastDraw = Number.NEGATIVE_INFINITY;
    }
    this.#lastDone = done;
    const interval = this.#stream.isTTY === true ? BAR_INTERVAL_MS : LINE_INTERVAL_MS;
    if (done < total && now - this.#lastDraw < interval) return;
    this.#lastDraw = now;
    this.#draw(done, total, unit, data, (now - this.#startTime) / 1000);
  }

  event(kind: string, data: ReportData = {}): void {
    this.#clearBar();
    this.#stream.write(`${this.#paint("cyan", kind)}${dataText(data, "  ")}\n`);
  }

  /** Ctrl-C ends the program; what was saved is resumed by the next run. */
  cancelled(): boolean {
    return false;
  }

  /** Leaves the last bar standing and moves below it. */
  close(): void {
    if (this.#barShown) this.#stream.write("\n");
    this.#barShown = false;
  }

  #draw(done: number, total: number, unit: string, data: ReportData, seconds: number): void {
    const rate = seconds > 0 ? (done - this.#startDone) / seconds : 0;
    const share = total > 0 ? Math.min(1, done / total) : 0;
    const left = rate > 0 && done < total ? `, ${formatDuration((total - done) / rate)} left` : "";
    const speed = rate > 0 ? ` ${formatCount(rate)} ${unit}/s${left}` : "";
    const counts = `${formatCount(done)}/${formatCount(total)} ${unit}`;
    const percent = `${Math.floor(share * 100)}%`.padStart(4);
    if (this.#stream.isTTY !== true) {
      this.#stream.write(`${percent.trim()} ${counts}${speed}${dataText(data, "  ")}\n`);
      return;
    }
    const full = Math.round(share * BAR_CELLS);
    const bar = this.#paint("green", "█".repeat(full)) + this.#paint("dim", "░".repeat(BAR_CELLS - full));
    const room = Math.max(10, (this.#stream.columns ?? 80) - BAR_CELLS - 6);
    const tail = clip(` ${counts}${speed}${dataText(data, "  ")}`, room);
    this.#stream.write(`\r\x1b[2K${percent} ${bar}${tail}`);
    this.#barShown = true;
    if (done >= total) this.close();
  }

  #clearBar(): void {
    if (this.#barShown) this.#stream.write("\r\x1b[2K");
    this.#barShown = false;
  }
}

function clip(text: string, room: number): string {
  return text.length <= room ? text : `${text.slice(0, room - 1)}…`;
}

/** `  round 2  loss 0.0123`: flat values only, numbers short. */
function dataText(data: ReportData, separator: string): string {
  return Object.entries(data)
    .filter(([, value]) => ["string", "number", "boolean"].includes(typeof value))
    .map(([key, value]) => `${separator}${key} ${typeof value === "number" ? shortNumber(value) : value}`)
    .join("");
}

function shortNumber(value: number): string {
  return Number.isInteger(value) ? String(value) : Number(value.toPrecision(4)).toString();
}
