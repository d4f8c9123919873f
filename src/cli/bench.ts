// graft bench: measurements of this machine. Each has its own file and flags; this one finds it by name.

import { benchDecodeCommand } from "./bench_decode.ts";
import { benchKernelsCommand } from "./bench_kernels.ts";
import { benchPrefillCommand } from "./bench_prefill.ts";
import { benchRandomCommand } from "./bench_random.ts";
import { benchServeCommand } from "./bench_serve.ts";
import type { Command } from "./command.ts";
import { type CommandSpec, helpText, UsageError } from "./config.ts";
import { suggestion } from "./suggest.ts";

/** Measurement by name. */
const benches: Readonly<Record<string, Command>> = {
  kernels: benchKernelsCommand,
  decode: benchDecodeCommand,
  prefill: benchPrefillCommand,
  serve: benchServeCommand,
  random: benchRandomCommand,
};

const spec: CommandSpec = {
  name: "bench",
  summary: "Measures speeds as shares of what this machine can do",
  positionals: ["WHAT"],
  flags: {},
  details: `WHAT is one of:\n${Object.entries(benches)
    .map(([name, bench]) => `  ${name.padEnd(10)}  ${bench.summary}`)
    .join("\n")}\ngraft bench WHAT --help says more.`,
  examples: ["graft bench kernels"],
};

export const benchCommand: Command = {
  summary: spec.summary,
  help: helpText(spec),
  spec,
  async run(args) {
    const [name, ...rest] = args;
    if (name === "--help" || name === "-h") {
      process.stdout.write(this.help);
      return 0;
    }
    const known = Object.keys(benches);
    if (name === undefined) throw new UsageError(`WHAT is missing: graft bench ${known.join(" | ")}`);
    const bench = Object.hasOwn(benches, name) ? benches[name] : undefined;
    if (bench === undefined) {
      throw new UsageError(`Unknown measurement "${name}"${suggestion(name, known)}, expected ${known.join(" | ")}`);
    }
    return bench.run(rest);
  },
};
