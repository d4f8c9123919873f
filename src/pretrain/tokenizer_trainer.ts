// Trains a byte-level BPE tokenizer on text and writes it in the form of Hugging Face's tokenizer.json.
// Splits words as GPT-2 does. Knows nothing of the model that reads the ids.

const WORD = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** The printable character that stands for each byte in a byte-level vocabulary (GPT-2's table). */
export function byteCharacters(): string[] {
  const printable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++));
}

export interface TrainedTokenizer {
  /** Token to id: special tokens first, then the 256 bytes, then merges in order. */
  readonly vocab: ReadonlyMap<string, number>;
  readonly merges: readonly (readonly [string, string])[];
  readonly special: readonly string[];
}

interface Word {
  parts: string[];
  readonly count: number;
}

function countWords(texts: Iterable<string>, special: readonly string[]): Word[] {
  const characters = byteCharacters();
  const counts = new Map<string, number>();
  const encoder = new TextEncoder();
  const cut = new RegExp(special.map((token) => token.replace(/[|\\{}()[\]^$+*?.<>]/g, "\\$&")).join("|"), "g");
  for (const text of texts) {
    for (const piece of text.split(cut)) {
      for (const word of piece.match(WORD) ?? []) counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  return [...counts].map(([word, count]) => ({
    parts: Array.from(encoder.encode(word), (byte) => characters[byte]!),
    count,
  }));
}

/** The most frequent neighbours; the alphabetically first of equals, so that the result depends on counts alone. */
function bestPair(words: readonly Word[]): readonly [string, string] | null {
  const counts = new Map<string, number>();
  for (const { parts, count } of words) {
    for (let i = 0; i + 1 < parts.length; i++) {
      const pair = `${parts[i]!} ${parts[i + 1]!}`;
      counts.set(pair, (counts.get(pair) ?? 0) + count);
    }
  }
  let best: string | null = null;
  let most = 1;
  for (const [pair, count] of counts) {
    if (count > most || (count === most && best !== null && pair < best)) [best, most] = [pair, count];
  }
  if (best === null) return null;
  const [left, right] = best.split(" ");
  return [left!, right!];
}

function merge(word: Word, left: string, right: string): void {
  const { parts } = word;
  const joined: string[] = [];
  for (let i = 0; i < parts.length; i++) {
    const both = parts[i] === left && parts[i + 1] === right;
    joined.push(both ? left + right : parts[i]!);
    if (both) i++;
  }
  word.parts = joined;
}

/** Merges the most frequent pair until there are `size` tokens or nothing occurs twice. */
export function trainTokenizer(texts: Iterable<string>, size: number, special: readonly string[]): TrainedTokenizer {
  const words = countWords(texts, special);
  const vocab = new Map([...special, ...byteCharacters()].map((token, id) => [token, id] as const));
  const merges: (readonly [string, string])[] = [];
  while (vocab.size < size) {
    const pair = bestPair(words);
    if (pair === null) break;
    merges.push(pair);
    vocab.set(pair[0] + pair[1], vocab.size);
    for (const word of words) merge(word, pair[0], pair[1]);
  }
  return { vocab, merges, special };
}

/** The object that tokenizer.json holds: BPE after byte-level splitting, `begin` put in front of every text. */
export function tokenizerJson({ vocab, merges, special }: TrainedTokenizer, begin: string): object {
  const added = special.map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const id = vocab.get(begin);
  if (id === undefined) throw new RangeError(`Cannot write the tokenizer: "${begin}" is not one of its tokens`);
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: begin, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [
        { SpecialToken: { id: begin, type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { Sequence: { id: "B", type_id: 1 } },
      ],
      special_tokens: { [begin]: { id: begin, ids: [id], tokens: [begin] } },
    },
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(vocab),
      merges: merges.map(([left, right]) => `${left} ${right}`),
    },
  };
}
