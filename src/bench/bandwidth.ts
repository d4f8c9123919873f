// What decoding is held against: how fast memory can be read or copied at all. Knows no model.
import type { Ops } from "../ops/ops.ts";
import { lastLevelCacheBytes, StreamingRead } from "./machine.ts";

/** A rate of this machine's memory. */
export interface Bandwidth {
  /**
   * "read": a streaming read that takes turns with the repeats. "copy": a large copy on the device, bytes read and written,
   * before and after a case, because in between its memory is the engine's.
   */
  readonly kind: "read" | "copy";
  /** Best bytes/s of samples of about `seconds` in which at least `bytes` move. */
  measure(seconds: number, bytes: number): number;
}

/** The one that fits the device. */
export function bandwidthOf(ops: Ops): Bandwidth {
  return ops.kind === "cuda" ? new DeviceCopy(ops) : new StreamingRead(ops);
}

const COPY_BYTES = 2 ** 30;
/** Copies of one sample: waiting for them must not count. */
const COPIES = 16;
const SAMPLES = 5;

/** graft_copy between two large buffers that exist only while it measures. */
export class DeviceCopy implements Bandwidth {
  readonly kind = "copy";
  readonly #ops: Ops;
  readonly #bytes: number;

  constructor(ops: Ops, bytes = ops.isa === "simt" ? 4 * lastLevelCacheBytes() : COPY_BYTES) {
    this.#ops = ops;
    this.#bytes = bytes;
  }

  measure(): number {
    const ops = this.#ops;
    const shape = [Math.ceil(this.#bytes / 4)];
    const [from, to] = [ops.empty(shape), ops.empty(shape)];
    try {
      ops.fillRandom(from, 1, 1);
      let best = 0;
      // The first sample only wakes the device.
      for (let i = 0; i <= SAMPLES; i++) {
        const started = Bun.nanoseconds();
        for (let c = 0; c < COPIES; c++) ops.copy(to, from);
        ops.toFloat32({ ...to, shape: [1] }); // waits
        const rate = (2e9 * COPIES * 4 * shape[0]!) / (Bun.nanoseconds() - started);
        if (i > 0) best = Math.max(best, rate);
      }
      return best;
    } finally {
      ops.free(from);
      ops.free(to);
    }
  }
}
