// Who may use the server: finds a request's key, checks its scope and begins its account. Deny by default.
// Reads keys from memory only; key_source.ts keeps them up to date.

import { HttpError } from "../errors.ts";
import { Account } from "./account.ts";
import { FailureGuard } from "./failures.ts";
import { type ApiKey, findKey, type KeyLimits } from "./key_file.ts";
import { covers, neededScope } from "./scopes.ts";

/** Failed authentications that one address may have per minute. */
const FAILURES_PER_MINUTE = 30;

/** An admitted request: whose it is, and what ends it. */
export interface Admission {
  /** Name of the key; null where no key is asked for. */
  readonly name: string | null;
  /** Rate limit headers of now. */
  headers(): [string, string][];
  /** The request is over and has used so many tokens; called once. */
  end(tokens: number): void;
}

const UNLIMITED: Admission = { name: null, headers: () => [], end: () => {} };

/** The keys of a server and what has been used of their limits. */
export class Access {
  readonly #now: () => number;
  readonly #failures = new FailureGuard(FAILURES_PER_MINUTE);
  readonly #accounts = new Map<string, Account>();
  /** What everybody shares where no key is asked for. */
  readonly #anonymous: Account;
  #keys: readonly ApiKey[] | null = null;

  /**
   * @param limits of a server without keys; with keys each has its own
   * @param now milliseconds of a clock that never goes back
   */
  constructor(limits: KeyLimits, now: () => number = () => performance.now()) {
    this.#now = now;
    this.#anonymous = new Account("anonymous", limits, now());
  }

  /** From now on exactly these keys count; an empty list lets nobody in. */
  setKeys(keys: readonly ApiKey[]): void {
    const now = this.#now();
    this.#keys = keys;
    for (const { name, limits } of keys) {
      const account = this.#accounts.get(name);
      if (account === undefined) this.#accounts.set(name, new Account(name, limits, now));
      else account.setLimits(limits, now);
    }
  }

  /** Whether a key is asked for. */
  get restricted(): boolean {
    return this.#keys !== null;
  }

  /** @throws HttpError 401, 403 or 429 when the request must not go further */
  admit(request: Request, path: string, address: string): Admission {
    const needed = neededScope(request.method, path);
    if (needed === "none") return UNLIMITED;
    if (this.#keys === null) return this.#begin(this.#anonymous, null);
    const key = this.#authenticate(this.#keys, request, address);
    if (!covers(key.scope, needed)) {
      throw new HttpError(403, "insufficient_scope", `This key may not do that: scope "${needed}" is needed`);
    }
    return this.#begin(this.#accounts.get(key.name)!, key.name);
  }

  #authenticate(keys: readonly ApiKey[], request: Request, address: string): ApiKey {
    const now = this.#now();
    const given = /^Bearer +(\S+)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
    if (given === undefined) {
      throw new HttpError(401, "invalid_api_key", "An API key is required, as header Authorization: Bearer KEY");
    }
    const key = findKey(keys, given);
    const wait = Math.ceil(this.#failures.waitSeconds(address, key?.name ?? null, now));
    if (wait > 0) {
      throw new HttpError(429, "too_many_failures", `Too many wrong API keys; try again in ${wait} s`, null, wait);
    }
    if (key === null) {
      this.#failures.failed(address, now);
      throw new HttpError(401, "invalid_api_key", "The API key is wrong");
    }
    this.#failures.succeeded(address, key.name, now);
    return key;
  }

  #begin(account: Account, name: string | null): Admission {
    const end = account.begin(this.#now());
    return {
      name,
      headers: () => account.headers(this.#now()),
      end: (tokens) => end(tokens, this.#now()),
    };
  }
}
