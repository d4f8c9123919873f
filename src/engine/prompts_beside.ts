// Takes a batch of prompts through the backend in parts, between the steps of streams, each part as long as the pacer allows.
// Knows batches and time; what becomes of the outputs is the engine's.
import type { Backend, Batch, ChunkOutput } from "./batch.ts";
import type { PrefillPacer } from "./prefill_pacer.ts";
import type { Clock } from "./timings.ts";

/** At most one batch at a time. */
export class PromptsBeside {
  readonly #backend: Backend;
  readonly #pacer: PrefillPacer;
  readonly #clock: Clock;
  #begun: Batch | null = null;
  /** What its layers took each, and the least time that a step had for it. */
  #layerMs: number[] = [];
  #leastAllowance = 0;

  constructor(backend: Backend, pacer: PrefillPacer, clock: Clock) {
    this.#backend = backend;
    this.#pacer = pacer;
    this.#clock = clock;
  }

  /** Gives up what is under way, if it is another batch than this one. */
  keep(batch: Batch | null): void {
    if (this.#begun === null || this.#begun === batch) return;
    this.#begun = null;
    this.#backend.abandon();
  }

  /**
   * Takes a batch on by at least one layer: for the time that a step has whose streams took `streamMs`, or to its end where
   * there are none (null). Its outputs when it is through, else null. @throws KernelError
   */
  advance(batch: Batch, streamMs: number | null): ChunkOutput[] | null {
    const allowance = streamMs === null ? Number.POSITIVE_INFINITY : this.#pacer.allowance(streamMs);
    let now = this.#clock();
    const end = now + allowance;
    if (this.#begun === null) this.#begin(batch);
    this.#leastAllowance = Math.min(this.#leastAllowance, allowance);
    for (;;) {
      const outputs = this.#backend.advance();
      if (streamMs !== null && outputs === null) this.#backend.settle();
      const layerMs = this.#clock() - now;
      now += layerMs;
      this.#layerMs.push(layerMs);
      if (outputs !== null) {
        this.#begun = null;
        this.#pacer.observe(batch.numRows, this.#layerMs, this.#leastAllowance);
        return outputs;
      }
      if (now + layerMs >= end) return null;
    }
  }

  #begin(batch: Batch): void {
    this.#backend.begin(batch);
    this.#begun = batch;
    this.#layerMs = [];
    this.#leastAllowance = Number.POSITIVE_INFINITY;
  }
}
