// The keys a server knows: read from lines of text, found again in constant time. Holds digests only, so that no key can
// reach a log or an error. Knows no request.

import { createHash, timingSafeEqual } from "node:crypto";
import { RequestError } from "../../errors.ts";
import { SCOPES, type Scope } from "./scopes.ts";

/** What one key may use per minute and at once; null: no limit. */
export interface KeyLimits {
  readonly requestsPerMinute: number | null;
  readonly tokensPerMinute: number | null;
  readonly concurrent: number | null;
}

/** One key: whose it is and what it may do. */
export interface ApiKey {
  readonly name: string;
  /** SHA-256 of the key. */
  readonly digest: Buffer;
  readonly scope: Scope;
  readonly limits: KeyLimits;
}

export const NO_LIMITS: KeyLimits = { requestsPerMinute: null, tokensPerMinute: null, concurrent: null };

const NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/;
const KEY = /^[\x21-\x7e]{8,512}$/;
/** Options of a line, by the limit they set. */
const OPTIONS: Readonly<Record<string, keyof KeyLimits>> = {
  rpm: "requestsPerMinute",
  tpm: "tokensPerMinute",
  concurrent: "concurrent",
};

/**
 * Reads lines of `name key [scope] [rpm=N] [tpm=N] [concurrent=N]`; `#` begins a comment, scope is "user" unless given.
 * @param source named in errors; the words of a line never are, as one of them is a key
 * @throws RequestError with the number of the line
 */
export function parseKeys(text: string, source: string, defaults: KeyLimits): ApiKey[] {
  const keys: ApiKey[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const words = line.replace(/(^|\s)#.*$/, "").match(/\S+/g) ?? [];
    if (words.length === 0) continue;
    const refuse = (why: string) =>
      new RequestError("invalid_key_file", `Cannot read keys from ${source}: line ${index + 1} ${why}`);
    keys.push(parseLine(words, defaults, refuse));
  }
  return distinct(keys, source);
}

function parseLine(words: readonly string[], defaults: KeyLimits, refuse: (why: string) => Error): ApiKey {
  const [name = "", key, ...rest] = words;
  if (key === undefined) throw refuse("has no key, expected NAME KEY [SCOPE]");
  if (!NAME.test(name)) throw refuse("has an unusable name, expected at most 64 letters, digits and . _ @ -");
  if (!KEY.test(key)) throw refuse("has a key that is not 8 to 512 plain characters");
  const scope = rest[0] !== undefined && !rest[0].includes("=") ? rest.shift()! : "user";
  if (!isScope(scope)) throw refuse(`has an unknown scope, expected ${SCOPES.join(", ")}`);
  const limits: { -readonly [K in keyof KeyLimits]: number | null } = { ...defaults };
  for (const option of rest) {
    const [, word = "", digits = ""] = /^(\w+)=(\d{1,12})$/.exec(option) ?? [];
    const limit = Object.hasOwn(OPTIONS, word) ? OPTIONS[word] : undefined;
    if (limit === undefined) throw refuse("has an unknown option, expected rpm=N, tpm=N or concurrent=N");
    // 0 lifts a limit that the flags set for all keys.
    limits[limit] = Number(digits) === 0 ? null : Number(digits);
  }
  return { name, digest: digestOf(key), scope, limits };
}

function isScope(word: string): word is Scope {
  return (SCOPES as readonly string[]).includes(word);
}

function distinct(keys: ApiKey[], source: string): ApiKey[] {
  const names = new Set<string>();
  const digests = new Set<string>();
  for (const { name, digest } of keys) {
    const hex = digest.toString("hex");
    if (names.has(name)) throw new RequestError("invalid_key_file", `${source} gives one name to two keys`);
    if (digests.has(hex)) throw new RequestError("invalid_key_file", `${source} holds one key twice`);
    names.add(name);
    digests.add(hex);
  }
  return keys;
}

/** Keys given on the command line: unnamed, so they are numbered; they may do everything. */
export function plainKeys(keys: readonly string[], limits: KeyLimits): ApiKey[] {
  const named = keys.map((key, i): ApiKey => {
    if (!KEY.test(key)) {
      throw new RequestError("invalid_key", "Cannot use an API key: expected 8 to 512 plain characters");
    }
    return { name: keys.length === 1 ? "key" : `key-${i + 1}`, digest: digestOf(key), scope: "admin", limits };
  });
  return distinct(named, "The list of keys");
}

/**
 * The key that `given` is, or null. Compares digests with every key to the end, so that time tells neither whether nor
 * which nor how much of it was right.
 */
export function findKey(keys: readonly ApiKey[], given: string): ApiKey | null {
  const digest = digestOf(given);
  let found = -1;
  for (let i = 0; i < keys.length; i++) {
    const equal = Number(timingSafeEqual(keys[i]!.digest, digest));
    found = found * (1 - equal) + i * equal;
  }
  return found < 0 ? null : keys[found]!;
}

/** Equal lengths for the comparison, whatever was sent. */
function digestOf(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
