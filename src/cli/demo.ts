// graft demo (npm start): the whole method on the bundled model, by the same commands a person would type: convert, search
// two tasks, serve both hybrids beside the base. Only the summary and the questions at the end are its own.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Ops } from "../ops/ops.ts";
import { writeText } from "../pretrain/model_files.ts";
import { NO_LIMITS } from "../server/access/key_file.ts";
import { createLog } from "../server/log.ts";
import { type RunningServer, startServer } from "../server/start.ts";
import { Store } from "../store/database.ts";
import type { HybridRecord } from "../store/hybrids.ts";
import { BUNDLED_NAME, bundledTasks, extractBundledModel } from "./bundled_model.ts";
import type { Command } from "./command.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, type Flags } from "./config.ts";
import { convertCommand } from "./convert.ts";
import { streamCompletion } from "./demo_client.ts";
import { KERNEL_FLAGS, type KernelUse, kernelOptions, kernelUse, kernelWords } from "./kernel_flags.ts";
import { searchCommand } from "./search.ts";
import { untilStopped } from "./serve.ts";
import { formatTable } from "./table.ts";
import { formatBytes, painter } from "./terminal.ts";
import { VERSION } from "./version.ts";

/** Documents of generated text for the conversion; another seed than the model's own training text. */
const CORPUS = { seed: 2, documents: 6000 } as const;

const flags = {
  once: { type: "boolean", help: "ask each hybrid for one streamed completion and exit" },
  fresh: { type: "boolean", help: "convert anew even if an earlier demo did" },
  variant: { type: "string", choices: ["gla", "gdn", "jet"], help: "kind of linear layer", default: "gdn" },
  tokens: { type: "string", value: "COUNT", help: "tokens to distil on", default: "600k" },
  port: { type: "integer", min: 0, max: 65535, help: "port, 0 for any free one", default: 0 },
  ...KERNEL_FLAGS,
  "data-dir": DATA_DIR_FLAG,
} as const;

type DemoFlags = Flags<typeof flags>;

export const demoCommand = defineCommand(
  {
    name: "demo",
    summary: "Converts the bundled model, searches hybrids for two tasks, and serves them",
    positionals: [],
    flags,
    details: `Runs the commands it prints, one after the other; each can be typed by hand. A conversion that an earlier demo
finished in the same data folder is not done again, unless --fresh.`,
    examples: ["graft demo", "graft demo --once --data-dir /tmp/graft"],
  },
  async ({ flags }) => {
    // Converting takes minutes: a device that is not there is told before.
    if (flags.device === "cuda") await Ops.load(kernelOptions(flags));
    const store = Store.open(flags["data-dir"]);
    try {
      const folder = extractBundledModel(store.dir.root);
      const model = register(store, folder);
      const corpus = join(store.dir.root, "models", `text-${CORPUS.seed}-${CORPUS.documents}.jsonl`);
      if (!existsSync(corpus)) writeText(corpus, CORPUS.seed, CORPUS.documents);
      const dir = ["--data-dir", store.dir.root];
      const given = flags.threads === undefined ? [] : ["--threads", String(flags.threads)];
      const kernels = (use: KernelUse) => [...given, ...kernelWords(flags, use)];
      const fresh = flags.fresh ? ["--restart"] : [];
      const convert = [model, "--variant", flags.variant, "--data", corpus, "--tokens", flags.tokens, ...fresh];
      await type("convert", convertCommand, [...convert, ...kernels("training"), ...dir]);
      for (const task of bundledTasks) {
        const part = (name: string) => join(folder, "tasks", task, `${name}.jsonl`);
        const search = [model, "--name", task, "--variant", flags.variant, "--task", part("search")];
        const rule = ["--report", part("report"), "--max-drop", "0.05"];
        await type("search", searchCommand, [...search, ...rule, ...kernels("scoring"), ...dir]);
      }
      return await serve(store, model, flags);
    } finally {
      store.close();
    }
  },
);

/** The bundled model under its own name, or the next free one where a person has registered another "tiny". */
function register(store: Store, path: string): string {
  const known = store.models.findByPath(path);
  if (known !== null) return known.name;
  const name = store.models.get(BUNDLED_NAME) === null ? BUNDLED_NAME : `${BUNDLED_NAME}-${path.slice(-8)}`;
  store.models.put({ name, path, architecture: null, numLayers: null, fingerprint: null });
  return name;
}

/** Shows a command as it would be typed and runs it. @throws Error when it fails without having said why */
async function type(name: string, command: Command, args: readonly string[]): Promise<void> {
  const shown = args.map((arg) => (/^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg}'`)).join(" ");
  process.stdout.write(`\n${painter(process.stdout)("bold", `$ graft ${name} ${shown}`)}\n`);
  const status = await command.run(args);
  if (status !== 0) throw new Error(`graft ${name} ended with status ${status}`);
}

async function serve(store: Store, model: string, given: DemoFlags): Promise<number> {
  const log = createLog("text", "warn", (line) => void process.stderr.write(line));
  const server = await startServer({
    store,
    backbone: model,
    engine: {
      modelDir: store.models.get(model)!.path,
      ...kernelOptions(given),
    },
    host: "127.0.0.1",
    port: given.port,
    keys: { keys: [], file: null, limits: NO_LIMITS },
    corsOrigins: [],
    trustedProxies: [],
    allowedHosts: [],
    requestTimeoutMs: null,
    maxBodyBytes: 64 * 2 ** 20,
    maxJobs: 16,
    jobFlags: (kind) => kernelWords(given, kernelUse(kind)),
    version: VERSION,
    log,
  });
  process.stdout.write(`\n${await summary(server, store, model)}`);
  const folder = store.models.get(model)!.path;
  if (given.once) {
    for (const task of bundledTasks) await ask(server, `${model}:${task}`, sample(folder, task));
    await server.stop(5000);
    return 0;
  }
  process.stdout.write(`\n${instructions(server.url, model, sample(folder, "recall").context)}`);
  await untilStopped(server, 5000, log);
  return 0;
}

/** Base and hybrids side by side: which layers are linear, accuracy on the report documents, memory. */
async function summary(server: RunningServer, store: Store, model: string): Promise<string> {
  const served = await server.context.engine.hybrids();
  const rows = store.hybrids.list(model).filter(({ name }) => served.some((hybrid) => hybrid.name === name));
  const memory = (name: string) => served.find((hybrid) => hybrid.name === name)!;
  return formatTable<HybridRecord>(
    [
      { title: "model", cell: (row) => `${model}:${row.name}` },
      { title: "layers", cell: (row) => row.layers.map((layer) => (layer === null ? "■" : "·")).join("") },
      { title: "task", cell: (row) => row.task },
      { title: "accuracy (report)", align: "right", cell: (row) => percent(row.metrics.report_score) },
      { title: "base", align: "right", cell: (row) => percent(row.metrics.report_base_score) },
      { title: "KV/token", align: "right", cell: (row) => formatBytes(memory(row.name).kvBytesPerToken) },
      { title: "state", align: "right", cell: (row) => formatBytes(memory(row.name).stateBytes) },
    ],
    rows,
    process.stdout,
  ).concat("■ full attention, · linear attention\n");
}

function percent(value: unknown): string | null {
  return typeof value === "number" ? `${(100 * value).toFixed(1)} %` : null;
}

/** The first document of a task's report file: what the demo asks. */
function sample(folder: string, task: string): { context: string; answer: string } {
  const line = readFileSync(join(folder, "tasks", task, "report.jsonl"), "utf8").split("\n", 1)[0]!;
  const { context, choices, gold } = JSON.parse(line) as { context: string; choices: string[]; gold: number };
  return { context, answer: choices[gold]! };
}

async function ask(server: RunningServer, name: string, question: { context: string; answer: string }): Promise<void> {
  process.stdout.write(`\n${painter(process.stdout)("bold", `${name} is asked`)} (right: ${question.answer})\n`);
  process.stdout.write(question.context);
  const write = (text: string) => process.stdout.write(text);
  const count = await streamCompletion(server.url, name, question.context, 8, write);
  process.stdout.write("\n");
  if (count === 0) throw new Error(`"${name}" answered nothing`);
}

function instructions(url: string, model: string, prompt: string): string {
  const body = JSON.stringify({ model: `${model}:recall`, prompt, max_tokens: 8, temperature: 0, stream: true });
  return [
    `Serving at ${url}; Ctrl-C ends it. Try:`,
    `  curl -N ${url}/v1/completions -H 'content-type: application/json' -d '${body.replaceAll("'", "\\u0027")}'`,
    `  curl ${url}/v1/hybrids`,
    "",
  ].join("\n");
}
