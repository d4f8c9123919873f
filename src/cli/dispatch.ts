// From words to a command and from an error to one line and an exit status. Knows no command by name.

import type { Command } from "./command.ts";
import { UsageError } from "./config.ts";
import { suggestion } from "./suggest.ts";
import { painter } from "./terminal.ts";
import { VERSION } from "./version.ts";

/** Runs the command that `args` names; answers the exit status: 0 done, 1 failed, 2 misused. */
export async function runMain(table: Readonly<Record<string, Command>>, args: readonly string[]): Promise<number> {
  try {
    const [name, ...rest] = args;
    if (name === "--version" || name === "-V" || name === "version") {
      process.stdout.write(`graft ${VERSION}\n`);
      return 0;
    }
    if (name === "--help" || name === "-h" || name === "help") return help(table, rest[0]);
    if (name === undefined) {
      process.stderr.write(overview(table));
      return 2;
    }
    return await lookUp(table, name).run(rest);
  } catch (error) {
    process.stderr.write(`${painter(process.stderr)("red", "error:")} ${oneLine(error)}\n`);
    if ((process.env.GRAFT_DEBUG ?? "") !== "" && error instanceof Error) process.stderr.write(`${error.stack}\n`);
    return error instanceof UsageError ? 2 : 1;
  }
}

function lookUp(table: Readonly<Record<string, Command>>, name: string): Command {
  const command = Object.hasOwn(table, name) ? table[name] : undefined;
  if (command !== undefined) return command;
  throw new UsageError(`Unknown command "${name}"${suggestion(name, Object.keys(table))}; see graft --help`);
}

function help(table: Readonly<Record<string, Command>>, name: string | undefined): number {
  process.stdout.write(name === undefined ? overview(table) : lookUp(table, name).help);
  return 0;
}

function overview(table: Readonly<Record<string, Command>>): string {
  const names = Object.keys(table);
  const width = Math.max(0, ...names.map((name) => name.length));
  const rows = names.map((name) => `  ${name.padEnd(width)}  ${table[name]!.summary}`);
  return [
    `graft ${VERSION}: turns a pretrained language model into task-specific hybrids and serves them`,
    "",
    "usage: graft COMMAND [arguments]",
    "",
    "commands:",
    ...rows,
    "",
    "graft COMMAND --help says more about one.",
    "",
  ].join("\n");
}

/** An error as one line. */
export function oneLine(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return (error.message === "" ? error.name : error.message).replaceAll(/\s*\n\s*/g, " ");
}
