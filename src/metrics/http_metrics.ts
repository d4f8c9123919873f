// Metrics of HTTP answers by route and status.

import { Counter, type Registry } from "prom-client";

export interface HttpMetrics {
  /** `route` is the pattern, never the raw path: the number of series must stay small. */
  answered(method: string, route: string, status: number): void;
  /** An answer was an error; `code` is one of the program's own words. */
  failed(code: string): void;
}

export function httpMetrics(registry: Registry): HttpMetrics {
  const answers = new Counter({
    name: "graft_http_requests_total",
    help: "HTTP answers by method, route and status",
    labelNames: ["method", "route", "status"] as const,
    registers: [registry],
  });
  const errors = new Counter({
    name: "graft_http_errors_total",
    help: "HTTP errors by code, those inside a stream included",
    labelNames: ["code"] as const,
    registers: [registry],
  });
  return {
    answered: (method, route, status) => answers.inc({ method, route, status: String(status) }),
    failed: (code) => errors.inc({ code }),
  };
}
