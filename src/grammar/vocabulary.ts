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
  readonly #bytes: readonly (Uint8Array | null)[];

  constructor(source: TokenSource) {
    this.size = source.vocabSize;
    this.maskWords = Math.ceil(source.vocabSize / 32);
    const bytes = Array.from({ length: source.vocabSize }, (_, id) => usable(source.bytesOf(id)));
    this.#bytes = bytes;
    const sorted = sortedTokens(bytes);
    const twins: number[] = [];
    const unique: Token[] = [];
    for (const token of sorted) {
      const first = unique.at(-1);
      if (first?.text === token.text) twins.push(first.id, token.id);
      else unique.push(token);
    }
    this.twins = twins;
    this.tree = treeOf(unique);
    this.plain = PLAIN_LENGTHS.map((maxChars) => {
      const isPlain = ({ id }: Token) => plainLength(bytes[id]!) <= maxChars;
      const mask = new Uint32Array(this.maskWords);
      for (const { id } of sorted.filter(isPlain)) mask[id >>> 5]! |= 1 << (id & 31);
      return { maxChars, mask, others: treeOf(unique.filter((token) => !isPlain(token))) };
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

function sortedTokens(bytes: readonly (Uint8Array | null)[]): Token[] {
  const tokens: Token[] = [];
  bytes.forEach((one, id) => {
    if (one !== null) tokens.push({ id, text: Buffer.from(one).toString("latin1") });
  });
  return tokens.sort((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : a.id - b.id));
}

function treeOf(tokens: readonly Token[]): TokenTree {
  const [byte, depth, token]: number[][] = [[], [], []];
  let before = "";
  for (const { id, text } of tokens) {
    let common = 0;
    while (common < before.length && before[common] === text[common]) common++;
    for (let at = common; at < text.length; at++) {
      byte!.push(text.charCodeAt(at));
      depth!.push(at + 1);
      token!.push(at + 1 === text.length ? id : -1);
    }
    before = text;
  }
  return {
    byte: Uint8Array.from(byte!),
    depth: Uint16Array.from(depth!),
    skip: skips(depth!),
    token: Int32Array.from(token!),
    maxDepth: depth!.reduce((a, b) => Math.max(a, b), 0),
  };
}

/** Per node, the next one that is as deep or less. */
function skips(depth: readonly number[]): Int32Array {
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
  if (bytes.some((byte) => byte < 0x20 || byte === 0x22 || byte === 0x5c)) return Number.POSITIVE_INFINITY;
  try {
    return [...decoder.decode(bytes)].length;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
