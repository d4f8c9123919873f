// Computed prefixes that later sequences may begin with: KV pages by the tokens they hold, and snapshots of recurrent
// states. Pages and slots come from the engine's own pools and go back when they are needed there. It finds a prefix by
// comparing every token of it under the very mixers that computed it; nothing is trusted to a hash.
import type { Hybrid } from "./hybrid.ts";
import type { PagePool } from "./page_pool.ts";
import { DroppedPrefixes, emptyPrefixHash, extendPrefixHash, type PrefixOutcome } from "./prefix_outcome.ts";
import type { StatePool } from "./state_pool.ts";

/** One full page of tokens after those of its parents; a root stands for the empty prefix of one list of mixers. */
interface Node {
  readonly parent: Node | null;
  /** Its tokens, joined; the identity of the mixers in a root. */
  readonly key: string;
  /** Tokens up to its end. */
  readonly end: number;
  /** Of all tokens up to its end and the mixers, for DroppedPrefixes. */
  readonly hash: number;
  /** One page per full-attention layer. */
  readonly pages: readonly number[];
  readonly children: Map<string, Node>;
  readonly snapshots: Set<Snapshot>;
}

/** The state after `position` tokens: those of its node, then the tail, which ends inside a page. */
export interface Snapshot {
  readonly node: Node;
  readonly hybrid: Hybrid;
  readonly position: number;
  readonly tail: readonly number[];
  /** Pages of the tail, one per full-attention layer; none where the tail is empty. */
  readonly tailPages: readonly number[];
  /** Recurrent and convolution states, one slot per linear layer. */
  readonly slots: readonly number[];
  /** Lent to sequences that wait already, and dropped when they have all begun; not held against the byte limit. */
  readonly transient: boolean;
}

/** What a sequence may begin with. */
export interface Hit {
  readonly position: number;
  /** Full pages, to be shared. */
  readonly pages: readonly number[];
  /** Pages filled in part, to be copied. */
  readonly tailPages: readonly number[];
  /** State slots, to be copied. */
  readonly slots: readonly number[];
  /** What must not be evicted before the copies are ordered; null where there is nothing to copy. */
  readonly snapshot: Snapshot | null;
}

interface Match {
  readonly node: Node;
  readonly position: number;
  readonly snapshot: Snapshot | null;
}

/** Sizes that kept prefixes are counted in, and their bound. */
export interface PrefixCacheLimits {
  readonly pageSize: number;
  /** Bytes of one page, k and v. */
  readonly pageBytes: number;
  /** Bytes that may stay cached; 0 = none. */
  readonly cacheBytes: number;
}

/** All that is kept of computed prefixes, least recently used first out. */
export class PrefixCache {
  readonly limits: PrefixCacheLimits;
  readonly #pages: PagePool;
  readonly #states: StatePool;
  readonly #roots = new Map<string, Node>();
  /** In how many roots a first page of these tokens is kept. */
  readonly #firstPages = new Map<string, number>();
  readonly #dropped = new DroppedPrefixes();
  /** Least recently used first. */
  readonly #snapshots = new Set<Snapshot>();
  #stateFloats = 0;
  #evictions = 0;

  constructor(pages: PagePool, states: StatePool, limits: PrefixCacheLimits) {
    this.#pages = pages;
    this.#states = states;
    this.limits = limits;
  }

  /** Bytes of pages and states that it keeps; a page that sequences use as well is counted too. */
  get bytes(): number {
    return this.#pages.numKept * this.limits.pageBytes + 4 * this.#stateFloats;
  }

  get stateFloats(): number {
    return this.#stateFloats;
  }

  get size(): number {
    return this.#snapshots.size;
  }

  get evictions(): number {
    return this.#evictions;
  }

  /** The longest usable prefix of at most `limit` tokens. */
  find(hybrid: Hybrid, tokens: readonly number[], limit: number): Hit | null {
    const root = this.#roots.get(hybrid.identity);
    if (root === undefined) return null;
    let best: Match | null = null;
    for (let node: Node | undefined = root; node; node = this.#child(node, tokens, limit)) {
      best = longest(node, hybrid, tokens, limit) ?? best;
    }
    if (best === null) return null;
    const { node, position, snapshot } = best;
    if (snapshot !== null) this.#touch(snapshot);
    const tailPages = position > node.end ? snapshot!.tailPages : [];
    return { position, pages: pagesOf(node), tailPages, slots: snapshot?.slots ?? [], snapshot };
  }

  /** Why find() has nothing, for a prompt that reaches beyond a page. */
  explain(hybrid: Hybrid, tokens: readonly number[], limit: number): PrefixOutcome {
    const { pageSize } = this.limits;
    let hash = emptyPrefixHash(hybrid.identity);
    for (let end = pageSize; end <= limit; end += pageSize) {
      hash = extendPrefixHash(hash, tokens, end - pageSize, end);
      if (this.#dropped.has(hash)) return "evicted";
    }
    const first = keyOf(tokens, 0, pageSize);
    if (this.#roots.get(hybrid.identity)?.children.has(first)) return "no_state";
    return this.#firstPages.has(first) ? "other_hybrid" : "cold";
  }

  /**
   * Keeps what a sequence has computed of its first `position` tokens: its pages by reference, and the slots as the
   * cache's own from now on. Null where that very prefix is kept already: then the slots stay the caller's.
   */
  insert(
    hybrid: Hybrid,
    tokens: readonly number[],
    position: number,
    pages: readonly number[],
    slots: readonly number[],
    transient = false,
  ): Snapshot | null {
    const { pageSize } = this.limits;
    const { numFull } = hybrid;
    let node = this.#root(hybrid);
    let block = 0;
    for (; (block + 1) * pageSize <= position; block++) {
      node = this.#grow(node, tokens, pages.slice(block * numFull, (block + 1) * numFull));
    }
    const tail = tokens.slice(node.end, position);
    for (const other of node.snapshots) {
      if (other.position !== position || !other.tail.every((token, i) => token === tail[i])) continue;
      this.#touch(other);
      return null;
    }
    const tailPages = tail.length === 0 ? [] : pages.slice(block * numFull, (block + 1) * numFull);
    const snapshot = { node, hybrid, position, tail, tailPages, slots: [...slots], transient };
    this.#dropped.delete(node.hash);
    this.#pages.keep(tailPages);
    node.snapshots.add(snapshot);
    this.#snapshots.add(snapshot);
    this.#stateFloats += floatsOf(snapshot);
    return snapshot;
  }

  /** The kept prefixes, the most recently used first. */
  prefixes(): { readonly hybrid: Hybrid; readonly tokens: readonly number[] }[] {
    const lasting = [...this.#snapshots].filter(({ transient }) => !transient).reverse();
    return lasting.map(({ node, hybrid, tail }) => ({ hybrid, tokens: [...tokensOf(node), ...tail] }));
  }

  /** Down to the byte limit. */
  trim(): void {
    for (const snapshot of this.#snapshots) {
      if (this.bytes <= this.limits.cacheBytes) return;
      if (!snapshot.transient) this.#drop(snapshot);
    }
  }

  /** Drops the least recently used snapshot but `pinned`; false where there is none. */
  evict(pinned: Snapshot | null): boolean {
    for (const snapshot of this.#snapshots) {
      if (snapshot === pinned) continue;
      if (snapshot.transient) this.remove(snapshot);
      else this.#drop(snapshot);
      return true;
    }
    return false;
  }

  /** Does nothing where it is gone already. */
  remove(snapshot: Snapshot): void {
    if (!this.#snapshots.delete(snapshot)) return;
    const { node, hybrid, slots, tailPages } = snapshot;
    slots.forEach((slot, i) => {
      this.#states.give(slot, hybrid.slots[i]!.floats);
    });
    this.#pages.drop(tailPages);
    this.#stateFloats -= floatsOf(snapshot);
    node.snapshots.delete(snapshot);
    this.#prune(node);
  }

  /** All that was computed by these mixers. */
  forget(identity: string): void {
    for (const snapshot of [...this.#snapshots]) if (snapshot.hybrid.identity === identity) this.remove(snapshot);
  }

  clear(): void {
    for (const snapshot of this.#snapshots) this.remove(snapshot);
  }

  #drop(snapshot: Snapshot): void {
    // Without states every page of it served; with them, only its end did.
    const { node, hybrid } = snapshot;
    for (let at: Node | null = node; at !== null; at = hybrid.slots.length === 0 ? at.parent : null) {
      this.#dropped.add(at.hash);
    }
    this.remove(snapshot);
    this.#evictions++;
  }

  #child(node: Node, tokens: readonly number[], limit: number): Node | undefined {
    const end = node.end + this.limits.pageSize;
    return end > limit || node.children.size === 0 ? undefined : node.children.get(keyOf(tokens, node.end, end));
  }

  #root(hybrid: Hybrid): Node {
    let root = this.#roots.get(hybrid.identity);
    if (root === undefined) {
      const hash = emptyPrefixHash(hybrid.identity);
      root = { parent: null, key: hybrid.identity, end: 0, hash, pages: [], children: new Map(), snapshots: new Set() };
      this.#roots.set(hybrid.identity, root);
    }
    return root;
  }

  /** The child that holds the next page of tokens; its pages are those computed first. */
  #grow(node: Node, tokens: readonly number[], pages: readonly number[]): Node {
    const end = node.end + this.limits.pageSize;
    const key = keyOf(tokens, node.end, end);
    let child = node.children.get(key);
    if (child === undefined) {
      const hash = extendPrefixHash(node.hash, tokens, node.end, end);
      child = { parent: node, key, end, hash, pages, children: new Map(), snapshots: new Set() };
      node.children.set(key, child);
      if (node.parent === null) this.#firstPages.set(key, (this.#firstPages.get(key) ?? 0) + 1);
      this.#pages.keep(pages);
    }
    return child;
  }

  /** Drops nodes from here up that no snapshot needs. */
  #prune(from: Node): void {
    let node: Node = from;
    while (node.snapshots.size === 0 && node.children.size === 0) {
      if (node.parent === null) {
        this.#roots.delete(node.key);
        return;
      }
      this.#pages.drop(node.pages);
      node.parent.children.delete(node.key);
      if (node.parent.parent === null) this.#forgetFirstPage(node.key);
      node = node.parent;
    }
  }

  #forgetFirstPage(key: string): void {
    const count = this.#firstPages.get(key)! - 1;
    if (count > 0) this.#firstPages.set(key, count);
    else this.#firstPages.delete(key);
  }

  #touch(snapshot: Snapshot): void {
    this.#snapshots.delete(snapshot);
    this.#snapshots.add(snapshot);
  }
}

/** The best that a node offers: a snapshot that fits, or, where no state is needed, its pages alone. */
function longest(node: Node, hybrid: Hybrid, tokens: readonly number[], limit: number): Match | null {
  const stateless = hybrid.slots.length === 0;
  let best: Match | null = stateless && node.end > 0 ? { node, position: node.end, snapshot: null } : null;
  for (const snapshot of node.snapshots) {
    const room = Math.min(snapshot.tail.length, limit - node.end);
    let same = 0;
    while (same < room && snapshot.tail[same] === tokens[node.end + same]) same++;
    // Keys and values of a token do not depend on later ones: without states a part of a tail serves as well.
    if (!stateless && same < snapshot.tail.length) continue;
    const position = node.end + same;
    if (position > (best?.position ?? 0)) best = { node, position, snapshot };
  }
  return best;
}

/** The pages of a node and of those above it, first tokens first. */
function pagesOf(node: Node): number[] {
  const blocks: (readonly number[])[] = [];
  for (let at: Node | null = node; at !== null; at = at.parent) blocks.push(at.pages);
  return blocks.reverse().flat();
}

/** The tokens up to the end of a node. */
function tokensOf(node: Node): number[] {
  const keys: string[] = [];
  for (let at: Node = node; at.parent !== null; at = at.parent) keys.push(at.key);
  return keys.reverse().flatMap((key) => key.split(",").map(Number));
}

function floatsOf({ slots, hybrid }: Snapshot): number {
  return slots.reduce((sum, _, i) => sum + hybrid.slots[i]!.floats, 0);
}

function keyOf(tokens: readonly number[], from: number, to: number): string {
  return tokens.slice(from, to).join();
}
