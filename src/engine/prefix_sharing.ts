// What sequences may begin with and what is kept of them: finds a prefix in the cache, orders the copies that make it a
// sequence's own, and says where prompts are cut so that a state can be kept there. Knows no queue and no budget.
import type { Copy } from "./batch.ts";
import type { Hybrid } from "./hybrid.ts";
import type { PagePool } from "./page_pool.ts";
import { type Hit, PrefixCache, type PrefixCacheLimits, type Snapshot } from "./prefix_cache.ts";
import { PREFIX_OUTCOMES, type PrefixOutcome } from "./prefix_outcome.ts";
import type { Sequence, ShareGroup } from "./sequence.ts";
import type { StatePool } from "./state_pool.ts";

/** What may be kept, and how often. */
export interface SharingLimits extends PrefixCacheLimits {
  /** States are kept every so many tokens, a multiple of pageSize. */
  readonly snapshotTokens: number;
}

/** Pages and slots of one prefix; page of full layer f and token block j at [j * numFull + f]. */
export interface Place {
  readonly position: number;
  readonly pages: number[];
  readonly slots: readonly number[];
}

/** Scorings share a context from this many tokens on: below it an extra step costs more than it saves. */
const MIN_SHARED_CONTEXT = 8;
/** A state is not worth a step of its own where so few tokens lie between it and the one before. */
const MIN_APART = 16;
/** Message boundaries that one sequence keeps states at: the first, which a system prompt may share, and the last ones. */
const MAX_BOUNDARIES = 4;

/** Prefix reuse as the scheduler sees it: one per engine, over its two pools. */
export class PrefixSharing {
  readonly cache: PrefixCache;
  readonly #limits: SharingLimits;
  readonly #pages: PagePool;
  readonly #states: StatePool;
  readonly #groups = new Map<string, ShareGroup>();
  #copies: Copy[] = [];
  /** Generations that began, by what the cache had for them. */
  readonly outcomes = Object.fromEntries(PREFIX_OUTCOMES.map((outcome) => [outcome, 0])) as Record<
    PrefixOutcome,
    number
  >;
  /** Prompt tokens looked up, and found. */
  queryTokens = 0;
  hitTokens = 0;

  constructor(pages: PagePool, states: StatePool, limits: SharingLimits) {
    this.#pages = pages;
    this.#states = states;
    this.#limits = limits;
    this.cache = new PrefixCache(pages, states, limits);
  }

  /** Whether copies have been ordered since takeCopies(). */
  get hasCopies(): boolean {
    return this.#copies.length > 0;
  }

  /** The copies ordered since the last call; they must be done before whatever is computed next. */
  takeCopies(): Copy[] {
    const copies = this.#copies;
    this.#copies = [];
    return copies;
  }

  /** After a fault nothing is known about what copies were done: all that was kept is dropped. */
  forget(): void {
    this.#copies = [];
    this.cache.clear();
  }

  /** The longest kept prefix of these tokens; its pages stay until giveBack(), its slots until the next call of anything. */
  borrow(hybrid: Hybrid, tokens: readonly number[]): Place | null {
    const hit = this.cache.find(hybrid, tokens, tokens.length);
    if (hit === null) return null;
    const pages: number[] = [];
    this.#pages.share([...hit.pages, ...hit.tailPages], pages);
    return { position: hit.position, pages, slots: hit.slots };
  }

  giveBack({ pages }: Place): void {
    this.#pages.give(pages);
  }

  /** Room for a prefix that was computed elsewhere, to be filled and given to adopt() or discard(); null where there is none. */
  room(hybrid: Hybrid, position: number): Place | null {
    const pages: number[] = [];
    const slots: number[] = [];
    const count = Math.ceil(position / this.#limits.pageSize) * hybrid.numFull;
    if (this.takePages(count, pages) && this.#takeSlots(hybrid, slots, null)) return { position, pages, slots };
    this.#pages.give(pages);
    return null;
  }

  /** Keeps a prefix in whose place its pages and states have been put. */
  adopt(hybrid: Hybrid, tokens: readonly number[], place: Place): void {
    const { position, pages, slots } = place;
    if (this.cache.insert(hybrid, tokens, position, pages, slots) === null) this.#giveSlots(hybrid, slots);
    this.#pages.give(pages);
    this.cache.trim();
  }

  discard(hybrid: Hybrid, { pages, slots }: Place): void {
    this.#giveSlots(hybrid, slots);
    this.#pages.give(pages);
  }

  /** A sequence has joined the queue. */
  join(sequence: Sequence): void {
    const { score, hybrid, tokens } = sequence;
    if (score === null || score.from <= MIN_SHARED_CONTEXT) return;
    const key = `${hybrid.identity}:${tokens.slice(0, score.from).join()}`;
    const group = this.#groups.get(key) ?? { key, waiting: 0, snapshot: null };
    this.#groups.set(key, group);
    group.waiting++;
    sequence.group = group;
  }

  /** A sequence begins, or ends without having begun; what is lent to its group goes with the last of them. */
  leave(sequence: Sequence): void {
    const { group } = sequence;
    if (group === null || sequence.cachedTokens >= 0 || --group.waiting > 0) return;
    this.#groups.delete(group.key);
    if (group.snapshot !== null) this.cache.remove(group.snapshot);
  }

  /**
   * Gives a waiting sequence its state slots, and the longest cached prefix with them; the one admission rule: pages for
   * `numPages` in all must be free or kept by the cache alone. False: nothing has changed.
   */
  begin(sequence: Sequence, numPages: number): boolean {
    const hit = this.cache.find(sequence.hybrid, sequence.tokens, sequence.outputFrom);
    const begun = (hit !== null && this.#place(sequence, numPages, hit)) || this.#place(sequence, numPages, null);
    if (!begun) return false;
    this.leave(sequence);
    if (sequence.cachedTokens < 0) {
      sequence.cachedTokens = sequence.numComputed;
      this.#count(sequence);
    }
    sequence.keepAt = this.#keepAt(sequence);
    return true;
  }

  /** Free pages, appended to `pages`; drops what the cache keeps until there are enough. */
  takePages(count: number, pages: number[], pinned: Snapshot | null = null): boolean {
    if (count > this.#pages.numAvailable) return false;
    while (!this.#pages.take(count, pages)) if (!this.cache.evict(pinned)) return false;
    return true;
  }

  /** Where the next chunk of a sequence must end at the latest. */
  nextCut(sequence: Sequence): number {
    const { hybrid, keepAt, numComputed, score } = sequence;
    if (hybrid.slots.length === 0) return Number.POSITIVE_INFINITY;
    const planned = keepAt[0] ?? Number.POSITIVE_INFINITY;
    if (score !== null || !this.#enabled) return planned;
    const every = this.#limits.snapshotTokens;
    return Math.min(planned, (Math.floor(numComputed / every) + 1) * every);
  }

  /** A chunk has been computed, up to where the sequence stands now. Whether that kept a prefix which others may await. */
  computed(sequence: Sequence): boolean {
    const { hybrid, keepAt, numComputed, score } = sequence;
    let position = -1;
    while (keepAt[0]! <= numComputed) position = keepAt.shift()!;
    if (position >= 0) this.#keep(sequence, position);
    else if (this.#enabled && score === null && hybrid.slots.length > 0) {
      if (numComputed % this.#limits.snapshotTokens === 0) this.#keep(sequence, numComputed);
    }
    return position >= 0;
  }

  /** Keeps all that a sequence has computed, its state slots included: it ends here. */
  inherit(sequence: Sequence): void {
    const { hybrid, tokens, numComputed, pages, stateSlots, score } = sequence;
    if (!this.#enabled || score !== null || numComputed < this.#limits.pageSize) return;
    if (this.cache.insert(hybrid, tokens, numComputed, pages, stateSlots) !== null) stateSlots.length = 0;
    this.cache.trim();
  }

  get #enabled(): boolean {
    return this.#limits.cacheBytes > 0;
  }

  #count({ score, numPrompt, cachedTokens, hybrid, tokens, outputFrom }: Sequence): void {
    if (score !== null) return;
    if (!this.#enabled) {
      this.outcomes.disabled++;
      return;
    }
    this.queryTokens += numPrompt;
    this.hitTokens += cachedTokens;
    if (cachedTokens > 0) this.outcomes.hit++;
    else if (outputFrom < this.#limits.pageSize) this.outcomes.too_short++;
    else this.outcomes[this.cache.explain(hybrid, tokens, outputFrom)]++;
  }

  /** Where a sequence that begins now is to keep its prefix. */
  #keepAt(sequence: Sequence): number[] {
    const { score, group, numComputed, numPrompt, boundaries } = sequence;
    // The last token is left out: whoever begins with this prefix needs the logits behind it.
    const end = (score === null ? numPrompt : score.from) - 1;
    if (score !== null) {
      return group !== null && group.waiting > 0 && end - numComputed >= MIN_SHARED_CONTEXT - 1 ? [end] : [];
    }
    const { pageSize } = this.#limits;
    if (!this.#enabled) return [];
    const kept: number[] = [];
    for (const at of boundaries) {
      const before = kept.at(-1) ?? numComputed;
      if (at >= pageSize && at <= end && at - before >= MIN_APART) kept.push(at);
    }
    if (kept.length > MAX_BOUNDARIES) kept.splice(1, kept.length - MAX_BOUNDARIES);
    const apart = kept.length > 0 ? MIN_APART : pageSize;
    if (end - (kept.at(-1) ?? numComputed) >= apart) kept.push(end);
    return kept;
  }

  #place(sequence: Sequence, numPages: number, hit: Hit | null): boolean {
    const { pages, stateSlots, hybrid } = sequence;
    const pinned = hit?.snapshot ?? null;
    if (hit !== null) this.#pages.share(hit.pages, pages);
    const placed =
      numPages - pages.length <= this.#pages.numAvailable &&
      this.#takeSlots(hybrid, stateSlots, pinned) &&
      this.takePages(hit?.tailPages.length ?? 0, pages, pinned);
    if (!placed) {
      this.#pages.give(pages);
      this.#giveSlots(hybrid, stateSlots);
      stateSlots.length = 0;
      return false;
    }
    if (hit === null) {
      sequence.numComputed = sequence.assumed;
      return true;
    }
    hit.tailPages.forEach((from, i) => {
      this.#copies.push({ kind: "page", from, to: pages[hit.pages.length + i]! });
    });
    this.#copySlots(sequence, hit.slots, stateSlots);
    sequence.numComputed = hit.position;
    return true;
  }

  /** Drops what the cache keeps only where the slots can then be had, but for scattered free room. */
  #takeSlots(hybrid: Hybrid, slots: number[], pinned: Snapshot | null): boolean {
    if (hybrid.slotFloats > this.#states.numFloats - this.#states.floatsUsed + this.cache.stateFloats) return false;
    while (!this.#states.takeAll(hybrid.slots, slots)) if (!this.cache.evict(pinned)) return false;
    return true;
  }

  #keep(sequence: Sequence, position: number): void {
    const { hybrid, tokens, pages, stateSlots, score, group } = sequence;
    const transient = score !== null;
    if (transient && (group === null || group.waiting === 0)) return;
    const slots: number[] = [];
    if (!this.#takeSlots(hybrid, slots, null)) return;
    const snapshot = this.cache.insert(hybrid, tokens, position, pages, slots, transient);
    if (snapshot === null) {
      this.#giveSlots(hybrid, slots);
      return;
    }
    this.#copySlots(sequence, stateSlots, slots);
    if (transient) group!.snapshot = snapshot;
    else this.cache.trim();
  }

  #giveSlots(hybrid: Hybrid, slots: readonly number[]): void {
    slots.forEach((slot, i) => {
      this.#states.give(slot, hybrid.slots[i]!.floats);
    });
  }

  #copySlots({ hybrid }: Sequence, from: readonly number[], to: readonly number[]): void {
    hybrid.slots.forEach(({ floats }, i) => {
      this.#copies.push({ kind: "slot", from: from[i]!, to: to[i]!, floats });
    });
  }
}
