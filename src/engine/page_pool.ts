// The KV pages and who holds them. A page holds pageSize tokens of one full-attention layer; sequences that share a
// prefix, and the prefix cache, hold the same page. Page numbers only: the memory behind them is the runner's.

/** Free pages, handed out lowest first, and how often each other page is held and kept. */
export class PagePool {
  readonly numPages: number;
  readonly #free: Int32Array;
  #numFree: number;
  /** Per page: sequences that hold it, and places of the prefix cache that keep it. */
  readonly #holders: Int32Array;
  readonly #keepers: Int32Array;
  #numHeld = 0;
  #numKept = 0;

  constructor(numPages: number) {
    this.numPages = numPages;
    this.#numFree = numPages;
    this.#holders = new Int32Array(numPages);
    this.#keepers = new Int32Array(numPages);
    // Lowest pages on top, so that a lightly used pool touches little memory.
    this.#free = Int32Array.from({ length: numPages }, (_, i) => numPages - 1 - i);
  }

  get numFree(): number {
    return this.#numFree;
  }

  /** Pages that sequences hold. */
  get numUsed(): number {
    return this.#numHeld;
  }

  /** Pages that the prefix cache keeps, whether sequences hold them too or not. */
  get numKept(): number {
    return this.#numKept;
  }

  /** Free pages, and those that will be when the prefix cache drops all it keeps. */
  get numAvailable(): number {
    return this.numPages - this.#numHeld;
  }

  /** Appends `count` free pages to `pages`, or none and returns false where fewer are free. */
  take(count: number, pages: number[]): boolean {
    if (count > this.#numFree) return false;
    for (let i = 0; i < count; i++) {
      const page = this.#free[--this.#numFree]!;
      this.#holders[page] = 1;
      pages.push(page);
    }
    this.#numHeld += count;
    return true;
  }

  /** A further sequence holds pages that are in use or kept. */
  share(shared: readonly number[], pages: number[]): void {
    for (const page of shared) {
      this.#checkLive(page);
      if (this.#holders[page]!++ === 0) this.#numHeld++;
      pages.push(page);
    }
  }

  /** Takes back a sequence's hold of all pages of a list and empties it. */
  give(pages: number[]): void {
    for (const page of pages) {
      if (!(this.#holders[page]! > 0)) throw new Error(`Broken page pool: page ${page} was not taken`);
      if (--this.#holders[page]! > 0) continue;
      this.#numHeld--;
      this.#freeUnused(page);
    }
    pages.length = 0;
  }

  /** The prefix cache keeps these pages, whoever holds them. */
  keep(pages: readonly number[]): void {
    for (const page of pages) {
      this.#checkLive(page);
      if (this.#keepers[page]!++ === 0) this.#numKept++;
    }
  }

  /** The reverse of keep(). */
  drop(pages: readonly number[]): void {
    for (const page of pages) {
      if (!(this.#keepers[page]! > 0)) throw new Error(`Broken page pool: page ${page} was not kept`);
      if (--this.#keepers[page]! > 0) continue;
      this.#numKept--;
      this.#freeUnused(page);
    }
  }

  #freeUnused(page: number): void {
    if (this.#holders[page]! + this.#keepers[page]! === 0) this.#free[this.#numFree++] = page;
  }

  #checkLive(page: number): void {
    if (!(this.#holders[page]! + this.#keepers[page]! > 0)) throw new Error(`Broken page pool: page ${page} is free`);
  }
}
