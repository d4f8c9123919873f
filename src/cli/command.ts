// The shape of a command and how one is made from its spec. Does not know which commands exist.

import { type CommandSpec, type FlagSpecs, helpText, type ParsedArgs, parseCommand } from "./config.ts";

/** A command of the executable, as listed in commands.ts. */
export interface Command {
  readonly summary: string;
  readonly help: string;
  readonly spec: CommandSpec;
  /** Runs with the arguments after the command's name and answers the exit status (0 done, 1 failed, 2 misused). */
  run(args: readonly string[]): Promise<number>;
}

/**
 * Makes a command: `--help`/`-h` prints the help, anything else is parsed against the spec and handed to `handler`.
 * Errors thrown by the handler are printed by main as one line; a UsageError exits with status 2.
 *
 * ```ts
 * export const hello = defineCommand(
 *   { name: "hello", summary: "Greets", positionals: ["NAME"], flags: { loud: { type: "boolean", help: "shout" } },
 *     examples: ["graft hello world --loud"] },
 *   async ({ flags, positionals }) => { console.log(flags.loud, positionals[0]); return 0; });
 * ```
 */
export function defineCommand<const F extends FlagSpecs>(
  spec: CommandSpec<F>,
  handler: (parsed: ParsedArgs<F>) => Promise<number>,
): Command {
  const help = helpText(spec);
  return {
    summary: spec.summary,
    help,
    spec,
    async run(args) {
      const end = args.indexOf("--");
      const own = end < 0 ? args : args.slice(0, end);
      if (own.includes("--help") || own.includes("-h")) {
        process.stdout.write(help);
        return 0;
      }
      return handler(parseCommand(spec, args));
    },
  };
}
