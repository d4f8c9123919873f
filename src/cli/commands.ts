// The table of commands: one static import each, so that a bundled executable holds them all.
// Knows names only; what a command does is in its own file.

import { benchCommand } from "./bench.ts";
import type { Command } from "./command.ts";
import { completionCommand } from "./completion.ts";
import { convertCommand } from "./convert.ts";
import { demoCommand } from "./demo.ts";
import { doctorCommand } from "./doctor.ts";
import { evalCommand } from "./eval.ts";
import { exportCommand } from "./export.ts";
import { hybridsCommand } from "./hybrids.ts";
import { jobsCommand } from "./jobs.ts";
import { modelsCommand } from "./models.ts";
import { pretrainCommand } from "./pretrain.ts";
import { psCommand } from "./ps.ts";
import { runCommand } from "./run.ts";
import { searchCommand } from "./search.ts";
import { selftestCommand } from "./selftest.ts";
import { serveCommand } from "./serve.ts";
import { tasksCommand } from "./tasks.ts";

export type { Command } from "./command.ts";
export { defineCommand } from "./command.ts";

/** Every command by name, in the order of the help. */
export const commands: Readonly<Record<string, Command>> = {
  demo: demoCommand,
  serve: serveCommand,
  run: runCommand,
  convert: convertCommand,
  search: searchCommand,
  eval: evalCommand,
  export: exportCommand,
  pretrain: pretrainCommand,
  ps: psCommand,
  models: modelsCommand,
  hybrids: hybridsCommand,
  tasks: tasksCommand,
  jobs: jobsCommand,
  bench: benchCommand,
  selftest: selftestCommand,
  doctor: doctorCommand,
  completion: completionCommand(() => commands),
};
