// The socket: binds before the model is loaded (so that a taken port shows at once), then serves the application.
// Knows no route.

import type { Server } from "bun";
import { errorResponse, HttpError } from "./errors.ts";
import { withTimeout } from "./sse.ts";

/** Seconds without a byte after which a connection is closed; streams send pings more often. */
const IDLE_TIMEOUT_S = 60;
/** Answers that may take longer than that before their first byte. */
const SLOW_PATHS = /^\/v1\/((chat\/)?completions|responses|score|sessions|hybrids\/[^/]+\/load)$|\/events$/;

/** Answers a request from the given address. */
type Handle = (request: Request, address: string) => Response | Promise<Response>;

/** A bound socket. */
export interface Listener {
  /** e.g. http://127.0.0.1:8000 */
  readonly url: string;
  /** From now on requests go to `handle`; before that they are answered 503. */
  serve(handle: Handle): void;
  /** Ends the listener; answers under way have `graceMs` to reach their clients, then what is left is cut. */
  close(graceMs: number): Promise<void>;
}

/**
 * Binds to host and port (0: any free one). `maxBodyBytes` is a hard stop above the application's own limit.
 * @throws Error in one line when the address cannot be had
 */
export function listen(host: string, port: number, maxBodyBytes: number): Listener {
  let handle: Handle = () => errorResponse(new HttpError(503, "loading", "The model is being loaded"));
  const server = bind(host, port, maxBodyBytes, (request, address) => handle(request, address));
  const shownHost = host.includes(":") ? `[${host}]` : host;
  return {
    url: `http://${shownHost}:${server.port}`,
    serve(next) {
      handle = next;
    },
    async close(graceMs) {
      await withTimeout(server.stop(false), graceMs);
      await server.stop(true);
    },
  };
}

function bind(host: string, port: number, maxBodyBytes: number, handle: Handle): Server<undefined> {
  try {
    return Bun.serve({
      hostname: host,
      port,
      idleTimeout: IDLE_TIMEOUT_S,
      maxRequestBodySize: maxBodyBytes,
      development: false,
      // Outside development Bun shares a port by default, and a second server would take half of the requests.
      reusePort: false,
      fetch(request, server) {
        // What the Host header says becomes part of the URL, and may make it none.
        if (!URL.canParse(request.url)) {
          return errorResponse(new HttpError(400, "invalid_host", "The Host header names no host"));
        }
        if (SLOW_PATHS.test(new URL(request.url).pathname)) server.timeout(request, 0);
        return handle(request, server.requestIP(request)?.address ?? "unknown");
      },
    });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : null;
    const reason =
      code === "EADDRINUSE"
        ? "the port is in use; choose another with --port"
        : code === "EACCES"
          ? "permission denied; choose a port above 1023 with --port"
          : error instanceof Error
            ? error.message
            : String(error);
    throw new Error(`Cannot listen on ${host}:${port}: ${reason}`, { cause: error });
  }
}
