// Shell completion scripts from the command table: commands, flags, and the choices of a flag.
// Knows the specs, not what the commands do.

import { type Command, defineCommand } from "./command.ts";
import { type FlagSpec, UsageError } from "./config.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;

/** `graft completion`; takes the table as an argument because the table lists this command too. */
export function completionCommand(table: () => Readonly<Record<string, Command>>): Command {
  return defineCommand(
    {
      name: "completion",
      summary: "Prints a shell completion script",
      positionals: ["SHELL"],
      flags: {},
      examples: ["source <(graft completion bash)", "graft completion fish > ~/.config/fish/completions/graft.fish"],
      details: `SHELL is ${SHELLS.join(", ")}.`,
    },
    async ({ positionals }) => {
      process.stdout.write(completionScript(positionals[0]!, table()));
      return 0;
    },
  );
}

/**
 * The script for one shell.
 * @throws UsageError for a shell without one
 */
export function completionScript(shell: string, table: Readonly<Record<string, Command>>): string {
  if (shell === "bash") return bash(table);
  if (shell === "zsh") return `#compdef graft\nautoload -U +X bashcompinit && bashcompinit\n${bash(table)}`;
  if (shell === "fish") return fish(table);
  throw new UsageError(`Unknown shell "${shell}", expected ${SHELLS.join(" | ")}`);
}

function visibleFlags(command: Command): [string, FlagSpec][] {
  return Object.entries(command.spec.flags).filter(([, flag]) => flag.hidden !== true);
}

function bash(table: Readonly<Record<string, Command>>): string {
  const cases: string[] = [];
  const values: string[] = [];
  for (const [name, command] of Object.entries(table)) {
    const flags = visibleFlags(command);
    cases.push(`    ${name}) words="${[...flags.map(([flag]) => `--${flag}`), "--help"].join(" ")}" ;;`);
    for (const [flag, spec] of flags) {
      if (spec.choices === undefined) continue;
      values.push(
        `    "${name} --${flag}") COMPREPLY=($(compgen -W "${spec.choices.join(" ")}" -- "$cur")); return ;;`,
      );
    }
  }
  return `_graft() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}" command="\${COMP_WORDS[1]}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${[...Object.keys(table), "--help", "--version"].join(" ")}" -- "$cur"))
    return
  fi
  case "$command $prev" in
${values.join("\n") || "    '') ;;"}
  esac
  case "$command" in
${cases.join("\n") || "    '') ;;"}
  esac
  case "$cur" in
    -*) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
    *) COMPREPLY=($(compgen -f -- "$cur")) ;;
  esac
}
complete -o filenames -F _graft graft
`;
}

function fish(table: Readonly<Record<string, Command>>): string {
  const quote = (text: string) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const lines: string[] = [];
  for (const [name, command] of Object.entries(table)) {
    lines.push(`complete -c graft -n __fish_use_subcommand -f -a ${name} -d ${quote(command.summary)}`);
    for (const [flag, spec] of visibleFlags(command)) {
      const value = spec.type === "boolean" ? "" : spec.choices ? ` -x -a ${quote(spec.choices.join(" "))}` : " -r";
      lines.push(
        `complete -c graft -n ${quote(`__fish_seen_subcommand_from ${name}`)} -l ${flag}${value} -d ${quote(spec.help)}`,
      );
    }
  }
  return `${lines.join("\n")}\n`;
}
