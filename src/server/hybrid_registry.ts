// Keeps the engine's hybrids equal to the store's, whoever wrote them, and knows what a model name means.
// Knows masks and names; never weights.

import { BASE_HYBRID, type EngineClient, type Variant } from "../engine/types.ts";
import { EngineLostError } from "../errors.ts";
import type { Store } from "../store/database.ts";
import type { HybridRecord } from "../store/hybrids.ts";
import type { PoolRecord } from "../store/pools.ts";
import { HttpError } from "./errors.ts";
import { servedNames } from "./names.ts";

/** A name a client may use as `model`. */
export interface ServedName {
  readonly id: string;
  /** The engine's name of the hybrid. */
  readonly hybrid: string;
  readonly record: HybridRecord | null;
}

/** How the backbone is named here, beside what the store says. */
export interface Naming {
  /** Further names: alias -> backbone, hybrid or backbone:hybrid. */
  readonly aliases?: Readonly<Record<string, string>>;
  /** The hybrid that the backbone's name means for this server, in place of the stored default. */
  readonly standard?: string | null;
}

/** A pool of the store as the engine has it. */
interface KeptPool {
  /** Changes when the pool is made anew. */
  readonly version: string;
  /** null: the engine could not open it. */
  readonly id: string | null;
}

export class HybridRegistry {
  readonly backbone: string;
  readonly #engine: EngineClient;
  readonly #store: Store;
  readonly #naming: Naming;
  /** What the engine holds: the pool by variant, the mask and pools by hybrid. */
  readonly #pools = new Map<string, KeptPool>();
  readonly #hybrids = new Map<string, string>();
  /** Hybrids of the store that cannot be served, with the reason. */
  readonly #problems = new Map<string, string>();
  #syncing: Promise<void> = Promise.resolve();

  constructor(engine: EngineClient, store: Store, backbone: string, naming: Naming = {}) {
    this.#engine = engine;
    this.#store = store;
    this.backbone = backbone;
    this.#naming = naming;
  }

  /** The engine's id of a variant's pool. */
  poolOf(variant: string): string | null {
    return this.#pools.get(variant)?.id ?? null;
  }

  /** Brings the engine up to the store; one hybrid that cannot be served does not hinder the others. */
  sync(): Promise<void> {
    const run = this.#syncing.then(() => this.#sync());
    this.#syncing = run.catch(() => {});
    return run;
  }

  /** Why a stored hybrid is not served, by name. */
  get problems(): ReadonlyMap<string, string> {
    return this.#problems;
  }

  /** Every name that can be asked for. */
  names(): ServedName[] {
    const hybrids = this.#store.hybrids.list(this.backbone).filter((record) => this.#hybrids.has(record.name));
    const { standard: preferred = null, aliases = {} } = this.#naming;
    const isStandard = (one: HybridRecord) => (preferred === null ? one.isDefault : one.name === preferred);
    const standard = hybrids.find(isStandard) ?? null;
    const names: ServedName[] = [
      { id: this.backbone, hybrid: standard?.name ?? BASE_HYBRID, record: standard },
      { id: `${this.backbone}:${BASE_HYBRID}`, hybrid: BASE_HYBRID, record: null },
      ...hybrids.map((record) => ({ id: `${this.backbone}:${record.name}`, hybrid: record.name, record })),
      ...hybrids
        .filter((record) => record.alias !== null)
        .map((record) => ({ id: record.alias!, hybrid: record.name, record })),
    ];
    for (const [alias, target] of Object.entries(aliases)) {
      for (const served of [...names]) {
        if (served.id === target || served.id === `${this.backbone}:${target}`) names.push({ ...served, id: alias });
        // An alias of the backbone stands for it in backbone:hybrid too.
        else if (target === this.backbone && served.id.startsWith(`${target}:`)) {
          names.push({ ...served, id: alias + served.id.slice(target.length) });
        }
      }
    }
    return names;
  }

  /**
   * What `model` means; absent, the backbone's default.
   * @throws HttpError 404 for a name that is not served
   */
  resolve(model: string | undefined): ServedName {
    const names = this.names();
    const found = names.find((served) => served.id === (model ?? this.backbone));
    if (found !== undefined) return found;
    const problem = this.#problems.get((model ?? "").replace(`${this.backbone}:`, ""));
    const reason = problem === undefined ? servedNames(names) : `: ${problem}`;
    throw new HttpError(
      404,
      "model_not_found",
      `The model "${model?.slice(0, 200)}" is not served here${reason}`,
      "model",
    );
  }

  async #sync(): Promise<void> {
    const replaced: string[] = [];
    for (const pool of this.#store.pools.list(this.backbone)) replaced.push(...(await this.#loadPool(pool)));
    const wanted = this.#store.hybrids.list(this.backbone);
    const names = new Set(wanted.map((record) => record.name));
    for (const name of [...this.#hybrids.keys()]) {
      if (names.has(name)) continue;
      await this.#engine.removeHybrid(name);
      this.#hybrids.delete(name);
    }
    for (const name of [...this.#problems.keys()]) {
      if (!names.has(name) && !name.startsWith("pool ")) this.#problems.delete(name);
    }
    for (const record of wanted) await this.#register(record);
    // Streams that began with a replaced pool keep it to their end; nothing new begins with it.
    for (const id of replaced) await this.#engine.unloadPool(id);
  }

  /** Ids of the pools that this one takes the place of. */
  async #loadPool(pool: PoolRecord): Promise<string[]> {
    const version = `${pool.path}@${pool.createdAt}`;
    const before = this.#pools.get(pool.variant);
    if (before?.version === version) return [];
    let id = before?.id ?? null;
    try {
      ({ id } = await this.#engine.loadPool(pool.path));
      this.#problems.delete(`pool ${pool.variant}`);
    } catch (error) {
      // The old one goes on, where there is one.
      this.#problems.set(`pool ${pool.variant}`, messageOf(error));
      // Says nothing of the pool: the next look tries it again.
      if (error instanceof EngineLostError) return [];
    }
    // A pool that failed is tried again when it is converted anew, not at every look.
    this.#pools.set(pool.variant, { version, id });
    return before?.id == null || before.id === id ? [] : [before.id];
  }

  async #register(record: HybridRecord): Promise<void> {
    const variants = [...new Set(record.layers.filter((layer) => layer !== null))];
    const ids = variants.flatMap((variant) => {
      const id = this.poolOf(variant);
      return id === null ? [] : [[variant, id] as const];
    });
    const version = JSON.stringify([record.layers, variants.map((variant) => this.#pools.get(variant) ?? null)]);
    if (this.#hybrids.get(record.name) === version) return;
    try {
      const layers = record.layers as (Variant | null)[];
      await this.#engine.registerHybrid({ name: record.name, layers, pools: Object.fromEntries(ids) });
      this.#hybrids.set(record.name, version);
      this.#problems.delete(record.name);
    } catch (error) {
      const pool = variants.map((variant) => this.#problems.get(`pool ${variant}`)).find((text) => text !== undefined);
      this.#problems.set(record.name, pool ?? messageOf(error));
      if (this.#hybrids.delete(record.name)) await this.#engine.removeHybrid(record.name);
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
