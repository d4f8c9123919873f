// One tokenizer: text to ids and back, special ids, and what each id means as bytes. Knows no model and no HTTP.
// The algorithm is @huggingface/tokenizers'; the policy on special tokens and the decoding by bytes are ours.
import { Tokenizer as CoreTokenizer } from "@huggingface/tokenizers";
import { CheckpointError } from "../errors.ts";
import { withExplicitByteLevel } from "./byte_level.ts";
import { type PieceDecoding, pieceDecoding } from "./piece_decoder.ts";
import { isObject, type Json, readTokenizerFiles, type TokenizerFiles, tokenContent } from "./tokenizer_files.ts";

/**
 * Which special tokens go around an encoded text. "auto": what the tokenizer itself does by default; "never": none;
 * "always": its bos token in front (where it has one) whatever its default, as evaluation harnesses ask for.
 */
export type SpecialTokens = "auto" | "always" | "never";

/** A loaded tokenizer. */
export class Tokenizer {
  readonly bosId: number | null;
  readonly eosId: number | null;
  readonly unkId: number | null;
  readonly padId: number | null;
  /** Largest id + 1; a model's own vocabulary may be padded beyond it. */
  readonly vocabSize: number;
  /** Ids whose text is not shown when special tokens are skipped. */
  readonly specialIds: ReadonlySet<number>;
  readonly config: Readonly<Json>;
  readonly #core: CoreTokenizer;
  readonly #pieces: readonly (string | undefined)[];
  readonly #addedIds: ReadonlySet<number>;
  readonly #decoding: PieceDecoding | null;
  readonly #bytes: (Uint8Array | undefined)[] = [];
  readonly #addsBos: boolean | null;
  readonly #addsEos: boolean;

  /** @returns null where the directory holds no tokenizer: such a model speaks token ids only. @throws CheckpointError */
  static load(directory: string): Tokenizer | null {
    const files = readTokenizerFiles(directory);
    return files === null ? null : new Tokenizer(files, directory);
  }

  /** @throws CheckpointError where the definition is broken; `origin` names it in the message. */
  constructor(files: TokenizerFiles, origin = "tokenizer") {
    const { definition, config } = files;
    this.config = config;
    try {
      this.#core = new CoreTokenizer(withExplicitByteLevel(definition), config);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new CheckpointError(`Cannot use the tokenizer of "${origin}": ${why}`, { cause });
    }
    const pieces: (string | undefined)[] = [];
    for (const [piece, id] of this.#core.get_vocab(true)) if (piece !== undefined) pieces[id] = piece;
    this.#pieces = pieces;
    this.vocabSize = pieces.length;
    const added = Array.isArray(definition.added_tokens) ? definition.added_tokens.filter(isObject) : [];
    this.#addedIds = new Set(added.map((t) => Number(t.id)));
    this.specialIds = new Set(added.filter((t) => t.special === true).map((t) => Number(t.id)));
    this.#decoding = pieceDecoding(definition.decoder);
    this.bosId = this.#idOf(config.bos_token);
    this.eosId = this.#idOf(config.eos_token);
    this.unkId = this.#idOf(config.unk_token);
    this.padId = this.#idOf(config.pad_token);
    this.#addsBos = typeof config.add_bos_token === "boolean" ? config.add_bos_token : null;
    this.#addsEos = config.add_eos_token === true;
  }

  /** Special-token strings inside the text are parsed as such, as Hugging Face does. */
  encode(text: string, special: SpecialTokens = "auto"): number[] {
    if (special === "auto" && this.#addsBos === null) {
      return text === "" ? this.#emptyTemplate() : this.#core.encode(text, { add_special_tokens: true }).ids;
    }
    const ids = text === "" ? [] : this.#core.encode(text, { add_special_tokens: false }).ids;
    const bos = special === "always" || (special === "auto" && this.#addsBos === true) ? this.bosId : null;
    if (bos !== null) ids.unshift(bos);
    if (special === "auto" && this.#addsEos && this.eosId !== null) ids.push(this.eosId);
    return ids;
  }

  /**
   * The text of the ids. Ids outside the vocabulary stand for nothing; bytes that are no UTF-8 become U+FFFD.
   * `continuation`: the ids follow other text, so a space in front of them is kept where the tokenizer would drop it.
   */
  decode(ids: readonly number[], options: { skipSpecial?: boolean; continuation?: boolean } = {}): string {
    const { skipSpecial = true, continuation = false } = options;
    const kept = ids.filter((id) => this.#pieces[id] !== undefined && !(skipSpecial && this.specialIds.has(id)));
    if (kept.length === 0) return "";
    if (this.#decoding === null) {
      return this.#core.decode([...kept], { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false });
    }
    const parts = kept.map((id) => this.pieceBytes(id)!);
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(parts));
    return this.#decoding.stripsFirstSpace && !continuation && text.startsWith(" ") ? text.slice(1) : text;
  }

  /** Bytes of one id, empty for an unknown one; null where this tokenizer's decoder does not work token by token. */
  pieceBytes(id: number): Uint8Array | null {
    if (this.#decoding === null) return null;
    const known = this.#bytes[id];
    if (known !== undefined) return known;
    const piece = this.#pieces[id];
    if (piece === undefined) return new Uint8Array(0);
    const bytes = this.#addedIds.has(id) ? new TextEncoder().encode(piece) : this.#decoding.bytes(piece);
    this.#bytes[id] = bytes;
    return bytes;
  }

  get stripsFirstSpace(): boolean {
    return this.#decoding?.stripsFirstSpace ?? false;
  }

  /** The vocabulary's spelling of an id (not its text). */
  piece(id: number): string | undefined {
    return this.#pieces[id];
  }

  idOfPiece(piece: string): number | undefined {
    return this.#core.token_to_id(piece);
  }

  #idOf(token: unknown): number | null {
    const content = tokenContent(token);
    return content === null ? null : (this.#core.token_to_id(content) ?? null);
  }

  /** What the post-processor puts around nothing; the core does not encode an empty text by itself. */
  #emptyTemplate(): number[] {
    const marked = this.#core.encode("a", { add_special_tokens: true }).ids;
    const plain = this.#core.encode("a", { add_special_tokens: false }).ids;
    const at = marked.findIndex((_, i) => plain.every((id, j) => marked[i + j] === id));
    return at < 0 ? [] : [...marked.slice(0, at), ...marked.slice(at + plain.length)];
  }
}
