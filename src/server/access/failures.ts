// Slows guessing of keys: an address that failed too often is not listened to for a while. Knows no key.

import { Bucket } from "./bucket.ts";

/** Addresses remembered at once; the one that was quiet longest is forgotten first. */
const MAX_ADDRESSES = 10_000;

interface Visitor {
  readonly failures: Bucket;
  /** Keys that this address has shown to hold: behind a shared address the honest are not shut out with a guesser. */
  readonly proven: Set<string>;
}

/** Counts failed authentications by address. */
export class FailureGuard {
  readonly #perMinute: number;
  readonly #visitors = new Map<string, Visitor>();

  /** @param perMinute failures an address may have per minute, and at once after a quiet minute */
  constructor(perMinute: number) {
    this.#perMinute = perMinute;
  }

  /**
   * Seconds for which this address is not told whether its key is right; 0 when it may try.
   * @param name of the key that it gave, or null for a wrong one
   */
  waitSeconds(address: string, name: string | null, now: number): number {
    const visitor = this.#visitors.get(networkOf(address));
    if (visitor === undefined || (name !== null && visitor.proven.has(name))) return 0;
    return visitor.failures.secondsUntil(1, now);
  }

  failed(address: string, now: number): void {
    this.#visitor(address, now).failures.take(1, now);
  }

  succeeded(address: string, name: string, now: number): void {
    this.#visitor(address, now).proven.add(name);
  }

  #visitor(address: string, now: number): Visitor {
    const network = networkOf(address);
    const visitor = this.#visitors.get(network) ?? {
      failures: new Bucket(this.#perMinute, now),
      proven: new Set<string>(),
    };
    this.#visitors.delete(network);
    this.#visitors.set(network, visitor);
    if (this.#visitors.size > MAX_ADDRESSES) this.#visitors.delete(this.#visitors.keys().next().value!);
    return visitor;
  }
}

/** One customer's share of IPv6 is a /64: its single addresses cost a guesser nothing. */
function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  if (!address.includes(":")) return address;
  const [front = "", back = ""] = address.toLowerCase().split("::");
  const groups = front.split(":").filter((group) => group !== "");
  const missing = 8 - groups.length - back.split(":").filter((group) => group !== "").length;
  const whole = address.includes("::") ? [...groups, ...Array(missing).fill("0"), ...back.split(":")] : groups;
  return `${whole.slice(0, 4).join(":")}::/64`;
}
