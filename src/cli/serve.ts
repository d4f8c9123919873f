// graft serve: flags in, a running server and its start line out, signals until the end. The server is src/server.

import { cpus } from "node:os";
import type { DeviceMemoryInfo, EngineWorkerOptions } from "../engine/types.ts";
import { driverObstacle } from "../ops/device_probe.ts";
import { isOriginSetting } from "../server/cors.ts";
import { createLog, LOG_FORMATS, LOG_LEVELS, type Log } from "../server/log.ts";
import { type RunningServer, startServer } from "../server/start.ts";
import { Store } from "../store/database.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, type Flags, JSON_FLAG, UsageError } from "./config.ts";
import {
  DTYPE_FLAG,
  KERNEL_FLAGS,
  kernelOptions,
  kernelUse,
  kernelWords,
  MEMORY_FRACTION_FLAG,
  STATE_DTYPE_FLAG,
} from "./kernel_flags.ts";
import { type ModelArgument, resolveModel } from "./model_argument.ts";
import { formatBytes, painter } from "./terminal.ts";
import { VERSION } from "./version.ts";

/** Flags of every command that opens an engine of its own. */
export const ENGINE_FLAGS = {
  ...KERNEL_FLAGS,
  dtype: DTYPE_FLAG,
  "max-context": {
    type: "integer",
    min: 2,
    max: 2 ** 24,
    value: "TOKENS",
    help: "longest context (default: the model's, at most 131072)",
  },
  "memory-fraction": MEMORY_FRACTION_FLAG,
  "kv-memory": { type: "bytes", min: 1, value: "SIZE", help: "memory of the KV pages (default: by machine)" },
  "state-memory": {
    type: "bytes",
    min: 1,
    value: "SIZE",
    help: "memory of the recurrent states (default: by machine)",
  },
  "prefix-cache-memory": {
    type: "bytes",
    min: 0,
    value: "SIZE",
    help: "part of both that may keep prompts for later requests; 0 = none (default: half)",
  },
  "pool-memory": {
    type: "bytes",
    min: 0,
    value: "SIZE",
    help: "memory of the hybrids' counterparts; those at rest leave for others (default: no limit)",
  },
  "keep-alive": {
    type: "integer",
    min: -1,
    max: 2 ** 31,
    default: -1,
    value: "SECONDS",
    help: "how long a hybrid's counterparts stay after its last use; -1 = until room is needed, 0 = not at all",
  },
  "kv-dtype": {
    type: "string",
    choices: ["f32", "bf16"],
    help: "type of the KV cache (default: f32; on a CUDA device bf16)",
  },
  "state-dtype": STATE_DTYPE_FLAG,
} as const;

/** Who may use the server, and how much. */
const ACCESS_FLAGS = {
  "api-key": {
    type: "string",
    multiple: true,
    value: "KEY",
    help: "ask every client for this key; it may do anything",
  },
  "api-key-file": { type: "string", value: "FILE", help: "ask for one of these keys: lines of NAME KEY [user|admin]" },
  "key-requests": { type: "integer", min: 1, max: 10 ** 9, value: "N", help: "requests per minute of one key" },
  "key-tokens": { type: "integer", min: 1, max: 10 ** 12, value: "N", help: "tokens per minute of one key" },
  "key-concurrency": { type: "integer", min: 1, max: 10 ** 6, value: "N", help: "requests of one key at once" },
  "cors-origin": {
    type: "string",
    multiple: true,
    value: "ORIGIN",
    help: "let pages of this origin use the server; * for any",
  },
  "trusted-proxy": {
    type: "string",
    multiple: true,
    value: "ADDRESS",
    help: "take the client's address from this proxy's X-Forwarded-For",
  },
} as const;

/** Exit status of a server without an engine. */
const EXIT_WHEN_DEAD = 70;

/** What the server says of its work. */
const LOG_FLAGS = {
  "log-format": { type: "string", choices: LOG_FORMATS, default: "text", help: "lines on standard error" },
  "log-level": { type: "string", choices: LOG_LEVELS, default: "info", help: "least important lines to write" },
} as const;

const flags = {
  host: { type: "string", value: "ADDRESS", default: "127.0.0.1", help: "address to listen on" },
  port: { type: "integer", min: 0, max: 65535, default: 8000, help: "port, 0 for any free one" },
  ...ACCESS_FLAGS,
  "allowed-host": {
    type: "string",
    multiple: true,
    value: "NAME",
    help: "further name that requests may be addressed to",
  },
  "served-model-name": { type: "string", value: "NAME", help: "further name for the model" },
  alias: { type: "string", multiple: true, value: "NAME=MODEL", help: "further name for a hybrid" },
  ...ENGINE_FLAGS,
  "max-batch-tokens": { type: "integer", min: 1, max: 2 ** 20, default: 512, help: "tokens of one step" },
  "prefill-interference": {
    type: "number",
    min: 0,
    max: 1000,
    default: 2,
    help: "times longer that a prompt may make the steps of running streams; 0 = any",
  },
  "max-sequences": { type: "integer", min: 1, max: 4096, default: 64, help: "sequences that run at once" },
  "max-waiting": { type: "integer", min: 1, max: 2 ** 20, default: 256, help: "requests that may wait" },
  "time-kernels": { type: "boolean", help: "count the time inside kernels, for /v1/stats and graft bench serve" },
  "max-jobs": { type: "integer", min: 1, max: 10_000, default: 16, help: "background jobs that may wait or run" },
  "max-body": { type: "bytes", min: 1024, max: 2 ** 30, default: 64 * 2 ** 20, help: "largest request body" },
  "request-timeout": {
    type: "number",
    min: 0.001,
    max: 86_400,
    value: "SECONDS",
    help: "longest time a request may take (default: any)",
  },
  "engine-stuck-seconds": {
    type: "number",
    min: 0,
    max: 86_400,
    default: 60,
    help: "start a new engine when it shows no life for so long; 0 = never",
  },
  "exit-when-dead": {
    type: "boolean",
    help: `end with status ${EXIT_WHEN_DEAD} when the engine is lost for good, for a supervisor to start the server again`,
  },
  "session-memory": {
    type: "bytes",
    min: 0,
    default: 4 * 2 ** 30,
    value: "SIZE",
    help: "disk space for saved sessions in the data folder; the least recently used leave; 0 = none",
  },
  "save-sessions": { type: "boolean", help: "save what the prefix cache holds when the server stops" },
  "drain-seconds": {
    type: "number",
    min: 0,
    max: 86_400,
    default: 30,
    help: "time for running requests after SIGTERM",
  },
  ...LOG_FLAGS,
  "data-dir": DATA_DIR_FLAG,
  json: JSON_FLAG,
} as const;

/** Only what was given: the engine has its own defaults. */
export function engineOptions(model: ModelArgument, given: Flags<typeof ENGINE_FLAGS>): EngineWorkerOptions {
  return {
    modelDir: model.path,
    ...kernelOptions(given),
    stateDtype: given["state-dtype"],
    ...(given["kv-dtype"] === undefined ? {} : { kvDtype: given["kv-dtype"] }),
    ...(given["memory-fraction"] === undefined ? {} : { memoryFraction: given["memory-fraction"] }),
    ...(given.dtype === undefined ? {} : { weightDtype: given.dtype }),
    keepAliveSeconds: given["keep-alive"],
    ...(given["pool-memory"] === undefined ? {} : { poolBytes: given["pool-memory"] }),
    ...(given["max-context"] === undefined ? {} : { maxContext: given["max-context"] }),
    ...(given["kv-memory"] === undefined ? {} : { kvBytes: given["kv-memory"] }),
    ...(given["state-memory"] === undefined ? {} : { stateBytes: given["state-memory"] }),
    ...(given["prefix-cache-memory"] === undefined ? {} : { prefixCacheBytes: given["prefix-cache-memory"] }),
  };
}

export const serveCommand = defineCommand(
  {
    name: "serve",
    summary: "Serves a model and its hybrids over HTTP (OpenAI API)",
    positionals: ["MODEL"],
    flags,
    details: `MODEL is a Hugging Face folder or a registered name, with :hybrid for what the bare name shall mean.
SIGTERM or Ctrl-C lets running requests finish; a second one ends them. SIGHUP reads the API keys again.
docs/operation.md tells the rest: keys, limits, health, metrics, logs.`,
    examples: ["graft serve ./Qwen2.5-1.5B --port 8000", "graft serve tiny:recall --host 0.0.0.0 --api-key-file keys"],
  },
  async ({ flags, positionals }) => {
    const store = Store.open(flags["data-dir"]);
    try {
      const model = resolveModel(store, positionals[0]!);
      checkHybrid(store, model);
      const log = createLog(flags["log-format"], flags["log-level"], (line) => void process.stderr.write(line));
      const server = await startServer({
        store,
        backbone: registered(store, model),
        engine: {
          ...engineOptions(model, flags),
          ...sessionOptions(store, flags["session-memory"]),
          maxBatchTokens: flags["max-batch-tokens"],
          prefillInterference: flags["prefill-interference"],
          maxSequences: flags["max-sequences"],
          maxWaiting: flags["max-waiting"],
          timeKernels: flags["time-kernels"],
        },
        engineStuckMs: flags["engine-stuck-seconds"] * 1000,
        naming: { standard: model.hybrid, aliases: aliases(flags, model.name) },
        host: flags.host,
        port: flags.port,
        keys: {
          keys: flags["api-key"],
          file: flags["api-key-file"] ?? null,
          limits: {
            requestsPerMinute: flags["key-requests"] ?? null,
            tokensPerMinute: flags["key-tokens"] ?? null,
            concurrent: flags["key-concurrency"] ?? null,
          },
        },
        corsOrigins: flags["cors-origin"].map(checkedOrigin),
        trustedProxies: flags["trusted-proxy"],
        allowedHosts: flags["allowed-host"],
        maxBodyBytes: flags["max-body"],
        saveSessions: flags["save-sessions"],
        requestTimeoutMs: flags["request-timeout"] === undefined ? null : flags["request-timeout"] * 1000,
        maxJobs: flags["max-jobs"],
        jobFlags: (kind) => kernelWords(flags, kernelUse(kind)),
        version: VERSION,
        log,
      });
      const passedOver = server.context.engine.info.device.passedOver;
      // Where there is no driver nobody expects a device.
      if (passedOver !== null && driverObstacle() === null) log(`the processor computes: ${passedOver}`, "warn");
      const line = await startLine(server, flags);
      // Whoever reads the line may send a signal at once.
      const stopped = untilStopped(server, flags["drain-seconds"] * 1000, log, flags["exit-when-dead"]);
      process.stdout.write(`${line}\n`);
      return (await stopped) === "asked" ? 0 : EXIT_WHEN_DEAD;
    } finally {
      store.close();
    }
  },
);

function checkedOrigin(text: string): string {
  if (isOriginSetting(text)) return text;
  throw new UsageError(`Invalid --cors-origin "${text}", expected an origin such as https://chat.example.org, or *`);
}

function sessionOptions(store: Store, maxBytes: number): Pick<EngineWorkerOptions, "sessions"> {
  return maxBytes === 0 ? {} : { sessions: { directory: store.dir.sessions, maxBytes } };
}

/** A model that no job has registered yet is registered by being served. */
function registered(store: Store, model: ModelArgument): string {
  if (store.models.get(model.name) === null) {
    const { name, path } = model;
    store.models.put({ name, path, architecture: null, numLayers: null, fingerprint: null });
  }
  return model.name;
}

function checkHybrid(store: Store, model: ModelArgument): void {
  if (model.hybrid === null || model.hybrid === "base" || store.hybrids.get(model.name, model.hybrid) !== null) return;
  const names = store.hybrids.list(model.name).map((hybrid) => hybrid.name);
  const known = names.length === 0 ? "it has none" : `it has ${names.join(", ")}`;
  throw new UsageError(`"${model.name}" has no hybrid "${model.hybrid}": ${known}`);
}

function aliases(given: Flags<typeof flags>, backbone: string): Record<string, string> {
  const result: Record<string, string> = {};
  if (given["served-model-name"] !== undefined) result[given["served-model-name"]] = backbone;
  for (const text of given.alias) {
    const [name, target, ...rest] = text.split("=");
    if (!name || !target || rest.length > 0) throw new UsageError(`Invalid --alias "${text}", expected NAME=MODEL`);
    result[name] = target;
  }
  return result;
}

/** One line with what a person wants to know at the start; with --json the same as an object. */
async function startLine(server: RunningServer, given: Flags<typeof flags>): Promise<string> {
  const { engine, hybrids } = server.context;
  const stats = await engine.stats();
  const { device, memory } = engine.info;
  const processor = cpus()[0]?.model.trim() ?? "CPU";
  const plan = {
    url: server.url,
    model: hybrids.backbone,
    names: hybrids.names().map((served) => served.id),
    device: device.kind === "cuda" ? `${device.name} (cuda, ${device.isa})` : `${processor} (${device.isa})`,
    threads: device.threads,
    weight_bytes: stats.weightBytes,
    kv_bytes: stats.kvBytesTotal,
    state_bytes: stats.stateBytesTotal,
    max_context: engine.info.maxContext,
    ...(memory === undefined ? {} : { device_memory: memory }),
  };
  if (given.json) return JSON.stringify(plan);
  const sizes = `weights ${formatBytes(plan.weight_bytes)}, KV ${formatBytes(plan.kv_bytes)}, states ${formatBytes(plan.state_bytes)}${memory === undefined ? "" : `${planned(memory)}, context ${plan.max_context}`}`;
  const threads = device.kind === "cuda" ? "" : `, ${plan.threads} threads`;
  const url = painter(process.stdout)("bold", plan.url);
  return `graft ${VERSION} serves ${plan.model} on ${plan.device}${threads}; ${sizes}; ${url}`;
}

/** What else a device's memory is kept for. */
function planned({ poolBytes, workspaceBytes, fraction, freeBytes }: DeviceMemoryInfo): string {
  const of = `${Math.round(100 * fraction)}% of ${formatBytes(freeBytes)} free`;
  return `, counterparts ${formatBytes(poolBytes)}, workspace ${formatBytes(workspaceBytes)} (${of})`;
}

/** How often a server that ends with its engine looks whether that is so. */
const LOOK_MS = 250;

/** Waits for SIGTERM or SIGINT, then for the drain; a second signal cuts it short. `alsoDead`: or for the end of the engine. */
export async function untilStopped(
  server: RunningServer,
  limitMs: number,
  log: Log,
  alsoDead = false,
): Promise<"asked" | "dead"> {
  const { engine, lifecycle } = server.context;
  const cut = new AbortController();
  const why = await new Promise<"asked" | "dead">((resolve) => {
    let asked = false;
    const onSignal = () => {
      if (asked) cut.abort();
      asked = true;
      resolve("asked");
    };
    if (alsoDead) {
      const look = setInterval(() => {
        if (asked || engine.state !== "dead") return;
        clearInterval(look);
        resolve("dead");
      }, LOOK_MS);
      look.unref();
    }
    process.on("SIGTERM", onSignal);
    process.on("SIGINT", onSignal);
    process.on("SIGHUP", () => server.reloadKeys());
  });
  log(`stopping: ${lifecycle.active} requests under way`);
  await server.stop(limitMs, cut.signal);
  return why;
}
