// The hybrids that requests may name, and the pools of counterparts they are made of. Registering moves no weights:
// a hybrid is a list of references to mixers that are loaded already.
import { isLoadable, type TokenMixer, type Variant } from "../../models/attention/mixer.ts";
import type { LinearPool } from "../../models/model.ts";
import { RequestError } from "../errors.ts";
import type { StateDtype } from "../ops/ops.ts";
import { type Hybrid, makeHybrid } from "./hybrid.ts";
import { StatePool } from "./state_pool.ts";
import { BASE_HYBRID, type HybridSpec, type PoolInfo } from "./types.ts";

const MAX_HYBRIDS = 100_000;
const MAX_NAME = 256;

/** The memory of recurrent and convolution states. */
export interface StateMemory {
  readonly numFloats: number;
  /** Type of the recurrent states. */
  readonly dtype: StateDtype;
}

/** Hybrids by name, pools by id. */
export class HybridRegistry {
  readonly #own: readonly TokenMixer[];
  readonly #identity: string;
  readonly #states: StateMemory;
  readonly #hybrids = new Map<string, Hybrid>();
  readonly #pools = new Map<string, LinearPool>();
  #serial = 0;
  #poolSerial = 0;

  /**
   * @param own the checkpoint's own mixers, one per layer
   * @param identity of the backbone, which pools must name
   * @param states what a hybrid's sequences may take; one that needs more for a single sequence is refused
   * @throws RequestError where the checkpoint itself needs more
   */
  constructor(own: readonly TokenMixer[], identity: string, states: StateMemory) {
    this.#own = own;
    this.#identity = identity;
    this.#states = states;
    this.#store(
      BASE_HYBRID,
      own.map(() => null),
      own,
    );
  }

  /** @throws RequestError for an unknown name. */
  get(name: string): Hybrid {
    const hybrid = this.#hybrids.get(name);
    if (hybrid === undefined) throw new RequestError("unknown_hybrid", `Cannot find hybrid "${name}"`);
    return hybrid;
  }

  list(): Hybrid[] {
    return [...this.#hybrids.values()];
  }

  /** Adds a hybrid, or makes its name mean another mask from now on. @throws RequestError */
  register(spec: HybridSpec): Hybrid {
    const { name, layers } = spec;
    if (name === "" || name.length > MAX_NAME) refuse(`name has ${name.length} characters, expected 1 to ${MAX_NAME}`);
    if (name === BASE_HYBRID) refuse(`the name "${BASE_HYBRID}" is the checkpoint's own`);
    if (layers.length !== this.#own.length) refuse(`${layers.length} layers, expected ${this.#own.length}`);
    if (!this.#hybrids.has(name) && this.#hybrids.size >= MAX_HYBRIDS) refuse(`${MAX_HYBRIDS} are registered already`);
    const mixers = layers.map((variant, i) => {
      if (variant === null) return this.#own[i]!;
      return this.#pool(variant, spec.pools?.[variant]).mixers[i]!;
    });
    return this.#store(name, layers, mixers);
  }

  /** Whether there was one. Sequences that run it keep it. @throws RequestError for the base. */
  remove(name: string): boolean {
    if (name === BASE_HYBRID) refuse(`"${BASE_HYBRID}" cannot be removed`);
    return this.#hybrids.delete(name);
  }

  /** @throws RequestError for a pool of another backbone. */
  addPool(pool: LinearPool): PoolInfo {
    if (pool.backbone !== this.#identity) {
      throw new RequestError("wrong_backbone", `Cannot use pool "${pool.directory}": it was made for another backbone`);
    }
    if (pool.mixers.length !== this.#own.length) {
      const counts = `${pool.mixers.length} layers, expected ${this.#own.length}`;
      throw new RequestError("wrong_backbone", `Cannot use pool "${pool.directory}": ${counts}`);
    }
    const known = [...this.#pools].find(([, other]) => isSame(other, pool));
    if (known !== undefined) {
      if (known[1] !== pool) pool.free();
      return poolInfo(...known);
    }
    const id = `${pool.variant}-${++this.#poolSerial}`;
    this.#pools.set(id, pool);
    return poolInfo(id, pool);
  }

  /** Takes a pool away and answers it; null for an unknown id. @throws RequestError where a hybrid needs it */
  removePool(id: string): LinearPool | null {
    const pool = this.#pools.get(id);
    if (pool === undefined) return null;
    const mixers = new Set<unknown>(pool.mixers);
    const users = this.list().filter((hybrid) => hybrid.mixers.some((mixer) => mixers.has(mixer)));
    if (users.length > 0) {
      const names = users.map(({ name }) => `"${name}"`).join(", ");
      throw new RequestError(
        "pool_in_use",
        `Cannot unload pool "${id}": ${names} ${users.length > 1 ? "are" : "is"} made of it`,
      );
    }
    this.#pools.delete(id);
    return pool;
  }

  pools(): PoolInfo[] {
    return [...this.#pools].map(([id, pool]) => poolInfo(id, pool));
  }

  get loadedPools(): LinearPool[] {
    return [...this.#pools.values()];
  }

  #pool(variant: Variant, id: string | undefined): LinearPool {
    const pool =
      id === undefined
        ? [...this.#pools.values()].findLast((candidate) => candidate.variant === variant)
        : this.#pools.get(id);
    if (pool === undefined) refuse(id === undefined ? `no pool of variant "${variant}" is loaded` : `no pool "${id}"`);
    if (pool.variant !== variant) refuse(`pool "${id}" is of variant "${pool.variant}", expected "${variant}"`);
    return pool;
  }

  #store(name: string, layers: readonly (Variant | null)[], mixers: readonly TokenMixer[]): Hybrid {
    const hybrid = makeHybrid(name, this.#serial++, [...layers], mixers, this.#states.dtype);
    if (!StatePool.fits(this.#states.numFloats, hybrid.slots)) {
      const bytes = 4 * hybrid.slotFloats;
      refuse(`one sequence needs ${bytes} bytes of state, the engine has ${4 * this.#states.numFloats}`);
    }
    this.#hybrids.set(name, hybrid);
    return hybrid;
  }
}

function refuse(why: string): never {
  throw new RequestError("invalid_hybrid", `Cannot register the hybrid: ${why}`);
}

/** The same pool, perhaps opened twice; what was converted anew in the same place is another one. */
function isSame(a: LinearPool, b: LinearPool): boolean {
  return a === b || (a.directory === b.directory && a.stamp !== undefined && a.stamp === b.stamp);
}

function poolInfo(id: string, pool: LinearPool): PoolInfo {
  const loaded = pool.mixers.filter((mixer) => !isLoadable(mixer) || mixer.loaded);
  return {
    id,
    variant: pool.variant,
    directory: pool.directory,
    numLayers: pool.mixers.length,
    loadedLayers: loaded.length,
    loadedBytes: loaded.reduce((sum, mixer) => sum + mixer.weightBytes(), 0),
  };
}
