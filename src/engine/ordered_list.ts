// A list that stays in order while thousands of items come and go. Knows nothing of what it holds.

/** Items in the order of `compare`, which must tell any two of them apart. */
export class OrderedList<T> {
  readonly #items: T[] = [];
  readonly #compare: (a: T, b: T) => number;

  constructor(compare: (a: T, b: T) => number) {
    this.#compare = compare;
  }

  get length(): number {
    return this.#items.length;
  }

  /** First in order; do not change it. */
  get items(): readonly T[] {
    return this.#items;
  }

  add(item: T): void {
    this.#items.splice(this.#lowerBound(item), 0, item);
  }

  /** Whether it was there. */
  remove(item: T): boolean {
    const at = this.#lowerBound(item);
    if (this.#items[at] !== item) return false;
    this.#items.splice(at, 1);
    return true;
  }

  /** Index of the first item that does not come before `item`; a newcomer mostly belongs at the end. */
  #lowerBound(item: T): number {
    const items = this.#items;
    let [low, high] = [0, items.length];
    if (high > 0 && this.#compare(items[high - 1]!, item) < 0) return high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#compare(items[middle]!, item) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
