// What the terminal can show: colour, width, whether a person is watching. Holds no state of any command.

import type { Environment } from "./config.ts";

/** The part of a stream that matters here. */
export interface TerminalStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Colours are for people: off when piped, when NO_COLOR is set or the terminal is dumb. */
export function usesColor(stream: TerminalStream, environment: Environment = process.env): boolean {
  const refused = (environment.NO_COLOR ?? "") !== "" || environment.TERM === "dumb";
  return stream.isTTY === true && !refused;
}

const CODES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 } as const;

/** A function that colours text for `stream`, or leaves it alone. */
export function painter(stream: TerminalStream): (style: keyof typeof CODES, text: string) => string {
  const on = usesColor(stream);
  return (style, text) => (on ? `\x1b[${CODES[style]}m${text}\x1b[0m` : text);
}

/** "4.2 GiB"; binary units, three digits. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : Number(value.toPrecision(3))} ${units[unit]}`;
}

/** "12s", "3m 05s", "2h 10m". */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${String(whole % 60).padStart(2, "0")}s`;
  return `${Math.floor(whole / 3600)}h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")}m`;
}

/** "just now", "5m ago", "3d ago", from milliseconds. */
export function formatAge(milliseconds: number): string {
  const minutes = Math.floor(milliseconds / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes}m ago`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)}h ago`;
  return `${Math.floor(minutes / 1440)}d ago`;
}

/** 1234567 -> "1.23M". */
export function formatCount(value: number): string {
  if (Math.abs(value) < 10_000) return Number.isInteger(value) ? String(value) : value.toPrecision(3);
  const [scale, unit] = value >= 1e9 ? [1e9, "G"] : value >= 1e6 ? [1e6, "M"] : [1e3, "k"];
  return `${(value / scale).toPrecision(3)}${unit}`;
}
