// The bytes of every token of a vocabulary, as a tree that is walked to find which tokens may come next. Wraps flat arrays
// that build_vocabulary.ts has made, perhaps in another thread.

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

/** Tokens that are plain text of up to so many characters, which is all the same to most places inside a string. */
export interface PlainTokens {
  readonly maxChars: number;
  /** Their bits. */
  readonly mask: Uint32Array;
  /** All other tokens. */
  readonly others: TokenTree;
}

/** A vocabulary prepared for masks: plain data whose arrays can be handed to another thread. */
export interface VocabularyData {
  readonly size: number;
  readonly tree: TokenTree;
  /** From the longest to the shortest. */
  readonly plain: readonly PlainTokens[];
  /** Pairs: an id in the tree, and another one with the same bytes. */
  readonly twins: Int32Array;
  /** Bytes of id i: from byteAt[i] to byteAt[i + 1]; none for ids that are no text. */
  readonly bytes: Uint8Array;
  readonly byteAt: Int32Array;
}

/** The buffers of all arrays, for a message that moves instead of copying them. */
export function arraysOf({ tree, plain, twins, bytes, byteAt }: VocabularyData): ArrayBufferLike[] {
  const ofTree = (one: TokenTree) => [one.byte, one.depth, one.skip, one.token];
  const arrays = [...ofTree(tree), ...plain.flatMap(({ mask, others }) => [mask, ...ofTree(others)])];
  return [...arrays, twins, bytes, byteAt].map(({ buffer }) => buffer);
}

/** A prepared vocabulary in use; making one of its data costs nothing. */
export class TokenVocabulary {
  readonly size: number;
  /** Words of a mask. */
  readonly maskWords: number;
  readonly tree: TokenTree;
  readonly plain: readonly PlainTokens[];
  readonly twins: Int32Array;
  /** Bytes that are a token by themselves; in nearly every vocabulary all of them. */
  readonly singleBytes: ReadonlySet<number>;
  readonly #data: VocabularyData;

  constructor(data: VocabularyData) {
    this.size = data.size;
    this.maskWords = Math.ceil(data.size / 32);
    this.tree = data.tree;
    this.plain = data.plain;
    this.twins = data.twins;
    this.singleBytes = singleBytes(data.tree);
    this.#data = data;
  }

  /** Bytes of an id that stands for text, else null. */
  bytesOf(id: number): Uint8Array | null {
    const { bytes, byteAt } = this.#data;
    const [start, end] = [byteAt[id] ?? 0, byteAt[id + 1] ?? 0];
    return start < end ? bytes.subarray(start, end) : null;
  }
}

function singleBytes({ byte, skip, token }: TokenTree): Set<number> {
  const found = new Set<number>();
  for (let node = 0; node < byte.length; node = skip[node]!) if (token[node]! >= 0) found.add(byte[node]!);
  return found;
}
