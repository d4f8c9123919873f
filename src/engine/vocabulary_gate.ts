// Holds constrained requests back until the engine's thread has the vocabulary their texts are made of, which is prepared
// elsewhere when the first of them comes: an engine that prepared it itself would let every stream wait.
import { arraysOf, type VocabularyData } from "../grammar/vocabulary.ts";
import type { ToEngine } from "./protocol.ts";
import type { GenerateRequest, TokenEvent } from "./types.ts";

/** What the gate uses. */
export interface GateParts {
  readonly prepare: () => Promise<VocabularyData>;
  readonly post: (message: ToEngine, transfer?: ArrayBufferLike[]) => void;
  readonly fail: (id: number, error: Error) => void;
}

interface Held {
  readonly request: GenerateRequest;
  readonly since: number;
}

/** The way of one engine's requests to its thread. */
export class VocabularyGate {
  readonly #parts: GateParts;
  readonly #held = new Map<number, Held>();
  #state: "closed" | "opening" | "open" = "closed";

  constructor(parts: GateParts) {
    this.#parts = parts;
  }

  /** Posts a request, at once unless it must wait. */
  generate(id: number, request: GenerateRequest): void {
    if (request.constraint === undefined || this.#state === "open") {
      this.#parts.post({ kind: "generate", id, request });
      return;
    }
    this.#held.set(id, { request, since: performance.now() });
    if (this.#state === "closed") void this.#open();
  }

  /** Takes a waiting request back: its last event, or null for one that does not wait here. */
  cancel(id: number): TokenEvent | null {
    const held = this.#held.get(id);
    if (held === undefined) return null;
    this.#held.delete(id);
    return {
      tokenIds: [],
      finishReason: "cancelled",
      usage: { promptTokens: held.request.promptIds.length, completionTokens: 0, cachedTokens: 0 },
      timings: { queueSeconds: waitedMs(held) / 1000, prefillSeconds: 0, decodeSeconds: 0 },
    };
  }

  /** A failure ends those that wait; the next request tries again. */
  async #open(): Promise<void> {
    const { prepare, post, fail } = this.#parts;
    this.#state = "opening";
    try {
      const vocabulary = await prepare();
      post({ kind: "vocabulary", vocabulary }, arraysOf(vocabulary));
      this.#state = "open";
      for (const [id, held] of this.#held) post({ kind: "generate", id, request: remaining(held) });
    } catch (error) {
      this.#state = "closed";
      for (const id of this.#held.keys()) fail(id, error instanceof Error ? error : new Error(String(error)));
    }
    this.#held.clear();
  }
}

/** The request with what is left of its time; a deadline that is none stays for the engine to refuse. */
function remaining(held: Held): GenerateRequest {
  const { request } = held;
  const { deadlineMs } = request;
  if (deadlineMs === undefined || !(deadlineMs >= 1)) return request;
  return { ...request, deadlineMs: Math.max(1, deadlineMs - waitedMs(held)) };
}

function waitedMs({ since }: Held): number {
  return performance.now() - since;
}
