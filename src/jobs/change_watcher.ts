// Tells waiting readers that the store changed, by other processes (seen by polling its version) or by this one.
// Polls only while somebody waits; does not know what changed.

import type { Store } from "../store/database.ts";

const POLL_INTERVAL_MS = 200;

/** Wakes its waiters after every commit that they may not have seen. */
export class ChangeWatcher {
  readonly #store: Store;
  readonly #waiters = new Set<() => void>();
  #timer: ReturnType<typeof setInterval> | null = null;
  #version: number;

  constructor(store: Store) {
    this.#store = store;
    this.#version = store.foreignVersion();
  }

  /** This process changed something. */
  notify(): void {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    this.#stopPolling();
    for (const wake of waiters) wake();
  }

  /** Resolves at the next change, after `timeoutMs`, or when `signal` aborts, whichever is first. */
  wait(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiters.delete(wake);
        clearTimeout(timeout);
        signal?.removeEventListener("abort", wake);
        if (this.#waiters.size === 0) this.#stopPolling();
        resolve();
      };
      const timeout = setTimeout(wake, timeoutMs);
      signal?.addEventListener("abort", wake, { once: true });
      this.#waiters.add(wake);
      this.#timer ??= setInterval(() => this.#poll(), POLL_INTERVAL_MS);
    });
  }

  /** Wakes everyone and stops. */
  close(): void {
    this.notify();
  }

  #poll(): void {
    const version = this.#store.foreignVersion();
    if (version === this.#version) return;
    this.#version = version;
    this.notify();
  }

  #stopPolling(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }
}
