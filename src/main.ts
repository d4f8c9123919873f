// Picks a command and sets the exit status; nothing else.

import { commands } from "./cli/commands.ts";
import { runMain } from "./cli/dispatch.ts";

process.exitCode = await runMain(commands, process.argv.slice(2));
