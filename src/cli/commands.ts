// The table of commands: one static import each, so that a bundled executable holds them all.
// Knows names only; what a command does is in its own file.

import type { Command } from "./command.ts";
import { convertCommand } from "./convert.ts";
import { evalCommand } from "./eval.ts";
import { exportCommand } from "./export.ts";
import { searchCommand } from "./search.ts";

export type { Command } from "./command.ts";
export { defineCommand } from "./command.ts";

/** Every command by name, in the order of the help. */
export const commands: Readonly<Record<string, Command>> = {
  convert: convertCommand,
  search: searchCommand,
  eval: evalCommand,
  export: exportCommand,
};
