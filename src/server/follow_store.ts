// Keeps what is served equal to the store while other processes write to it. Knows no route.

import type { ServerContext } from "./context.ts";

/** A look that failed is repeated after so long, or at the next change. */
const AGAIN_MS = 5_000;
const LOOK_MS = 60_000;

/** Serves what other processes register as soon as they commit it; answers the function that stops this. */
export function followStore(context: ServerContext, againMs = AGAIN_MS): () => void {
  const stop = new AbortController();
  const shown = new Map<string, string>();
  const follow = async () => {
    while (!stop.signal.aborted) {
      // A store that is locked for a moment, or an engine that is lost, must not end the following.
      const fault = await context.hybrids.sync().then(
        () => null,
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      );
      if (fault !== null && !stop.signal.aborted) context.log(`the store cannot be followed: ${fault}`, "error");
      for (const [name, problem] of context.hybrids.problems) {
        if (shown.get(name) !== problem) context.log(`hybrid ${name} is not served: ${problem}`, "warn");
        shown.set(name, problem);
      }
      await context.changes.wait(fault === null ? LOOK_MS : againMs, stop.signal);
    }
  };
  void follow();
  return () => stop.abort();
}
