// Divides one region of floats into slots of any size, for recurrent and convolution states. A slot of F floats lies at a
// multiple of F, because kernels find it as base + slot * F. Offsets only: the memory behind them is the runner's.

interface Extent {
  start: number;
  end: number;
}

/** Free stretches of the state memory. */
export class StatePool {
  readonly numFloats: number;
  /** Free stretches, ascending, never touching one another. */
  readonly #free: Extent[];
  #used = 0;

  constructor(numFloats: number) {
    this.numFloats = numFloats;
    this.#free = numFloats > 0 ? [{ start: 0, end: numFloats }] : [];
  }

  get floatsUsed(): number {
    return this.#used;
  }

  /** The number of a free slot of that many floats (it begins at number * floats), or -1. First fit. */
  take(floats: number): number {
    for (let i = 0; i < this.#free.length; i++) {
      const extent = this.#free[i]!;
      const slot = Math.ceil(extent.start / floats);
      const [start, end] = [slot * floats, (slot + 1) * floats];
      if (end > extent.end) continue;
      const rest: Extent[] = [];
      if (start > extent.start) rest.push({ start: extent.start, end: start });
      if (end < extent.end) rest.push({ start: end, end: extent.end });
      this.#free.splice(i, 1, ...rest);
      this.#used += floats;
      return slot;
    }
    return -1;
  }

  /** One slot of each size, appended to `slots`; or none and false where they do not all fit. */
  takeAll(sizes: readonly { readonly floats: number }[], slots: number[]): boolean {
    const first = slots.length;
    for (const { floats } of sizes) {
      const slot = this.take(floats);
      if (slot >= 0) {
        slots.push(slot);
        continue;
      }
      while (slots.length > first) this.give(slots.pop()!, sizes[slots.length - first]!.floats);
      return false;
    }
    return true;
  }

  give(slot: number, floats: number): void {
    const [start, end] = [slot * floats, (slot + 1) * floats];
    let i = 0;
    while (i < this.#free.length && this.#free[i]!.start < start) i++;
    const [before, after] = [this.#free[i - 1], this.#free[i]];
    if ((before && before.end > start) || (after && after.start < end)) {
      throw new Error(`Broken state pool: slot ${slot} of ${floats} floats was not taken`);
    }
    const joinsBefore = before?.end === start;
    const joinsAfter = after?.start === end;
    const joined = { start: joinsBefore ? before.start : start, end: joinsAfter ? after.end : end };
    this.#free.splice(joinsBefore ? i - 1 : i, Number(joinsBefore) + Number(joinsAfter), joined);
    this.#used -= floats;
  }

  /** Whether slots of these sizes fit into a pool of that many floats when it is empty. */
  static fits(numFloats: number, sizes: readonly { readonly floats: number }[]): boolean {
    return new StatePool(numFloats).takeAll(sizes, []);
  }
}
