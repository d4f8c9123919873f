// Starts and stops a whole server: lock, socket, store, engine, hybrids, jobs, routes. The order is the point of this
// file: what can fail cheaply comes first, and a stop undoes it backwards.

import { rmSync } from "node:fs";
import { startEngine } from "../engine/client.ts";
import { RestartingEngine } from "../engine/restarting_engine.ts";
import type { EngineWorkerOptions } from "../engine/types.ts";
import { BackgroundCompiler } from "../grammar/background_compiler.ts";
import { ChangeWatcher } from "../jobs/change_watcher.ts";
import { selfCommand } from "../jobs/self.ts";
import { JobSupervisor } from "../jobs/supervisor.ts";
import { createMetrics } from "../metrics/metrics.ts";
import type { Store } from "../store/database.ts";
import { writeFileAtomically } from "../store/files.ts";
import { tryLock } from "../store/lock.ts";
import { StoreError } from "../store/store_error.ts";
import { Access } from "./access/access.ts";
import { followKeys, type KeySettings } from "./access/key_source.ts";
import { createApp } from "./app.ts";
import type { ServerContext } from "./context.ts";
import { followStore } from "./follow_store.ts";
import { isLoopback, LOOPBACK_HOSTS } from "./guards.ts";
import { requestHandler } from "./handler.ts";
import { HybridRegistry, type Naming } from "./hybrid_registry.ts";
import { Lifecycle } from "./lifecycle.ts";
import { type Listener, listen } from "./listener.ts";
import type { Log } from "./log.ts";
import { loadModelText } from "./model_text.ts";
import { withTimeout } from "./sse.ts";

/** Settings of a server; the caller opens and closes the store. */
export interface ServerOptions {
  readonly store: Store;
  /** Name of the backbone in the store. */
  readonly backbone: string;
  readonly engine: EngineWorkerOptions;
  /** An engine without a sign of life for this long is replaced by a new one; 0: never. */
  readonly engineStuckMs?: number;
  readonly naming?: Naming;
  readonly host: string;
  readonly port: number;
  readonly keys: KeySettings;
  /** Origins of pages that may use the server; "*" for any. */
  readonly corsOrigins: readonly string[];
  readonly trustedProxies: readonly string[];
  /** Further host names under which a loopback server may be addressed. */
  readonly allowedHosts: readonly string[];
  readonly maxBodyBytes: number;
  /** Saves what the prefix cache holds when the server stops. */
  readonly saveSessions?: boolean;
  /** No generation takes longer; null: any time. */
  readonly requestTimeoutMs: number | null;
  /** Jobs that may be queued or running. */
  readonly maxJobs: number;
  /** Further words of the command line of a job of this kind, such as where its kernels lie. */
  readonly jobFlags?: (kind: string) => readonly string[];
  readonly version: string;
  readonly log: Log;
}

/** A server that answers. */
export interface RunningServer {
  readonly url: string;
  readonly context: ServerContext;
  /** Reads the keys' file again. */
  reloadKeys(): void;
  /** Takes nothing new, lets what runs finish within `limitMs` or until `cut` aborts, then ends everything. */
  stop(limitMs: number, cut?: AbortSignal): Promise<void>;
}

/** How long cancelled streams get to say goodbye. */
const GOODBYE_MS = 1000;
/** The socket's own body limit lies above the application's, whose answer says more. */
const HARD_LIMIT_FACTOR = 4;

/**
 * Starts a server. Resolves when it answers.
 * @throws StoreError when the data folder is in use or damaged, Error when the port is taken, CheckpointError when the
 * model cannot be loaded
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { store } = options;
  const lock = tryLock(store.dir.serverLock);
  if (lock === null) {
    throw new StoreError(
      "locked",
      `Cannot serve from "${store.dir.root}": another server uses it; stop it or choose another --data-dir`,
    );
  }
  let listener: Listener | null = null;
  try {
    store.check();
    listener = listen(options.host, options.port, options.maxBodyBytes * HARD_LIMIT_FACTOR);
    writeInfo(options, listener.url);
    const running = await assemble(options, listener);
    return {
      ...running,
      async stop(limitMs, cut) {
        await running.stop(limitMs, cut);
        lock.release();
      },
    };
  } catch (error) {
    await listener?.close(0);
    lock.release();
    throw error;
  }
}

async function assemble(options: ServerOptions, listener: Listener): Promise<RunningServer> {
  const { store, log } = options;
  const text = loadModelText(options.engine.modelDir);
  const grammars = new BackgroundCompiler();
  const engine = await RestartingEngine.start(() => startEngine(options.engine), {
    ...(options.engineStuckMs === undefined ? {} : { stuckMs: options.engineStuckMs }),
    log,
  });
  const changes = new ChangeWatcher(store);
  const hybrids = new HybridRegistry(engine, store, options.backbone, options.naming);
  const jobs = new JobSupervisor(store, {
    maxJobs: options.maxJobs,
    command(job) {
      const place = ["--job", job.id, "--data-dir", store.dir.root];
      return [...selfCommand(), job.kind, ...job.args, ...place, ...(options.jobFlags?.(job.kind) ?? [])];
    },
    onChange(job) {
      changes.notify();
      log(`job ${job.id}: ${job.state}${job.error === null ? "" : `: ${job.error}`}`);
    },
  });
  const loopback = isLoopback(options.host);
  const access = new Access(options.keys.limits);
  const keys = followKeys(access, options.keys, (line) => log(line, "warn"));
  if (!loopback && !access.restricted)
    log(`anyone who reaches ${options.host} may use this server: set --api-key-file`, "warn");
  const context: ServerContext = {
    engine,
    text,
    grammars,
    store,
    jobs,
    changes,
    hybrids,
    metrics: createMetrics(engine, store, options.backbone, {
      kv_dtype: options.engine.kvDtype ?? "f32",
      state_dtype: options.engine.stateDtype ?? "f32",
    }),
    lifecycle: new Lifecycle(),
    requestTimeoutMs: options.requestTimeoutMs,
    guards: {
      allowedHosts: loopback ? [...LOOPBACK_HOSTS, options.host, ...options.allowedHosts] : null,
      corsOrigins: options.corsOrigins,
      maxBodyBytes: options.maxBodyBytes,
    },
    access,
    trustedProxies: options.trustedProxies,
    log,
  };
  await hybrids.sync();
  const stopFollowing = followStore(context);
  listener.serve(requestHandler(createApp(context, options.version), context));
  jobs.start();
  return {
    url: listener.url,
    context,
    reloadKeys: () => keys.reload(),
    async stop(limitMs, cut) {
      const drained = context.lifecycle.drain();
      const paused = jobs.stop();
      await Promise.race([withTimeout(drained, limitMs), aborted(cut)]);
      stopFollowing();
      keys.close();
      if (options.saveSessions === true) await Promise.race([saveSessions(context, limitMs), aborted(cut)]);
      await engine.close();
      await withTimeout(drained, GOODBYE_MS);
      await listener.close(GOODBYE_MS);
      changes.close();
      text.close();
      grammars.close();
      await paused;
      rmSync(store.dir.serverInfo, { force: true });
    },
  };
}

async function saveSessions({ engine, log }: ServerContext, limitMs: number): Promise<void> {
  const saved = engine.saveSessions().then(
    (count) => log(`${count} sessions are saved`),
    (error: unknown) => log(`sessions cannot be saved: ${error instanceof Error ? error.message : error}`, "error"),
  );
  await withTimeout(saved, limitMs);
}

/** For `graft ps`. */
function writeInfo(options: ServerOptions, url: string): void {
  const info = {
    pid: process.pid,
    url,
    backbone: options.backbone,
    path: options.engine.modelDir,
    started_at: Date.now(),
  };
  writeFileAtomically(options.store.dir.serverInfo, `${JSON.stringify(info)}\n`);
}

function aborted(signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return new Promise(() => {});
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
