// Flags, environment twins, defaults and refusals of the command line; help, suggestions and completion.
import { expect, test } from "bun:test";
import { defineCommand } from "../../src/cli/command.ts";
import { completionScript } from "../../src/cli/completion.ts";
import { type CommandSpec, helpText, parseCommand, UsageError } from "../../src/cli/config.ts";
import { editDistance, nearest } from "../../src/cli/suggest.ts";

const spec = {
  name: "demo",
  summary: "Shows flags",
  positionals: ["MODEL", "[FILE]"],
  flags: {
    port: { type: "integer", min: 0, max: 65535, default: 8000, help: "port" },
    rate: { type: "number", min: 0, max: 1, help: "rate" },
    kind: { type: "string", choices: ["gla", "gdn"], help: "kind" },
    memory: { type: "bytes", min: 1, help: "memory" },
    file: { type: "string", multiple: true, short: "f", help: "files" },
    json: { type: "boolean", help: "as JSON" },
    home: { type: "string", env: "GRAFT_PLACE", help: "place" },
    job: { type: "string", env: false, hidden: true, help: "internal" },
  },
  examples: ["graft demo m"],
} as const satisfies CommandSpec;

const parse = (args: string[], environment: Record<string, string> = {}) => parseCommand(spec, args, environment);
const refusal = (args: string[], environment: Record<string, string> = {}): string => {
  try {
    parse(args, environment);
    return "taken";
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as Error).message;
  }
};

test("absent flags have their defaults", () => {
  const { flags, positionals } = parse(["m"]);
  expect(positionals).toEqual(["m"]);
  expect<object>(flags).toEqual({
    port: 8000,
    rate: undefined,
    kind: undefined,
    memory: undefined,
    file: [],
    json: false,
    home: undefined,
    job: undefined,
  });
  expect(Object.isFrozen(flags)).toBe(true);
});

test("flags are typed, in every spelling", () => {
  const { flags, positionals } = parse([
    "--port=1",
    "m",
    "--rate",
    ".5",
    "-f",
    "a",
    "--file=b",
    "x",
    "--json",
    "--kind",
    "gdn",
  ]);
  expect(flags).toMatchObject({ port: 1, rate: 0.5, kind: "gdn", file: ["a", "b"], json: true });
  expect(positionals).toEqual(["m", "x"]);
  expect(parse(["m", "--json", "--no-json"]).flags.json).toBe(false);
  expect(parse(["m", "--", "--port"]).positionals).toEqual(["m", "--port"]);
  const sizes = ["512", "1k", "2KB", "1.5MiB", "3g", "2TB"].map((text) => parse(["m", "--memory", text]).flags.memory);
  expect(sizes).toEqual([512, 1024, 2000, 1572864, 3 * 1024 ** 3, 2e12]);
});

test("a flag beats its environment twin, the twin beats the default", () => {
  expect(parse(["m"], { GRAFT_PORT: "9", GRAFT_JSON: "1", GRAFT_FILE: "a,b", GRAFT_PLACE: "/p" }).flags).toMatchObject({
    port: 9,
    json: true,
    file: ["a", "b"],
    home: "/p",
  });
  expect(parse(["m", "--port", "7", "--no-json"], { GRAFT_PORT: "9", GRAFT_JSON: "1" }).flags).toMatchObject({
    port: 7,
    json: false,
  });
  expect(parse(["m"], { GRAFT_PORT: "", GRAFT_JOB: "x", GRAFT_HOME: "/h" }).flags).toMatchObject({
    port: 8000,
    job: undefined,
    home: undefined,
  });
});

test("refusals name the flag or variable and the nearest known word", () => {
  expect(refusal(["m", "--prot", "1"])).toBe('Unknown flag "--prot" (did you mean "--port"?); see graft demo --help');
  expect(refusal(["m", "--xyzzy"])).toBe('Unknown flag "--xyzzy"; see graft demo --help');
  expect(refusal(["m", "--jbo", "1"])).not.toContain("--job");
  expect(refusal(["m", "--kind", "gal"])).toBe(
    'Invalid value for --kind: "gal" (did you mean "gla"?), expected gla | gdn',
  );
  expect(refusal(["m", "--port", "65536"])).toBe(
    'Invalid value for --port: "65536", expected a whole number in [0, 65535]',
  );
  expect(refusal(["m", "--port"])).toBe('Flag "--port" needs a value: write --port=VALUE');
  expect(refusal(["m", "--port", "1", "--port", "2"])).toBe('Flag "--port" is given more than once');
  expect(refusal(["m"], { GRAFT_RATE: "2" })).toBe('Invalid value for GRAFT_RATE: "2", expected a number in [0, 1]');
  expect(refusal(["m"], { GRAFT_JSON: "maybe" })).toContain("GRAFT_JSON");
  expect(refusal(["m", "--memory", "lots"])).toBe(
    'Invalid value for --memory: "lots", expected a size such as 512MiB of at least 1',
  );
  for (const value of ["1.5", "0x10", "1e3", "NaN", "", "-1"])
    expect(refusal(["m", `--port=${value}`])).toContain("--port");
  expect(refusal([])).toBe("MODEL is missing; usage: graft demo MODEL [FILE] [flags]");
  expect(refusal(["m", "f", "g"])).toBe('Unexpected argument "g"; usage: graft demo MODEL [FILE] [flags]');
});

test("help names every visible flag, its twin, its default and an example", () => {
  const help = helpText(spec);
  for (const text of [
    "--port INTEGER",
    "default 8000, GRAFT_PORT",
    "GRAFT_PLACE",
    "--kind gla|gdn",
    "-f, --file",
    "graft demo m",
  ]) {
    expect(help).toContain(text);
  }
  expect(help).not.toContain("--job");
});

test("nearest() finds slips and nothing far", () => {
  expect(nearest("serv", ["serve", "search"])).toBe("serve");
  expect(nearest("serach", ["serve", "search"])).toBe("search");
  expect(nearest("con", ["convert", "eval"])).toBe("convert");
  expect(nearest("zebra", ["serve", "search"])).toBeNull();
  expect([editDistance("ab", "ba"), editDistance("kitten", "sitting"), editDistance("", "abc")]).toEqual([1, 3, 3]);
});

test("completion knows commands, flags and choices, and is a valid script", () => {
  const table = { demo: defineCommand(spec, async () => 0) };
  const bash = completionScript("bash", table);
  const run = (words: string[], at: number) => {
    const line = `${bash}\nCOMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${at}; _graft; echo "\${COMPREPLY[*]}"`;
    const { stdout, stderr } = Bun.spawnSync(["bash", "-c", line]);
    return stdout.toString().trim() + stderr.toString();
  };
  expect(run(["graft", "de"], 1)).toBe("demo");
  expect(run(["graft", "demo", "--po"], 2)).toBe("--port");
  expect(run(["graft", "demo", "--kind", "g"], 3)).toBe("gla gdn");
  expect(run(["graft", "demo", "--jo"], 2)).toBe("");
  expect(completionScript("zsh", table)).toStartWith("#compdef graft\n");
  const fish = completionScript("fish", table);
  expect(fish).toContain("-f -a demo -d 'Shows flags'");
  expect(fish).toContain("-l kind -x -a 'gla gdn'");
  expect(() => completionScript("tcsh", table)).toThrow(UsageError);
});
