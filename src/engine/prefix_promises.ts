// Prefixes that running sequences are about to keep, and the waiting sequences for which waiting on one costs less than
// computing it anew. Each of these is looked at when its leader gets on, not at every step. Knows no queue.
import type { Sequence } from "./sequence.ts";

/** Who follows whom. */
export class PrefixPromises {
  /** Running sequences that will keep a prefix, each with those that wait for it. */
  readonly #followers = new Map<Sequence, Set<Sequence>>();
  readonly #leaders = new Map<Sequence, Sequence>();

  /** Waiting sequences that follow another. */
  get numFollowers(): number {
    return this.#leaders.size;
  }

  get followers(): Iterable<Sequence> {
    return this.#leaders.keys();
  }

  /** A sequence has begun, and keepAt says what it is going to keep. */
  announce(sequence: Sequence): void {
    if (sequence.keepAt.length > 0) this.#followers.set(sequence, new Set());
  }

  /** Makes a waiting sequence follow one that is about to keep a prefix of it, if there is any. */
  follow(sequence: Sequence): boolean {
    for (const [leader, followers] of this.#followers) {
      if (!leads(leader, sequence)) continue;
      followers.add(sequence);
      this.#leaders.set(sequence, leader);
      return true;
    }
    return false;
  }

  /** Whether it followed any. */
  unfollow(sequence: Sequence): boolean {
    const leader = this.#leaders.get(sequence);
    if (leader === undefined) return false;
    this.#followers.get(leader)!.delete(sequence);
    return this.#leaders.delete(sequence);
  }

  /** A leader has kept a prefix, or will keep none any more; those that followed it are to be looked at again. */
  release(leader: Sequence): Sequence[] {
    const released = [...(this.#followers.get(leader) ?? [])];
    for (const sequence of released) this.#leaders.delete(sequence);
    this.#followers.delete(leader);
    return released;
  }
}

function leads(leader: Sequence, sequence: Sequence): boolean {
  if (leader.hybrid.identity !== sequence.hybrid.identity) return false;
  // What scorings keep is lent to their own group. And nobody waits for one that others may hold back.
  if (leader.score !== null && leader.group !== sequence.group) return false;
  if (leader.priority > sequence.priority) return false;
  const position = leader.keepAt.findLast((at) => at <= sequence.outputFrom);
  if (position === undefined) return false;
  const common = commonTokens(leader.tokens, sequence.tokens, position);
  return leader.keepAt[0]! <= common;
}

function commonTokens(a: readonly number[], b: readonly number[], limit: number): number {
  let count = 0;
  while (count < limit && a[count] === b[count]) count++;
  return count;
}
