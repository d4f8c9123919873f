// The free list of KV pages. A page holds pageSize tokens of one sequence in one full-attention layer. Page numbers
// only: the memory behind them is the runner's.

/** Free pages, handed out lowest first. */
export class PagePool {
  readonly numPages: number;
  readonly #free: Int32Array;
  #numFree: number;

  constructor(numPages: number) {
    this.numPages = numPages;
    this.#numFree = numPages;
    // Lowest pages on top, so that a lightly used pool touches little memory.
    this.#free = Int32Array.from({ length: numPages }, (_, i) => numPages - 1 - i);
  }

  get numFree(): number {
    return this.#numFree;
  }

  get numUsed(): number {
    return this.numPages - this.#numFree;
  }

  /** Appends `count` pages to `pages`, or none and returns false where fewer are free. */
  take(count: number, pages: number[]): boolean {
    if (count > this.#numFree) return false;
    for (let i = 0; i < count; i++) pages.push(this.#free[--this.#numFree]!);
    return true;
  }

  /** Takes back all pages of a list and empties it. */
  give(pages: number[]): void {
    if (this.#numFree + pages.length > this.numPages) throw new Error("Broken page pool: more pages freed than taken");
    for (const page of pages) this.#free[this.#numFree++] = page;
    pages.length = 0;
  }
}
