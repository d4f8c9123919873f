// What steps that repeat are made of: recordings of ops, numbers that move on from step to step, fetches that do not wait.
import { toArrayBuffer } from "bun:ffi";
import { KernelError } from "../errors.ts";
import { bytesOf, numel, type Tensor } from "../tensor/tensor.ts";
import { Device } from "./device.ts";
import { at, expectAtLeast, expectCount, rowsOf } from "./expect.ts";

/** Words of one graft_sampling record. */
export const SAMPLING_WORDS = 8;

/** GRAFT_UNSUPPORTED of graft.h. */
const UNSUPPORTED = 2;

/** Ops in the order in which they were called, with their operands; lives until freeRecording(). */
export interface Recording {
  readonly ptr: number;
}

/** What one step with one row per sequence reads, and the next one a token further. */
export interface StepInputs {
  /** i32 [N] */
  readonly ids: Tensor;
  /** i32 [M]: positions of rows, some of them more than once. */
  readonly positions: Tensor;
  /** N packed graft_sampling records. */
  readonly params: Tensor;
}

/** Recordings, fetches, and what moves a step's numbers on. */
export class RepeatOps extends Device {
  /**
   * Records the ops that `body` calls instead of doing them; all of them must have been done before at these sizes. null
   * where the library does not record. @throws KernelError where one of them cannot be recorded
   */
  record(body: () => void): Recording | null {
    const status = this.symbols.graft_record_begin();
    if (status === UNSUPPORTED) return null;
    this.check("recordBegin", status);
    try {
      body();
    } catch (error) {
      this.symbols.graft_recording_free(this.symbols.graft_record_end());
      throw error;
    }
    const ptr = Number(this.symbols.graft_record_end());
    if (ptr === 0) throw new KernelError(`Cannot run recordEnd: ${this.lastError()}`);
    return { ptr };
  }

  /** Does what was recorded, with what its operands hold now. */
  replay(recording: Recording): void {
    this.check("replay", this.symbols.graft_replay(recording.ptr as never));
  }

  freeRecording(recording: Recording): void {
    this.symbols.graft_recording_free(recording.ptr as never);
  }

  /** Moves a step's inputs on by one token of each sequence, `drawn` i32 [N]; an id below 0 counts as 0. */
  advance({ ids, positions, params }: StepInputs, drawn: Tensor): void {
    const N = rowsOf("advance", "ids", ids);
    expectCount("advance", "ids", ids, N, "i32");
    expectCount("advance", "drawn", drawn, N, "i32");
    expectAtLeast("advance", "positions", positions, 1, "i32");
    expectAtLeast("advance", "params", params, N * SAMPLING_WORDS, params.dtype);
    const M = numel(positions);
    this.check("advance", this.symbols.graft_advance(at(ids), at(positions), at(params), at(drawn), N, M));
  }

  /** table[place] = value for the pairs (place, value) of entries i32 [n, 2]; no place twice. */
  put(table: Tensor, entries: Tensor): void {
    const n = rowsOf("put", "entries", entries);
    expectCount("put", "entries", entries, 2 * n, "i32");
    expectAtLeast("put", "table", table, 1, "i32");
    this.check("put", this.symbols.graft_put(at(table), at(entries), n, numel(table)));
  }
}

/** Host memory for integers that are fetched while other work is queued behind them. */
export class Fetch {
  readonly #device: Device;
  readonly #ticket: number;
  readonly #host: number;
  readonly #view: Int32Array;

  /** @param ticket which of graft.h's; fetches of one ticket end in the order in which they began */
  constructor(device: Device, capacity: number, ticket: number) {
    this.#device = device;
    this.#ticket = ticket;
    this.#host = device.hostAlloc(capacity * 4);
    this.#view = new Int32Array(toArrayBuffer(this.#host as never, 0, capacity * 4));
  }

  /** Begins to fetch i32 [count]. */
  begin(source: Tensor): void {
    const [host, from, bytes] = [this.#host as never, at(source), bytesOf(source)];
    this.#device.check("fetch", this.#device.symbols.graft_download_begin(host, from, bytes, this.#ticket));
  }

  /** What the last begin() fetched, at the front; valid until the next one. @throws KernelError with what went wrong on the device */
  wait(): Int32Array {
    this.#device.check("fetch", this.#device.symbols.graft_download_wait(this.#ticket));
    return this.#view;
  }

  close(): void {
    this.#device.hostFree(this.#host);
  }
}
