// The file of a saved session: a header that says what exactly its states belong to, then the tokens, the recurrent states
// and the KV pages, each under a checksum. Bytes only; knows neither where files lie nor what the states mean.
import { createHash } from "node:crypto";

/** A reader of another version must not guess. */
export const SESSION_VERSION = 1;

/** Parts of a file, in their order. */
export const SECTIONS = ["tokens", "states", "pages"] as const;
export type Section = (typeof SECTIONS)[number];

/** What a file says of itself. */
export interface SessionHeader {
  readonly version: number;
  /** All that decides which bits a state holds: backbone, mixers, kernels, dtypes, page size. Compared whole. */
  readonly identity: Readonly<Record<string, string>>;
  /** Name of the hybrid when it was saved, for lists only. */
  readonly hybrid: string;
  /** Tokens that the states have seen. */
  readonly position: number;
  /** sha256 of these tokens. */
  readonly prefix: string;
  /** Milliseconds since 1970. */
  readonly createdAt: number;
  readonly sections: Readonly<Record<Section, { readonly bytes: number; readonly sha256: string }>>;
}

const MAGIC = new TextEncoder().encode("GRAFTSES");
const PREAMBLE_BYTES = MAGIC.length + 4 + 32;
const MAX_HEADER_BYTES = 1 << 20;

/** The header as it stands at the beginning of a file; its length does not depend on the checksums. */
export function encodeHeader(header: SessionHeader): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(PREAMBLE_BYTES + json.length);
  bytes.set(MAGIC);
  new DataView(bytes.buffer).setUint32(MAGIC.length, json.length, true);
  bytes.set(createHash("sha256").update(json).digest(), MAGIC.length + 4);
  bytes.set(json, PREAMBLE_BYTES);
  return bytes;
}

/** Reads the header with `read`, which fills a buffer from a place in the file. @throws RangeError saying what is wrong */
export function decodeHeader(
  fileBytes: number,
  read: (out: Uint8Array, at: number) => void,
): { header: SessionHeader; bytes: number } {
  if (fileBytes < PREAMBLE_BYTES) throw new RangeError("the file is cut off");
  const preamble = new Uint8Array(PREAMBLE_BYTES);
  read(preamble, 0);
  if (!MAGIC.every((byte, i) => preamble[i] === byte)) throw new RangeError("it is no saved session");
  const length = new DataView(preamble.buffer).getUint32(MAGIC.length, true);
  if (length > Math.min(MAX_HEADER_BYTES, fileBytes - PREAMBLE_BYTES)) throw new RangeError("the header is damaged");
  const json = new Uint8Array(length);
  read(json, PREAMBLE_BYTES);
  const sum = createHash("sha256").update(json).digest();
  if (!sum.every((byte, i) => preamble[MAGIC.length + 4 + i] === byte)) throw new RangeError("the header is damaged");
  // Under its checksum it is what encodeHeader() wrote, perhaps of another version.
  const header = JSON.parse(new TextDecoder().decode(json)) as SessionHeader;
  if (header.version !== SESSION_VERSION) {
    throw new RangeError(`it is of format version ${header.version}, expected ${SESSION_VERSION}`);
  }
  const bytes = PREAMBLE_BYTES + length;
  const whole = SECTIONS.reduce((sum, name) => sum + header.sections[name].bytes, bytes);
  if (whole !== fileBytes) throw new RangeError(`it has ${fileBytes} bytes, expected ${whole}`);
  return { header, bytes };
}

/** The name of all that decides which bits a state holds. */
export function identityKey(identity: Readonly<Record<string, string>>): string {
  const fields = Object.entries(identity).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash("sha256").update(JSON.stringify(fields)).digest("hex");
}

/** sha256 of each prefix of `tokens` whose length stands in `lengths`, which ascend. */
export function prefixHashes(tokens: readonly number[], lengths: readonly number[]): string[] {
  const bytes = Int32Array.from(tokens);
  const hash = createHash("sha256");
  let done = 0;
  return lengths.map((length) => {
    hash.update(new Uint8Array(bytes.buffer, 4 * done, 4 * (length - done)));
    done = length;
    return hash.copy().digest("hex");
  });
}
