// The hybrids there are and where their weights are: names and pools of the registry, and what of them is in memory.
// Knows no sequence but as somebody who waits for a hybrid.
import type { LinearPool } from "../../models/model.ts";
import { type Hybrid, hybridInfo } from "./hybrid.ts";
import type { HybridRegistry } from "./hybrid_registry.ts";
import { Residency, type ResidencyLimits, type ResidencyParts, type Waiter } from "./residency.ts";
import type { HybridInfo, HybridSpec, PoolInfo } from "./types.ts";

/** One engine's hybrids. */
export class Catalog {
  readonly #registry: HybridRegistry;
  readonly #residency: Residency;
  readonly #kvBytesPerToken: number;
  /** Taken away while sequences still ran them; freed when the last one ends. */
  readonly #retired = new Set<LinearPool>();

  /** @param kvBytesPerToken bytes of k and v of one token in one full-attention layer */
  constructor(registry: HybridRegistry, kvBytesPerToken: number, limits: ResidencyLimits, parts: ResidencyParts) {
    this.#registry = registry;
    this.#kvBytesPerToken = kvBytesPerToken;
    const left = (identity: string) => {
      parts.left(identity);
      this.#freeRetired();
    };
    this.#residency = new Residency(limits, { ...parts, left });
  }

  /** Hybrids loaded and given up since the start. */
  get counts(): { loads: number; unloads: number } {
    return this.#residency.counts;
  }

  /** @throws RequestError for an unknown name. */
  get(name: string): Hybrid {
    return this.#registry.get(name);
  }

  /** See Residency.hold(). */
  hold(hybrid: Hybrid, waiter: Waiter): void {
    this.#residency.hold(hybrid, waiter);
  }

  /** See Residency.release(). */
  release(hybrid: Hybrid, waiter: Waiter): void {
    this.#residency.release(hybrid, waiter);
    this.#freeRetired();
  }

  /** @throws RequestError */
  register(spec: HybridSpec): HybridInfo {
    return this.#info(this.#registry.register(spec));
  }

  /** Whether there was one; its weights stay as long as those of any hybrid at rest. @throws RequestError for the base */
  remove(name: string): boolean {
    return this.#registry.remove(name);
  }

  list(): HybridInfo[] {
    return this.#registry.list().map((hybrid) => this.#info(hybrid));
  }

  /** Brings a hybrid into memory. @throws RequestError */
  async load(name: string, keepAliveMs: number | undefined): Promise<HybridInfo> {
    const hybrid = this.get(name);
    await new Promise<void>((resolve, reject) => {
      const waiter: Waiter = {
        ready: () => {
          if (keepAliveMs !== undefined) this.#residency.keep(hybrid, keepAliveMs);
          // Who resolves goes first: the hold must outlive this call.
          queueMicrotask(() => this.release(hybrid, waiter));
          resolve();
        },
        failed: (error) => reject(error),
      };
      this.hold(hybrid, waiter);
    });
    return this.#info(hybrid);
  }

  /** @throws RequestError for an unknown name. */
  unload(name: string): HybridInfo {
    const hybrid = this.get(name);
    this.#residency.unload(hybrid);
    return this.#info(hybrid);
  }

  /** A pool that is there already, opened again, is freed and not added. @throws RequestError for a pool of another backbone */
  addPool(pool: LinearPool): PoolInfo {
    return this.#registry.addPool(pool);
  }

  /** @throws RequestError where a hybrid needs it */
  removePool(id: string): boolean {
    const pool = this.#registry.removePool(id);
    if (pool === null) return false;
    this.#retired.add(pool);
    this.#residency.retire(new Set(pool.mixers));
    this.#freeRetired();
    return true;
  }

  pools(): PoolInfo[] {
    return this.#registry.pools();
  }

  get loadedPools(): LinearPool[] {
    return [...this.#registry.loadedPools, ...this.#retired];
  }

  close(): void {
    this.#residency.close();
  }

  #freeRetired(): void {
    for (const pool of this.#retired) {
      if (this.#residency.uses(new Set(pool.mixers))) continue;
      this.#retired.delete(pool);
      pool.free();
    }
  }

  #info(hybrid: Hybrid): HybridInfo {
    return hybridInfo(hybrid, this.#kvBytesPerToken, this.#residency.residence(hybrid));
  }
}
