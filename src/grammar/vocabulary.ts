// The bytes of every token of a vocabulary, as a tree that is walked to find which tokens may come next. Built once per model.

/** What a vocabulary is made of. */
export interface TokenSource {
  readonly vocabSize: number;
  /** Bytes of one id; null or empty for ids that are no text (special tokens, gaps): they are never allowed. */
  bytesOf(id: number): Uint8Array | null;
}

/**
 * Tokens as a tree of bytes in flat arrays, parents before children: node i stands for `byte[i]` behind its parent, whose
 * depth is `depth[i] - 1`, and the next node that is not below it is `skip[i]`.
 */
export interface TokenTree {
  readonly byte: Uint8Array;
  readonly depth: Uint16Array;
  readonly skip: Int32Array;
  /** The id that ends here, -1 for none. Of several equal tokens, one. */
  readonly token: Int32Array;
  readonly maxDepth: number;
}

/** Longest token that is used; nobody has longer ones. */
const MAX_BYTES = 1000;
/** Characters of the tokens that count as plain words, the longer ones included. */
const PLAIN_LENGTHS = [24, 8];

/** Tokens that are plain text of up to so many characters, which is all the same to most places inside a string. */
export interface PlainTokens {
  readonly maxChars: number;
  /** Their bits. */
  readonly mask: Uint32Array;
  /** All other tokens. */
  readonly others: TokenTree;
}

/** A vocabulary prepared for masks. */
export class TokenVocabulary {
  readonly size: number;
  /** Words of a mask. */
  readonly maskWords: number;
  readonly tree: TokenTree;
  /** From the longest to the shortest. */
  readonly plain: readonly PlainTokens[];
  /** Flat pairs: an id in the tree, and another one with the same bytes. */
  readonly twins: readonly number[];
  /** Bytes that are a token by themselves; in nearly every vocabulary all of them. */
  readonly singleBytes: ReadonlySet<number>;
  readonly #bytes: readonly (Uint8Array | null)[];

  constructor(source: TokenSource) {
    this.size = source.vocabSize;
    this.maskWords = Math.ceil(source.vocabSize / 32);
    const bytes = Array.from({ length: source.vocabSize }, (_, id) => usable(source.bytesOf(id)));
    this.#bytes = bytes;
    this.singleBytes = new Set(bytes.flatMap((one) => (one?.length === 1 ? [one[0]!] : [])));
    const { tokens, twins } = sortedTokens(bytes);
    this.twins = twins;
    this.tree = treeOf(tokens);
    const lengths = bytes.map((one) => (one === null ? Number.POSITIVE_INFINITY : plainLength(one)));
    this.plain = PLAIN_LENGTHS.map((maxChars) => {
      const mask = new Uint32Array(this.maskWords);
      lengths.forEach((length, id) => {
        if (length <= maxChars) mask[id >>> 5]! |= 1 << (id & 31);
      });
      return { maxChars, mask, others: treeOf(tokens.filter(({ id }) => lengths[id]! > maxChars)) };
    });
  }

  /** Bytes of an id that stands for text, else null. */
  bytesOf(id: number): Uint8Array | null {
    return this.#bytes[id] ?? null;
  }
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
