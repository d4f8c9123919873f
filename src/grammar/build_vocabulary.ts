// Prepares a vocabulary for masks: sorts its tokens and lays them out as trees. Takes a second for a large one, so
// servers do it in a thread of its own (background_vocabulary.ts).
import type { TokenTree, VocabularyData } from "./vocabulary.ts";

/** What a vocabulary is made of. */
export interface TokenSource {
  readonly vocabSize: number;
  /** Bytes of one id; null or empty for ids that are no text (special tokens, gaps): they are never allowed. */
  bytesOf(id: number): Uint8Array | null;
}

/** Longest token that is used; nobody has longer ones. */
const MAX_BYTES = 1000;
/** Characters of the tokens that count as plain words, the longer ones included. */
const PLAIN_LENGTHS = [24, 8];

/** All arrays are of their own, none shares its buffer. */
export function buildVocabulary(source: TokenSource): VocabularyData {
  const size = source.vocabSize;
  const bytes = Array.from({ length: size }, (_, id) => usable(source.bytesOf(id)));
  const { tokens, twins } = sortedTokens(bytes);
  const lengths = bytes.map((one) => (one === null ? Number.POSITIVE_INFINITY : plainLength(one)));
  const plain = PLAIN_LENGTHS.map((maxChars) => {
    const mask = new Uint32Array(Math.ceil(size / 32));
    lengths.forEach((length, id) => {
      if (length <= maxChars) mask[id >>> 5]! |= 1 << (id & 31);
    });
    return { maxChars, mask, others: treeOf(tokens.filter(({ id }) => lengths[id]! > maxChars)) };
  });
  return { size, tree: treeOf(tokens), plain, twins: Int32Array.from(twins), ...joined(bytes) };
}

function joined(list: readonly (Uint8Array | null)[]): Pick<VocabularyData, "bytes" | "byteAt"> {
  const byteAt = new Int32Array(list.length + 1);
  list.forEach((one, id) => {
    byteAt[id + 1] = byteAt[id]! + (one?.length ?? 0);
  });
  const bytes = new Uint8Array(byteAt.at(-1)!);
  list.forEach((one, id) => {
    if (one !== null) bytes.set(one, byteAt[id]!);
  });
  return { bytes, byteAt };
}

interface Token {
  readonly id: number;
  /** One character per byte. */
  readonly text: string;
}

function usable(bytes: Uint8Array | null): Uint8Array | null {
  return bytes === null || bytes.length === 0 || bytes.length > MAX_BYTES ? null : bytes;
}

/** Tokens in the order of their bytes, one of each spelling. */
function sortedTokens(bytes: readonly (Uint8Array | null)[]): { tokens: Token[]; twins: number[] } {
  const idOf = new Map<string, number>();
  const twins: number[] = [];
  bytes.forEach((one, id) => {
    if (one === null) return;
    const text = Buffer.from(one).toString("latin1");
    const first = idOf.get(text);
    if (first === undefined) idOf.set(text, id);
    else twins.push(first, id);
  });
  // Sorting plain strings is many times faster than sorting records.
  const tokens = [...idOf.keys()].sort().map((text): Token => ({ id: idOf.get(text)!, text }));
  return { tokens, twins };
}

function treeOf(tokens: readonly Token[]): TokenTree {
  const size = tokens.reduce(
    (sum, { text }, i) => sum + text.length - commonLength(tokens[i - 1]?.text ?? "", text),
    0,
  );
  const [byte, depth, token] = [new Uint8Array(size), new Uint16Array(size), new Int32Array(size).fill(-1)];
  let node = 0;
  let maxDepth = 0;
  tokens.forEach(({ id, text }, i) => {
    for (let at = commonLength(tokens[i - 1]?.text ?? "", text); at < text.length; at++) {
      byte[node] = text.charCodeAt(at);
      depth[node++] = at + 1;
    }
    token[node - 1] = id;
    maxDepth = Math.max(maxDepth, text.length);
  });
  return { byte, depth, skip: skips(depth), token, maxDepth };
}

function commonLength(a: string, b: string): number {
  let common = 0;
  while (common < a.length && a.charCodeAt(common) === b.charCodeAt(common)) common++;
  return common;
}

/** Per node, the next one that is as deep or less. */
function skips(depth: Uint16Array): Int32Array {
  const skip = new Int32Array(depth.length).fill(depth.length);
  const open: number[] = [];
  depth.forEach((own, node) => {
    while (open.length > 0 && depth[open.at(-1)!]! >= own) skip[open.pop()!] = node;
    open.push(node);
  });
  return skip;
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Characters of a token that stands for itself inside a JSON string; infinite for others. */
function plainLength(bytes: Uint8Array): number {
  let characters = 0;
  let isAscii = true;
  for (const byte of bytes) {
    if (byte < 0x20 || byte === 0x22 || byte === 0x5c) return Number.POSITIVE_INFINITY;
    // Bytes that only continue a character do not count.
    if ((byte & 0xc0) !== 0x80) characters++;
    if (byte >= 0x80) isAscii = false;
  }
  if (isAscii) return characters;
  try {
    decoder.decode(bytes);
    return characters;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
