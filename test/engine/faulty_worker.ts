// The engine's thread with faults on demand: a request whose first prompt id is one of faults.ts ends or blocks it.
// Everything else is the real thread.
import "../../src/engine/worker.ts";
import { Engine } from "../../src/engine/engine.ts";
import { SPINS, THROWS, WAITS } from "./faults.ts";

declare const self: { onmessage: ((event: MessageEvent) => void) | null };

interface Message {
  readonly kind: string;
  readonly request?: { readonly promptIds: readonly number[] };
}

const handle = self.onmessage!;
const step = Engine.prototype.step;
let fault = 0;
Engine.prototype.step = function () {
  if (fault === THROWS) throw new Error("a kernel has failed");
  if (fault === SPINS) for (;;);
  if (fault === WAITS) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  return step.call(this);
};
self.onmessage = (event) => {
  const { kind, request } = event.data as Message;
  const first = request?.promptIds[0] ?? 0;
  if (kind === "generate" && first >= THROWS && first <= WAITS) fault = first;
  handle(event);
};
