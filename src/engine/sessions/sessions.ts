// Saved sessions of one engine: what is kept of a prefix goes to a file and comes back, after a restart too, when a request
// begins with it. Used only where everything that decides its bits is the same; anything else is a miss with its reason,
// never an error of the request. All work is done in short turns between steps.
import { createHash } from "node:crypto";
import { isLoadable } from "../../../models/attention/mixer.ts";
import { RequestError } from "../../errors.ts";
import type { Copy } from "../batch.ts";
import type { Hybrid } from "../hybrid.ts";
import type { Place, PrefixSharing } from "../prefix_sharing.ts";
import type { Sequence } from "../sequence.ts";
import type { SessionCounts, SessionInfo } from "../types.ts";
import { prefixHashes, SESSION_VERSION, type SessionHeader } from "./format.ts";
import { readSections, SessionStore, type StoredSession } from "./session_store.ts";

/** The memory behind pages and slots. */
export interface SessionMemory {
  /** Bytes of one page, k and v. */
  readonly pageBytes: number;
  copy(copy: Copy): void;
  readPage(page: number, out: Uint8Array): void;
  writePage(page: number, bytes: Uint8Array): void;
  readSlot(slot: number, floats: number, out: Uint8Array): void;
  writeSlot(slot: number, floats: number, bytes: Uint8Array): void;
}

/** What saved sessions work with. */
export interface SessionsParts {
  readonly store: SessionStore;
  readonly sharing: PrefixSharing;
  readonly memory: SessionMemory;
  /** All that decides the bits of a state but for the mixers. */
  readonly identity: Readonly<Record<string, string>>;
  readonly pageSize: number;
  /** Awaited before each piece of work that holds up the thread. */
  readonly turn: () => Promise<void>;
}

/** Bytes handled in one turn. */
const PIECE_BYTES = 256 << 10;

export class Sessions {
  readonly #parts: SessionsParts;
  /** Restores under way, by session. */
  readonly #restoring = new Map<string, Promise<void>>();
  readonly counts: SessionCounts = {
    saved: 0,
    restored: 0,
    restoredTokens: 0,
    failed: { damaged: 0, no_room: 0, gone: 0 },
  };

  constructor(parts: SessionsParts) {
    this.#parts = parts;
  }

  list(): SessionInfo[] {
    return this.#parts.store.list().map((session) => this.#info(session));
  }

  remove(id: string): boolean {
    return this.#parts.store.remove(id);
  }

  /** Writes the longest kept prefix of these tokens to a file. @throws RequestError where nothing is kept of them */
  async save(hybrid: Hybrid, tokens: readonly number[]): Promise<SessionInfo> {
    const { sharing, store, turn } = this.#parts;
    await turn();
    const identity = this.#identityOf(hybrid);
    const place = identity === null ? null : sharing.borrow(hybrid, tokens);
    if (identity === null || place === null) {
      throw new RequestError(
        "nothing_cached",
        "Cannot save the session: the prefix cache holds nothing of these tokens",
      );
    }
    try {
      const prefix = prefixHashes(tokens, [place.position])[0]!;
      const present = store.get(SessionStore.idOf(identity, prefix));
      if (present !== null) store.touch(present);
      const saved = present ?? (await this.#write(hybrid, tokens.slice(0, place.position), place, identity, prefix));
      if (present === null) this.counts.saved++;
      return this.#info(saved);
    } finally {
      sharing.giveBack(place);
    }
  }

  /** Saves what is kept, the most recently used first, as far as the folder has room; answers how many prefixes. */
  async saveAll(): Promise<number> {
    const { store, sharing } = this.#parts;
    let [saved, bytes, largest] = [0, 0, 0];
    for (const { hybrid, tokens } of sharing.cache.prefixes()) {
      // What is saved first must not leave for what is saved later.
      if (bytes + largest > store.maxBytes) break;
      try {
        const info = await this.save(hybrid, tokens);
        bytes += info.bytes;
        largest = Math.max(largest, info.bytes);
        saved++;
      } catch (error) {
        // One that is too large, or was dropped meanwhile, does not hinder the others.
        if (!(error instanceof RequestError)) throw error;
      }
    }
    return saved;
  }

  /** Brings back a saved prefix that is longer than what is cached; resolves when it is there or cannot be. Null: none. */
  seek(sequence: Sequence): Promise<void> | null {
    const { store, sharing, pageSize } = this.#parts;
    const { hybrid, tokens, outputFrom } = sequence;
    const identity = this.#identityOf(hybrid);
    const session = identity === null ? null : store.find(identity, tokens, outputFrom);
    if (session === null) return null;
    const cached = sharing.cache.find(hybrid, tokens, outputFrom)?.position ?? 0;
    if (session.header.position < cached + pageSize) return null;
    let restoring = this.#restoring.get(session.id);
    if (restoring === undefined) {
      restoring = this.#restore(session, hybrid, tokens.slice(0, session.header.position));
      this.#restoring.set(session.id, restoring);
    }
    return restoring;
  }

  async #restore(session: StoredSession, hybrid: Hybrid, tokens: readonly number[]): Promise<void> {
    const { store, sharing, turn } = this.#parts;
    let place: Place | null = null;
    try {
      await turn();
      place = sharing.room(hybrid, session.header.position);
      if (place === null) {
        this.counts.failed.no_room++;
        return;
      }
      // Its slots may be others' of a moment ago, which a copy still reads or writes.
      this.#settle();
      await this.#read(session, hybrid, tokens, place);
      // Weights that left meanwhile have taken what was cached with them.
      if (!hybrid.mixers.every((mixer) => !isLoadable(mixer) || mixer.loaded)) return;
      sharing.adopt(hybrid, tokens, place);
      place = null;
      store.touch(session);
      this.counts.restored++;
      this.counts.restoredTokens += tokens.length;
    } catch (error) {
      this.#unreadable(session, error);
    } finally {
      if (place !== null) sharing.discard(hybrid, place);
      this.#restoring.delete(session.id);
    }
  }

  /** Drops a session whose file is broken or missing; the end of the engine, or a busy disk, says nothing of the file. */
  #unreadable({ id }: StoredSession, error: unknown): void {
    const damaged = error instanceof RangeError;
    this.counts.failed[damaged ? "damaged" : "gone"]++;
    if (!damaged && (error as { code?: unknown }).code !== "ENOENT") return;
    try {
      this.#parts.store.remove(id);
    } catch {
      // A folder that cannot be written; the store has forgotten the session all the same.
    }
  }

  /** Does the copies that were ordered, so that states and pages are as the last step left them. */
  #settle(): void {
    for (const copy of this.#parts.sharing.takeCopies()) this.#parts.memory.copy(copy);
  }

  #write(
    hybrid: Hybrid,
    tokens: readonly number[],
    place: Place,
    identity: Readonly<Record<string, string>>,
    prefix: string,
  ): Promise<StoredSession> {
    const { memory, turn, store } = this.#parts;
    this.#settle();
    // The slots may go to others meanwhile; pages are held.
    const states = place.slots.map((slot, i) => {
      const { floats } = hybrid.slots[i]!;
      const bytes = new Uint8Array(4 * floats);
      memory.readSlot(slot, floats, bytes);
      return bytes;
    });
    const ids = new Uint8Array(Int32Array.from(tokens).buffer);
    const section = (bytes: number) => ({ bytes, sha256: "" });
    const header: SessionHeader = {
      version: SESSION_VERSION,
      identity,
      hybrid: hybrid.name,
      position: tokens.length,
      prefix,
      createdAt: Date.now(),
      sections: {
        tokens: section(ids.length),
        states: section(states.reduce((sum, { length }) => sum + length, 0)),
        pages: section(place.pages.length * memory.pageBytes),
      },
    };
    return store.write(header, {
      tokens: () => inTurns([ids], turn),
      states: () => inTurns(states, turn),
      pages: () => pagesInTurns(place.pages, memory, turn),
    });
  }

  /** Fills the place of a prefix. @throws RangeError where the file is not what was saved */
  async #read(session: StoredSession, hybrid: Hybrid, tokens: readonly number[], place: Place): Promise<void> {
    const { memory, turn } = this.#parts;
    const { sections } = session.header;
    const floats = hybrid.slots.map((slot) => slot.floats);
    const expected = {
      tokens: 4 * tokens.length,
      states: 4 * floats.reduce((a, b) => a + b, 0),
      pages: place.pages.length * memory.pageBytes,
    };
    for (const name of ["tokens", "states", "pages"] as const) {
      if (sections[name].bytes !== expected[name]) throw new RangeError(`its ${name} have another size`);
    }
    const states = new Uint8Array(expected.states);
    const pageBytes = memory.pageBytes * Math.max(1, Math.floor(PIECE_BYTES / memory.pageBytes));
    const pieces = { tokens: Math.max(4, expected.tokens), states: PIECE_BYTES, pages: pageBytes };
    await readSections(session, pieces, async (name, piece, at) => {
      await turn();
      if (name === "tokens") requireTokens(piece, tokens);
      else if (name === "states") states.set(piece, at);
      else {
        for (let from = 0; from < piece.length; from += memory.pageBytes) {
          memory.writePage(place.pages[(at + from) / memory.pageBytes]!, piece.subarray(from, from + memory.pageBytes));
        }
      }
    });
    let from = 0;
    place.slots.forEach((slot, i) => {
      memory.writeSlot(slot, floats[i]!, states.subarray(from, from + 4 * floats[i]!));
      from += 4 * floats[i]!;
    });
  }

  /** Null where a mixer's weights have no name that outlives the process. */
  #identityOf(hybrid: Hybrid): Readonly<Record<string, string>> | null {
    const names = hybrid.layers.map((variant, i) => {
      const mixer = hybrid.mixers[i]!;
      if (isLoadable(mixer)) return mixer.content;
      return variant === null ? "own" : null;
    });
    if (names.includes(null)) return null;
    return { ...this.#parts.identity, mixers: createHash("sha256").update(names.join()).digest("hex") };
  }

  #info({ id, header, bytes, lastUsed }: StoredSession): SessionInfo {
    const { identity } = this.#parts;
    const other = Object.keys(identity).filter((field) => header.identity[field] !== identity[field]);
    const problem = other.length === 0 ? null : `saved with other ${other.join(", ")}`;
    return {
      id,
      hybrid: header.hybrid,
      tokens: header.position,
      bytes,
      createdAt: header.createdAt,
      lastUsed,
      problem,
    };
  }
}

/** A collision of hashes must not pass. */
function requireTokens(piece: Uint8Array, tokens: readonly number[]): void {
  const saved = new Int32Array(piece.buffer, piece.byteOffset, tokens.length);
  if (!tokens.every((token, i) => token === saved[i])) throw new RangeError("its tokens are others");
}

async function* inTurns(parts: readonly Uint8Array[], turn: () => Promise<void>): AsyncGenerator<Uint8Array> {
  for (const bytes of parts) {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      await turn();
      yield bytes.subarray(at, at + PIECE_BYTES);
    }
  }
}

async function* pagesInTurns(
  pages: readonly number[],
  memory: SessionMemory,
  turn: () => Promise<void>,
): AsyncGenerator<Uint8Array> {
  const count = Math.max(1, Math.floor(PIECE_BYTES / memory.pageBytes));
  for (let at = 0; at < pages.length; at += count) {
    const part = pages.slice(at, at + count);
    const bytes = new Uint8Array(part.length * memory.pageBytes);
    await turn();
    part.forEach((page, i) => {
      memory.readPage(page, bytes.subarray(i * memory.pageBytes, (i + 1) * memory.pageBytes));
    });
    yield bytes;
  }
}
