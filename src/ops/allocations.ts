// What has been allocated since somebody began to build something, so that it can be freed where nothing comes of it.
// Knows addresses, not how they are freed.

/** Memory of the device, and memory of the host that the library gives. */
export type MemoryKind = "device" | "host";

type Addresses = Readonly<Record<MemoryKind, Set<number>>>;

/** Allocations by what is being built, the innermost last; none are noted while nothing is. */
export class Allocations {
  readonly #building: Addresses[] = [];
  readonly #free: (kind: MemoryKind, ptr: number) => void;

  constructor(free: (kind: MemoryKind, ptr: number) => void) {
    this.#free = free;
  }

  add(kind: MemoryKind, ptr: number): void {
    this.#building.at(-1)?.[kind].add(ptr);
  }

  /** It has been freed, whoever allocated it. */
  remove(kind: MemoryKind, ptr: number): void {
    for (const addresses of this.#building) addresses[kind].delete(ptr);
  }

  /** Runs `body`; where it throws, whatever it allocated and has not freed is freed. */
  allOrNothing<T>(body: () => T): T {
    const own: Addresses = { device: new Set(), host: new Set() };
    this.#building.push(own);
    let built = false;
    try {
      const result = body();
      built = true;
      return result;
    } finally {
      this.#building.pop();
      for (const kind of ["device", "host"] as const) {
        for (const ptr of own[kind]) {
          if (built) this.add(kind, ptr);
          else this.#free(kind, ptr);
        }
      }
    }
  }
}
