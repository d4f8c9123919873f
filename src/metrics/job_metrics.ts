// Metrics of jobs by state, counted in the store at each scrape.

import { Gauge, type Registry } from "prom-client";
import type { Store } from "../store/database.ts";

export function jobMetrics(registry: Registry, store: Store): void {
  new Gauge({
    name: "graft_jobs",
    help: "Jobs in the store by kind and state",
    labelNames: ["kind", "state"] as const,
    registers: [registry],
    collect() {
      this.reset();
      for (const { kind, state, count } of store.jobs.countByState()) this.set({ kind, state }, count);
    },
  });
}
