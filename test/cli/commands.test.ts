// The command table: every command has help with a real example, twins and no clash; and the program as a process.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { commands } from "../../src/cli/commands.ts";
import { environmentName, parseCommand } from "../../src/cli/config.ts";
import { runMain } from "../../src/cli/dispatch.ts";
import { Store } from "../../src/store/database.ts";
import { dataDir, skipReason } from "../text/support.ts";

const main = join(import.meta.dir, "..", "..", "src", "main.ts");
const root = mkdtempSync(join(tmpdir(), "graft-cli-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Runs the program; `input` goes to its standard input. */
function graft(args: string[], options: { input?: string; environment?: Record<string, string> } = {}) {
  const kept = Object.entries(process.env).filter(
    ([name]) => !name.startsWith("GRAFT_") || ["GRAFT_ISA", "GRAFT_DEVICE"].includes(name),
  );
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, main, ...args], {
    env: { ...Object.fromEntries(kept), GRAFT_HOME: root, ...options.environment },
    stdin: Buffer.from(options.input ?? ""),
  });
  return { status: exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
}

describe("every command", () => {
  for (const [name, command] of Object.entries(commands)) {
    test(`${name} has a name, a summary and an example that parses`, () => {
      expect(command.spec.name).toBe(name);
      expect(command.summary).toMatch(/^[A-Z].*[^.]$/);
      expect(command.spec.examples.length).toBeGreaterThan(0);
      const examples = command.spec.examples.filter((example) => example.includes(`graft ${name}`));
      expect(examples.length).toBeGreaterThan(0);
      for (const example of examples) {
        const words = shellWords(example.slice(example.indexOf(`graft ${name}`)));
        parseCommand(command.spec, words.slice(2), {});
      }
    });

    test(`${name} has a twin for each flag, and none for two`, () => {
      const flags = Object.entries(command.spec.flags).filter(([, flag]) => flag.hidden !== true);
      const twins = flags.map(([flag, spec]) => environmentName(flag, spec));
      expect(twins.filter((twin) => twin === null)).toEqual([]);
      expect(new Set(twins).size).toBe(twins.length);
      for (const [, flag] of flags) expect(flag.help.length).toBeGreaterThan(3);
    });
  }
});

/** Words of an example up to a pipe or redirection. */
function shellWords(line: string): string[] {
  const words = [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2] ?? match[3]!);
  const end = words.findIndex((word) => ["|", ">", "&&", "&"].includes(word) || word.endsWith(")"));
  return end < 0 ? words : [...words.slice(0, end), ...(words[end]!.endsWith(")") ? [words[end]!.slice(0, -1)] : [])];
}

describe("the program", () => {
  test("prints help and version, and refuses unknown commands with the nearest", () => {
    expect(graft(["--version"])).toMatchObject({ status: 0, stdout: expect.stringMatching(/^graft \d+\.\d+\.\d+\n$/) });
    const help = graft(["--help"]);
    expect(help.status).toBe(0);
    for (const name of Object.keys(commands)) expect(help.stdout).toContain(`  ${name} `);
    expect(graft(["serve", "--help"])).toMatchObject({ status: 0, stdout: commands.serve!.help });
    expect(graft(["help", "serve"]).stdout).toBe(commands.serve!.help);
    expect(graft([])).toMatchObject({ status: 2, stdout: "" });
    expect(graft(["serv"])).toMatchObject({
      status: 2,
      stderr: 'error: Unknown command "serv" (did you mean "serve"?); see graft --help\n',
    });
    expect(graft(["constructor"]).status).toBe(2);
  });

  test("errors are one line with their status, without colour when piped", () => {
    const missing = graft(["serve", "/no/such/model"]);
    expect(missing).toMatchObject({ status: 1, stdout: "" });
    expect(missing.stderr).toMatch(/^error: Cannot find model "\/no\/such\/model".*\n$/);
    expect(graft(["serve"])).toMatchObject({ status: 2 });
    expect(graft(["models"], { environment: { GRAFT_HOME: main } }).stderr).toMatch(
      /^error: Cannot use ".*main\.ts": .*\n$/,
    );
  });

  test("an unexpected error shows its place only when asked to", async () => {
    const broken = { ...commands.models!, run: () => Promise.reject(new Error("two\nlines")) };
    const written: string[] = [];
    const { write } = process.stderr;
    process.stderr.write = (text: string | Uint8Array) => written.push(String(text)) > 0;
    try {
      expect(await runMain({ broken }, ["broken"])).toBe(1);
    } finally {
      process.stderr.write = write;
    }
    expect(written.join("")).toBe("error: two lines\n");
  });
});

describe("lists", () => {
  test("models, hybrids, tasks and jobs are aligned tables or JSON", () => {
    const store = Store.open(root);
    store.models.put({ name: "m", path: root, architecture: "LlamaForCausalLM", numLayers: 4, fingerprint: null });
    store.pools.put({ backbone: "m", variant: "gla", path: root, recipe: {} });
    const metrics = { score: 0.7, base_score: 0.75 };
    store.hybrids.put({ backbone: "m", name: "recall", layers: [null, "gla", "gdn", "jet"], task: "recall", metrics });
    store.jobs.add({ id: "search-1", kind: "search", origin: "server", args: [], subject: { task: "recall" } });
    store.close();
    const models = graft(["models"]).stdout.split("\n");
    expect(models[0]).toMatch(/^NAME +ARCHITECTURE +LAYERS +POOLS +HYBRIDS +ADDED +PATH$/);
    expect(models[1]).toMatch(/^m +LlamaForCausalLM +4 +gla +1 +just now +\//);
    expect(graft(["hybrids"]).stdout).toMatch(/\nm:recall +Fadj +3\/4 +recall +0\.7000 +0\.7500 +- +- +just now\n$/);
    expect(graft(["jobs"]).stdout).toMatch(/\nsearch-1 +queued +- +recall +0 +just now +-\n$/);
    expect(JSON.parse(graft(["jobs", "--json"]).stdout)).toMatchObject([{ id: "search-1", state: "queued" }]);
    expect(graft(["tasks"]).stdout).toMatch(/^NAME +KIND +DOCUMENTS +SHA256 +ADDED\n$/);
    expect(JSON.parse(graft(["ps", "--json"]).stdout)).toEqual({ server: null, jobs: [] });
  });

  test("hybrids: the default is chosen and marked, rm forgets", () => {
    expect(graft(["hybrids", "default", "m:recall"]).status).toBe(0);
    expect(graft(["hybrids"]).stdout).toContain("m:recall *");
    expect(graft(["hybrids", "rm", "m:recal"]).stderr).toContain('(did you mean "m:recall"?)');
    expect(graft(["hybrids", "default", "m:base"]).status).toBe(0);
    expect(graft(["hybrids", "rm", "m:recall"]).status).toBe(0);
    expect(JSON.parse(graft(["hybrids", "--json"]).stdout)).toEqual([]);
    expect(graft(["hybrids", "rm"]).status).toBe(2);
  });

  test("tasks: a file is added by its name, a broken one names its line", () => {
    const good = join(root, "good.jsonl");
    writeFileSync(good, '{"context":"a","completion":"b"}\n');
    expect(graft(["tasks", "add", good])).toMatchObject({ status: 0, stdout: "good\n" });
    const bad = join(root, "bad.jsonl");
    writeFileSync(bad, '{"context":"a","completion":"b"}\n{"context":\n');
    expect(graft(["tasks", "add", bad])).toMatchObject({ status: 1 });
    expect(graft(["tasks", "add", bad]).stderr).toMatch(/^error: .*line 2.*\n$/);
    expect(graft(["tasks", "rm", "good"]).status).toBe(0);
    expect(graft(["tasks", "rm", "good"]).status).toBe(1);
    expect(graft(["tasks", "add", join(root, "none.jsonl")])).toMatchObject({ status: 1 });
  });

  test("jobs: a running row without a process shows as interrupted and can be cancelled", () => {
    const store = Store.open(root);
    store.jobs.add({ id: "convert-9", kind: "convert", origin: "terminal", args: [], subject: {} });
    store.jobs.markRunning("convert-9");
    store.close();
    expect(graft(["jobs"]).stdout).toMatch(/\nconvert-9 +interrupted /);
    expect(JSON.parse(graft(["ps", "--json"]).stdout)).toEqual({ server: null, jobs: [] });
    expect(graft(["jobs", "cancel", "convert-9"]).status).toBe(0);
    expect(graft(["jobs"]).stdout).toMatch(/\nconvert-9 +cancelled /);
    expect(graft(["jobs", "rm", "convert-9"]).status).toBe(0);
  });

  test("jobs: cancel, resume and rm follow the state", () => {
    expect(graft(["jobs", "cancel", "search-1"]).status).toBe(0);
    expect(graft(["jobs", "cancel", "search-1"]).stderr).toContain("it is cancelled");
    expect(graft(["jobs", "resume", "search-1"]).status).toBe(0);
    expect(JSON.parse(graft(["jobs", "--json"]).stdout)).toMatchObject([{ state: "queued" }]);
    expect(graft(["jobs", "log", "search-1"]).status).toBe(1);
    expect(graft(["jobs", "rm", "search-2"]).stderr).toContain('(did you mean "search-1"?)');
    expect(graft(["jobs", "rm", "search-1"]).status).toBe(0);
    expect(graft(["jobs", "explode", "search-1"]).status).toBe(2);
  });
});

const model = resolve(dataDir, "tiny1m");
describe.skipIf(skipReason(model))("graft run", () => {
  const beginning = ", there was a little girl named Lily.";

  test("answers a prompt from the words or from a pipe", () => {
    const flags = ["--temperature", "0", "--max-tokens", "20", "--threads", "1"];
    const words = graft(["run", model, "Once", "upon", "a", "time", ...flags]);
    expect(words.stderr).toBe("");
    expect(words.status).toBe(0);
    expect(words.stdout).toContain(beginning);
    const piped = graft(["run", model, ...flags, "--json"], { input: "Once upon a time\n" });
    const answer = JSON.parse(piped.stdout) as {
      text: string;
      finishReason: string;
      usage: { completionTokens: number };
    };
    expect(answer).toMatchObject({ finishReason: "length", usage: { completionTokens: 20 } });
    expect(`${answer.text}\n`).toBe(words.stdout);
    const stopped = graft(["run", model, "Once upon a time", ...flags, "--stop", " little"]);
    expect(stopped.stdout).toBe(", there was a\n");
  });

  test("a text that does not fit, and an unknown hybrid, are one line", () => {
    const long = graft(["run", model, "word ".repeat(400), "--threads", "1"]);
    expect(long.status).toBe(1);
    expect(long.stderr).toMatch(/^error: The conversation has \d+ tokens, the context holds 256\n$/);
    const hybrid = graft(["run", `${model}:nope`, "x", "--threads", "1"]);
    expect(hybrid.stderr).toMatch(/^error: The model "tiny1m:nope" is not served here.*\n$/);
  });
});
