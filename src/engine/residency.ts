// Which hybrids' counterparts are in memory: loaded when a sequence or an operator wants them, kept while one runs, and
// given up after a time of rest, for room, or when asked to. A layer stays while any hybrid in memory runs it.
// Knows mixers that can be loaded and who waits for them; neither queue nor files.
import { isLoadable, type LoadableMixer } from "../../models/attention/mixer.ts";
import { DeviceLostError, RequestError } from "../errors.ts";
import type { Hybrid } from "./hybrid.ts";
import type { Residence } from "./types.ts";

/** How long hybrids stay, and in how much memory. */
export interface ResidencyLimits {
  /** Bytes of counterparts that may be in memory at once. */
  readonly maxBytes: number;
  /** How long a hybrid stays after its last use; Infinity = until the room is needed, 0 = not at all. */
  readonly keepAliveMs: number;
}

/** What a residency tells the rest of the engine. */
export interface ResidencyParts {
  /** Awaited before each piece of loading. */
  readonly turn: () => Promise<void>;
  /** A hybrid of that identity has left the memory. */
  readonly left: (identity: string) => void;
}

/** Who wants a hybrid in memory. Exactly one of the two is called, once. */
export interface Waiter {
  ready(): void;
  failed(error: Error): void;
}

interface Resident {
  readonly identity: string;
  readonly name: string;
  readonly parts: readonly LoadableMixer[];
  state: "queued" | "loading" | "loaded";
  readonly waiting: Set<Waiter>;
  readonly users: Set<Waiter>;
  lastUsed: number;
  keepAliveMs: number;
  /** To leave when its last user does. */
  condemned: boolean;
  /** Counted among those that want its layers. */
  claimed: boolean;
  timer: ReturnType<typeof setTimeout> | null;
}

/** A timer takes no more. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Hybrids in memory, by the identity of their mixers: names that share a mask share its place. */
export class Residency {
  readonly #limits: ResidencyLimits;
  readonly #parts: ResidencyParts;
  readonly #residents = new Map<string, Resident>();
  /** Those to be loaded, first come first served. */
  readonly #queue: Resident[] = [];
  /** Residents that a layer is in memory for. */
  readonly #wanted = new Map<LoadableMixer, number>();
  #loading = false;
  #closed = false;
  #loads = 0;
  #unloads = 0;

  constructor(limits: ResidencyLimits, parts: ResidencyParts) {
    this.#limits = limits;
    this.#parts = parts;
  }

  /** Hybrids loaded and given up since the start. */
  get counts(): { loads: number; unloads: number } {
    return { loads: this.#loads, unloads: this.#unloads };
  }

  /** Bytes of counterparts in memory. */
  get bytes(): number {
    let bytes = 0;
    for (const part of this.#wanted.keys()) bytes += part.weightBytes();
    return bytes;
  }

  /** Wants a hybrid until release() with the same waiter; tells it at once where the hybrid is in memory. */
  hold(hybrid: Hybrid, waiter: Waiter): void {
    const parts = hybrid.mixers.filter(isLoadable);
    const needed = sum(parts.map((part) => part.bytes));
    if (parts.length === 0) waiter.ready();
    else if (needed > this.#limits.maxBytes) waiter.failed(tooLarge(hybrid.name, needed, this.#limits.maxBytes));
    else this.#want(hybrid, parts, waiter);
  }

  #want(hybrid: Hybrid, parts: readonly LoadableMixer[], waiter: Waiter): void {
    const resident = this.#residentOf(hybrid, parts);
    resident.condemned = false;
    resident.lastUsed = Date.now();
    this.#stopTimer(resident);
    // Where somebody waits for room, whoever comes later waits behind: else he might wait for ever.
    if (resident.state === "loaded" && !this.#starved) {
      resident.users.add(waiter);
      waiter.ready();
      return;
    }
    resident.waiting.add(waiter);
    if (!this.#queue.includes(resident)) this.#queue.push(resident);
    this.#pump();
  }

  /** No longer wants a hybrid; does nothing where it was not held. */
  release(hybrid: Hybrid, waiter: Waiter): void {
    const resident = this.#residents.get(hybrid.identity);
    if (resident === undefined) return;
    resident.waiting.delete(waiter);
    if (resident.users.delete(waiter)) resident.lastUsed = Date.now();
    this.#rest(resident);
    this.#pump();
  }

  /** Sets how long a hybrid in memory stays after its use, in place of the general time. */
  keep(hybrid: Hybrid, keepAliveMs: number): void {
    const resident = this.#residents.get(hybrid.identity);
    if (resident === undefined) return;
    resident.keepAliveMs = keepAliveMs;
    this.#rest(resident);
  }

  /** Gives a hybrid up, at once or when its last user leaves. False: it was not in memory. */
  unload(hybrid: Hybrid): boolean {
    const resident = this.#residents.get(hybrid.identity);
    if (resident === undefined) return false;
    resident.condemned = true;
    this.#rest(resident);
    this.#pump();
    return true;
  }

  /** Whether any hybrid that runs one of these mixers is in memory, or on its way there. */
  uses(mixers: ReadonlySet<unknown>): boolean {
    return [...this.#residents.values()].some(({ parts }) => parts.some((part) => mixers.has(part)));
  }

  /** Gives up all hybrids that run one of these mixers, each when its last user leaves. */
  retire(mixers: ReadonlySet<unknown>): void {
    for (const resident of [...this.#residents.values()]) {
      if (!resident.parts.some((part) => mixers.has(part))) continue;
      resident.condemned = true;
      this.#rest(resident);
    }
    this.#pump();
  }

  /** Where a hybrid's counterparts are. */
  residence(hybrid: Hybrid): Residence {
    const parts = hybrid.mixers.filter(isLoadable);
    const resident = this.#residents.get(hybrid.identity);
    const state = parts.length === 0 ? "loaded" : (resident?.state ?? "unloaded");
    const resting = resident !== undefined && this.#idle(resident) && Number.isFinite(resident.keepAliveMs);
    return {
      state: resident?.condemned === true ? "unloading" : state,
      loadedBytes: sum(parts.map((part) => part.weightBytes())),
      totalBytes: sum(parts.map((part) => part.bytes)),
      lastUsed: resident?.lastUsed ?? null,
      expiresAt: resting ? resident.lastUsed + resident.keepAliveMs : null,
    };
  }

  /** Frees everything; nobody may run any more. */
  close(): void {
    this.#closed = true;
    for (const resident of [...this.#residents.values()]) {
      this.#stopTimer(resident);
      for (const part of resident.parts) part.unload();
    }
    this.#residents.clear();
    this.#wanted.clear();
  }

  #residentOf(hybrid: Hybrid, parts: readonly LoadableMixer[]): Resident {
    const found = this.#residents.get(hybrid.identity);
    if (found !== undefined) return found;
    const resident: Resident = {
      identity: hybrid.identity,
      name: hybrid.name,
      parts,
      state: "queued",
      waiting: new Set(),
      users: new Set(),
      lastUsed: Date.now(),
      keepAliveMs: this.#limits.keepAliveMs,
      condemned: false,
      claimed: false,
      timer: null,
    };
    this.#residents.set(hybrid.identity, resident);
    return resident;
  }

  /** Whether the first in the queue cannot begin for want of room. */
  get #starved(): boolean {
    return this.#queue.length > 0 && !this.#loading;
  }

  /** Serves the queue as far as the room goes. */
  #pump(): void {
    while (!this.#loading) {
      const resident = this.#queue[0];
      if (resident === undefined) return;
      if (resident.waiting.size === 0) {
        this.#queue.shift();
        this.#rest(resident);
      } else if (resident.state === "loaded") {
        this.#queue.shift();
        this.#admit(resident);
      } else {
        this.#claim(resident);
        if (!this.#makeRoom(resident)) return;
        void this.#load(resident);
      }
    }
  }

  async #load(resident: Resident): Promise<void> {
    this.#loading = true;
    resident.state = "loading";
    let failure: Error | null = null;
    try {
      for (const part of resident.parts) await part.load(this.#parts.turn);
      this.#loads++;
    } catch (error) {
      failure = unavailable(resident.name, error);
    }
    this.#loading = false;
    if (this.#closed) for (const part of resident.parts) part.unload();
    this.#queue.splice(this.#queue.indexOf(resident), 1);
    resident.state = "loaded";
    if (failure === null) this.#admit(resident);
    else this.#refuse(resident, failure);
    this.#rest(resident);
    this.#pump();
  }

  #admit(resident: Resident): void {
    const waiters = [...resident.waiting];
    resident.waiting.clear();
    for (const waiter of waiters) resident.users.add(waiter);
    for (const waiter of waiters) waiter.ready();
  }

  #refuse(resident: Resident, error: Error): void {
    const waiters = [...resident.waiting];
    resident.waiting.clear();
    resident.condemned = true;
    for (const waiter of waiters) waiter.failed(error);
  }

  /** Gives up hybrids that nobody runs, the least recently used first, until this one's missing layers fit. */
  #makeRoom(resident: Resident): boolean {
    const missing = sum(resident.parts.map((part) => part.bytes - part.weightBytes()));
    const unused = [...this.#residents.values()]
      .filter((other) => other !== resident && other.state === "loaded" && other.users.size === 0)
      .sort((a, b) => a.lastUsed - b.lastUsed);
    for (const other of unused) {
      if (this.bytes + missing <= this.#limits.maxBytes) return true;
      this.#leave(other);
    }
    return this.bytes + missing <= this.#limits.maxBytes;
  }

  #idle(resident: Resident): boolean {
    return resident.users.size === 0 && resident.waiting.size === 0;
  }

  /** A hybrid that nobody uses leaves now or later. */
  #rest(resident: Resident): void {
    this.#stopTimer(resident);
    if (!this.#idle(resident) || this.#residents.get(resident.identity) !== resident) return;
    if (resident.state === "loading") return;
    const left = resident.lastUsed + resident.keepAliveMs - Date.now();
    if (resident.condemned || resident.state === "queued" || left <= 0) this.#leave(resident);
    else if (Number.isFinite(left)) {
      resident.timer = setTimeout(() => this.#rest(resident), Math.min(left, MAX_TIMER_MS));
      resident.timer.unref();
    }
  }

  /** Its layers go where no other hybrid wants them; who waits for it stays in the queue. */
  #leave(resident: Resident): void {
    this.#stopTimer(resident);
    if (resident.waiting.size === 0) this.#residents.delete(resident.identity);
    if (resident.state === "loaded") {
      this.#unloads++;
      this.#parts.left(resident.identity);
    }
    resident.state = "queued";
    if (!resident.claimed) return;
    resident.claimed = false;
    for (const part of resident.parts) {
      const others = this.#wanted.get(part)! - 1;
      if (others > 0) this.#wanted.set(part, others);
      else {
        this.#wanted.delete(part);
        part.unload();
      }
    }
  }

  /** From now on its layers are not freed, whoever else leaves. */
  #claim(resident: Resident): void {
    if (resident.claimed) return;
    resident.claimed = true;
    for (const part of resident.parts) this.#wanted.set(part, (this.#wanted.get(part) ?? 0) + 1);
  }

  #stopTimer(resident: Resident): void {
    if (resident.timer !== null) clearTimeout(resident.timer);
    resident.timer = null;
  }
}

/** The loss of the device is not the hybrid's: it ends more than this load. */
function unavailable(name: string, cause: unknown): Error {
  if (cause instanceof DeviceLostError) return cause;
  const why = cause instanceof Error ? cause.message : String(cause);
  return new RequestError("hybrid_unavailable", `Cannot load hybrid "${name}": ${why}`, { cause });
}

function tooLarge(name: string, needed: number, limit: number): RequestError {
  return new RequestError(
    "pool_memory",
    `Cannot load hybrid "${name}": its counterparts take ${needed} bytes, the limit is ${limit}`,
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
