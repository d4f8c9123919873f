// Turns flags and their GRAFT_* environment twins into one frozen, checked object, and writes a command's help.
// It alone reads process.env for settings, and does not know what any flag means to its command.

import { parseArgs } from "node:util";
import { suggestion } from "./suggest.ts";

/** A mistake on the command line itself: exit status 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** One flag of a command, as a literal in the command's spec. */
export interface FlagSpec {
  /** "bytes" reads 512MiB, 2GB, 1g or a plain number of bytes. */
  readonly type: "string" | "boolean" | "integer" | "number" | "bytes";
  readonly help: string;
  readonly short?: string;
  /** May be given more than once; the value is an array, a comma in the environment twin separates. */
  readonly multiple?: boolean;
  readonly default?: string | number | boolean;
  readonly choices?: readonly string[];
  readonly min?: number;
  readonly max?: number;
  /** Placeholder in the help, e.g. "FILE". */
  readonly value?: string;
  /** Name of the environment twin when it is not GRAFT_<FLAG>; false for none. */
  readonly env?: string | false;
  /** Left out of help and completion (internal flags). */
  readonly hidden?: boolean;
}

export type FlagSpecs = Readonly<Record<string, FlagSpec>>;

type Scalar<F extends FlagSpec> = F["type"] extends "boolean"
  ? boolean
  : F["type"] extends "string"
    ? F extends { choices: readonly (infer C)[] }
      ? C
      : string
    : number;
type Value<F extends FlagSpec> = F extends { multiple: true }
  ? readonly Scalar<F>[]
  : F["type"] extends "boolean"
    ? boolean
    : F extends { default: string | number | boolean }
      ? Scalar<F>
      : Scalar<F> | undefined;

/** The checked values of a command's flags; booleans are false and lists empty when not given. */
export type Flags<F extends FlagSpecs> = { readonly [K in keyof F]: Value<F[K]> };

/** What a command takes, from which parsing, help and shell completion all follow. */
export interface CommandSpec<F extends FlagSpecs = FlagSpecs> {
  readonly name: string;
  readonly summary: string;
  /** Positionals in order, e.g. ["MODEL", "[PROMPT...]"]: [] optional, ... any number. */
  readonly positionals: readonly string[];
  readonly flags: F;
  /** At least one complete example that can be pasted. */
  readonly examples: readonly string[];
  /** Further paragraphs of the help. */
  readonly details?: string;
}

/** The outcome of parsing: the frozen flags and the positionals. */
export interface ParsedArgs<F extends FlagSpecs> {
  readonly flags: Flags<F>;
  readonly positionals: readonly string[];
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** Flags that every command which touches the store shares. */
export const DATA_DIR_FLAG = {
  type: "string",
  value: "DIR",
  help: "where models, hybrids and jobs are recorded (default ~/.graft)",
  env: "GRAFT_HOME",
} as const;
/** For commands that a script would read. */
export const JSON_FLAG = { type: "boolean", help: "print JSON instead of text", env: "GRAFT_JSON" } as const;
/** For commands that run kernels. */
export const THREADS_FLAG = {
  type: "integer",
  min: 1,
  max: 1024,
  value: "N",
  help: "compute threads (default: one per core)",
} as const;
/** Names the job whose row a child process reports to; given by the server, never by a person. */
export const JOB_FLAG = { type: "string", value: "ID", help: "report to this job", env: false, hidden: true } as const;

/** The environment twin of a flag, or null when it has none. */
export function environmentName(flag: string, spec: FlagSpec): string | null {
  if (spec.env === false) return null;
  return spec.env ?? `GRAFT_${flag.toUpperCase().replaceAll("-", "_")}`;
}

/**
 * Parses `args` against `spec`: flags first, then environment twins, then defaults.
 * @throws UsageError naming the flag or variable at fault, with the nearest known word
 */
export function parseCommand<const F extends FlagSpecs>(
  spec: CommandSpec<F>,
  args: readonly string[],
  environment: Environment = process.env,
): ParsedArgs<F> {
  const { given, positionals } = readTokens(spec, args);
  checkPositionals(spec, positionals);
  const flags: Record<string, unknown> = {};
  for (const [name, flag] of Object.entries(spec.flags)) {
    flags[name] = flagValue(name, flag, given.get(name), environment);
  }
  return { flags: Object.freeze(flags) as Flags<F>, positionals: Object.freeze(positionals) };
}

function readTokens(spec: CommandSpec, args: readonly string[]) {
  const options: Record<string, { type: "string" | "boolean"; short?: string; multiple: boolean }> = {};
  for (const [name, flag] of Object.entries(spec.flags)) {
    const type = flag.type === "boolean" ? "boolean" : "string";
    options[name] = { type, multiple: true, ...(flag.short === undefined ? {} : { short: flag.short }) };
  }
  const { tokens } = parseArgs({ args: [...args], options, strict: false, allowPositionals: true, tokens: true });
  const given = new Map<string, string[]>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const negated = token.name.startsWith("no-") && spec.flags[token.name.slice(3)]?.type === "boolean";
    const name = negated ? token.name.slice(3) : token.name;
    const flag = spec.flags[name];
    if (flag === undefined) {
      const known = Object.keys(spec.flags).filter((key) => spec.flags[key]?.hidden !== true);
      const hint = suggestion(
        token.rawName,
        [...known, "help"].map((key) => `--${key}`),
      );
      throw new UsageError(`Unknown flag "${token.rawName}"${hint}; see graft ${spec.name} --help`);
    }
    const values = given.get(name) ?? [];
    values.push(optionText(token.rawName, flag, negated, token.value));
    given.set(name, values);
  }
  return { given, positionals };
}

function optionText(rawName: string, flag: FlagSpec, negated: boolean, value: string | undefined): string {
  if (flag.type !== "boolean") {
    if (value === undefined) {
      throw new UsageError(`Flag "${rawName}" needs a value: write ${rawName}=${flag.value ?? "VALUE"}`);
    }
    return value;
  }
  if (value !== undefined && negated) throw new UsageError(`Flag "${rawName}" takes no value`);
  return negated ? "false" : (value ?? "true");
}

function checkPositionals(spec: CommandSpec, positionals: readonly string[]): void {
  const required = spec.positionals.filter((name) => !name.startsWith("["));
  const missing = required[positionals.length];
  if (missing !== undefined) throw new UsageError(`${missing} is missing; ${usageLine(spec)}`);
  const unbounded = spec.positionals.some((name) => name.includes("..."));
  const extra = positionals[spec.positionals.length];
  if (!unbounded && extra !== undefined) throw new UsageError(`Unexpected argument "${extra}"; ${usageLine(spec)}`);
}

function flagValue(name: string, flag: FlagSpec, given: string[] | undefined, environment: Environment): unknown {
  const variable = environmentName(name, flag);
  const fromEnvironment = variable === null ? undefined : environment[variable];
  let texts = given;
  let source = `--${name}`;
  if (texts === undefined && fromEnvironment !== undefined && fromEnvironment !== "") {
    texts = flag.multiple === true ? fromEnvironment.split(",") : [fromEnvironment];
    source = variable ?? source;
  }
  if (flag.multiple === true) return Object.freeze((texts ?? []).map((text) => scalar(source, flag, text)));
  if (texts === undefined) return flag.type === "boolean" ? (flag.default ?? false) : flag.default;
  if (texts.length > 1 && flag.type !== "boolean") throw new UsageError(`Flag "${source}" is given more than once`);
  return scalar(source, flag, texts[texts.length - 1]!);
}

function scalar(source: string, flag: FlagSpec, text: string): string | number | boolean {
  switch (flag.type) {
    case "string":
      return checkedChoice(source, flag, text);
    case "boolean":
      if (["true", "1", "yes", "on"].includes(text)) return true;
      if (["false", "0", "no", "off"].includes(text)) return false;
      throw new UsageError(`Invalid value for ${source}: "${text}" is neither true nor false`);
    case "bytes":
      return checkedRange(source, flag, text, parseBytes(text));
    default: {
      const pattern = flag.type === "integer" ? /^[+-]?\d+$/ : /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
      return checkedRange(source, flag, text, pattern.test(text) ? Number(text) : Number.NaN);
    }
  }
}

function checkedChoice(source: string, flag: FlagSpec, text: string): string {
  if (flag.choices === undefined || flag.choices.includes(text)) return text;
  const hint = suggestion(text, flag.choices);
  throw new UsageError(`Invalid value for ${source}: "${text}"${hint}, expected ${flag.choices.join(" | ")}`);
}

function checkedRange(source: string, flag: FlagSpec, text: string, value: number): number {
  const min = flag.min ?? Number.NEGATIVE_INFINITY;
  const max = flag.max ?? (flag.type === "number" ? Number.POSITIVE_INFINITY : Number.MAX_SAFE_INTEGER);
  if (Number.isFinite(value) && value >= min && value <= max) return value;
  const noun =
    flag.type === "integer" ? "a whole number" : flag.type === "bytes" ? "a size such as 512MiB" : "a number";
  const range = Number.isFinite(min) || Number.isFinite(max) ? ` in [${min}, ${max}]` : "";
  const shown = flag.max === undefined && Number.isFinite(min) ? ` of at least ${min}` : range;
  throw new UsageError(`Invalid value for ${source}: "${text}", expected ${noun}${shown}`);
}

const BYTE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 1024,
  kb: 1000,
  kib: 1024,
  m: 1024 ** 2,
  mb: 1e6,
  mib: 1024 ** 2,
  g: 1024 ** 3,
  gb: 1e9,
  gib: 1024 ** 3,
  t: 1024 ** 4,
  tb: 1e12,
  tib: 1024 ** 4,
};

function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text);
  const unit = match === null ? undefined : BYTE_UNITS[match[2]!.toLowerCase()];
  return match === null || unit === undefined ? Number.NaN : Math.floor(Number(match[1]) * unit);
}

/** `usage: graft serve MODEL [flags]`. */
export function usageLine(spec: CommandSpec): string {
  const flags = Object.keys(spec.flags).length > 0 ? " [flags]" : "";
  return `usage: graft ${[spec.name, ...spec.positionals].join(" ")}${flags}`;
}

/** The whole help text of a command, ending in a newline. */
export function helpText(spec: CommandSpec): string {
  const rows = Object.entries(spec.flags)
    .filter(([, flag]) => flag.hidden !== true)
    .map(([name, flag]) => [flagLabel(name, flag), flagHelp(name, flag)] as const);
  rows.push(["-h, --help", "show this help"]);
  const width = Math.max(...rows.map(([label]) => label.length));
  const lines = [spec.summary, "", usageLine(spec)];
  if (spec.details !== undefined) lines.push("", spec.details.trim());
  lines.push("", "flags:", ...rows.map(([label, help]) => `  ${label.padEnd(width)}  ${help}`));
  lines.push("", spec.examples.length > 1 ? "examples:" : "example:", ...spec.examples.map((text) => `  ${text}`));
  return `${lines.join("\n")}\n`;
}

function flagLabel(name: string, flag: FlagSpec): string {
  const short = flag.short === undefined ? "    " : `-${flag.short}, `;
  const value = flag.type === "boolean" ? "" : ` ${flag.value ?? (flag.choices?.join("|") || flag.type.toUpperCase())}`;
  return `${short}--${name}${value}`;
}

function flagHelp(name: string, flag: FlagSpec): string {
  const notes: string[] = [];
  if (flag.default !== undefined && flag.default !== false) notes.push(`default ${flag.default}`);
  const variable = environmentName(name, flag);
  if (variable !== null) notes.push(variable);
  return notes.length === 0 ? flag.help : `${flag.help} [${notes.join(", ")}]`;
}
