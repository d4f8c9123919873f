// Cuts a growing text exactly before the first stop string, holding back what may yet turn into one.
// Knows strings only.

/** What may be shown so far, and the stop string that ended the text, if one did. */
export interface StopResult {
  readonly text: string;
  readonly stop: string | null;
}

/** The stop strings of one stream. */
export class StopStrings {
  readonly #stops: readonly string[];
  #held = "";
  #stopped: string | null = null;

  /** Empty stop strings are refused. @throws RangeError */
  constructor(stops: readonly string[]) {
    if (stops.includes("")) throw new RangeError("Cannot stop at an empty string");
    this.#stops = stops;
  }

  /** The part of `held + text` that cannot belong to a stop string any more. After a stop, nothing comes. */
  push(text: string): StopResult {
    if (this.#stopped !== null) return { text: "", stop: this.#stopped };
    const all = this.#held + text;
    const found = this.#earliest(all);
    if (found !== null) {
      this.#stopped = found.stop;
      this.#held = "";
      return { text: all.slice(0, found.at), stop: found.stop };
    }
    const keep = this.#partial(all);
    this.#held = all.slice(all.length - keep);
    return { text: all.slice(0, all.length - keep), stop: null };
  }

  /** What was held back, now that no more text comes. */
  flush(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }

  /** The stop string that is complete first, whatever the pieces the text came in; the longest of several that end there. */
  #earliest(text: string): { at: number; stop: string } | null {
    let best: { at: number; stop: string } | null = null;
    let bestEnd = Number.POSITIVE_INFINITY;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      const end = at + stop.length;
      if (at < 0 || end > bestEnd || (end === bestEnd && stop.length < best!.stop.length)) continue;
      best = { at, stop };
      bestEnd = end;
    }
    return best;
  }

  /** Length of the longest end of the text that begins a stop string. */
  #partial(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let n = Math.min(stop.length - 1, text.length); n > longest; n--) {
        if (text.endsWith(stop.slice(0, n))) longest = n;
      }
    }
    return longest;
  }
}
