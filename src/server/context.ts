// What every route may use, as one record passed down. Nothing here is global.

import type { EngineClient } from "../engine/types.ts";
import type { BackgroundCompiler } from "../grammar/background_compiler.ts";
import type { ChangeWatcher } from "../jobs/change_watcher.ts";
import type { JobSupervisor } from "../jobs/supervisor.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { Store } from "../store/database.ts";
import type { Access } from "./access/access.ts";
import type { GuardSettings } from "./guards.ts";
import type { HybridRegistry } from "./hybrid_registry.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Log } from "./log.ts";
import type { ModelText } from "./model_text.ts";

/** One served backbone and everything around it. */
export interface ServerContext {
  readonly engine: EngineClient;
  readonly text: ModelText;
  /** Compiles what texts must look like. */
  readonly grammars: BackgroundCompiler;
  readonly store: Store;
  readonly jobs: JobSupervisor;
  readonly changes: ChangeWatcher;
  readonly hybrids: HybridRegistry;
  readonly metrics: Metrics;
  readonly lifecycle: Lifecycle;
  readonly guards: GuardSettings;
  readonly access: Access;
  /** Addresses of proxies whose word on the client's address is taken. */
  readonly trustedProxies: readonly string[];
  /** No generation takes longer; null: any time. */
  readonly requestTimeoutMs: number | null;
  /** Says what the client is not told, one line at a time. */
  readonly log: Log;
}
