// Why a prompt began with nothing cached. For metrics only: what is used is decided by comparing tokens, here a hash will do.

/**
 * What the prefix cache had for a generation that began: "hit"; or nothing, because nothing like it was known ("cold"), its
 * beginning was computed by other mixers ("other_hybrid"), its pages are there but no state at or below them ("no_state"),
 * it was kept and dropped for lack of room ("evicted"), the prompt is shorter than what is kept ("too_short"), or there is
 * no cache ("disabled").
 */
export type PrefixOutcome = (typeof PREFIX_OUTCOMES)[number];

/** Every outcome. */
export const PREFIX_OUTCOMES = ["hit", "cold", "other_hybrid", "no_state", "evicted", "too_short", "disabled"] as const;

/** Dropped prefixes that are remembered. */
const MAX_REMEMBERED = 8192;

/** Hashes of prefixes that were kept once, oldest forgotten first. */
export class DroppedPrefixes {
  readonly #hashes = new Set<number>();

  add(hash: number): void {
    this.#hashes.delete(hash);
    this.#hashes.add(hash);
    if (this.#hashes.size <= MAX_REMEMBERED) return;
    for (const oldest of this.#hashes) {
      this.#hashes.delete(oldest);
      return;
    }
  }

  /** It is kept again. */
  delete(hash: number): void {
    this.#hashes.delete(hash);
  }

  has(hash: number): boolean {
    return this.#hashes.has(hash);
  }
}

/** The hash of nothing, computed by the mixers of that identity. */
export function emptyPrefixHash(identity: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < identity.length; i++) hash = mixed(hash, identity.charCodeAt(i));
  return hash;
}

/** The hash of a prefix that goes on with tokens[from..to-1]. */
export function extendPrefixHash(hash: number, tokens: readonly number[], from: number, to: number): number {
  for (let i = from; i < to; i++) hash = mixed(hash, tokens[i]!);
  return hash;
}

/** One step of a 32-bit hash. */
function mixed(hash: number, value: number): number {
  const h = Math.imul(hash ^ value, 0x9e3779b1);
  return h ^ (h >>> 15);
}
