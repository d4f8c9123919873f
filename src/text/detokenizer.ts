// Text from ids as they arrive: never half a character, and joined pieces equal the whole text decoded at once.
// Knows one stream; stop strings are cut in stop_strings.ts.
import type { Tokenizer } from "./tokenizer.ts";

/** A character has at most four bytes, so tokens beyond this many cannot still be waiting for its rest. */
const MAX_HELD_TOKENS = 8;

/** How the ids become text. */
export interface DetokenizerOptions {
  /** Leave out special tokens (default true). */
  skipSpecial?: boolean;
  /** The ids follow other text, such as a prompt: keep a space in front of them (default true). */
  continuation?: boolean;
}

/** The text of one stream of ids. */
export class Detokenizer {
  readonly #tokenizer: Tokenizer;
  readonly #skipSpecial: boolean;
  readonly #bytes = new TextDecoder("utf-8", { ignoreBOM: true });
  #stripSpace: boolean;
  // Only for decoders that do not work token by token: ids whose text is out, and ids still held back.
  #context: number[] = [];
  #held: number[] = [];

  constructor(tokenizer: Tokenizer, options: DetokenizerOptions = {}) {
    this.#tokenizer = tokenizer;
    this.#skipSpecial = options.skipSpecial ?? true;
    this.#stripSpace = tokenizer.stripsFirstSpace && !(options.continuation ?? true);
  }

  /** The text that these ids complete; may be empty. */
  push(ids: readonly number[]): string {
    let text = "";
    for (const id of ids) {
      if (this.#skipSpecial && this.#tokenizer.specialIds.has(id)) continue;
      const bytes = this.#tokenizer.pieceBytes(id);
      text += bytes === null ? this.#pushWhole(id) : this.#bytes.decode(bytes, { stream: true });
    }
    return this.#strip(text);
  }

  /** What is left at the end; an unfinished character becomes U+FFFD. */
  flush(): string {
    const rest = this.#held.length > 0 ? this.#release() : "";
    return this.#strip(rest + this.#bytes.decode());
  }

  #strip(text: string): string {
    if (!this.#stripSpace || text === "") return text;
    this.#stripSpace = false;
    return text.startsWith(" ") ? text.slice(1) : text;
  }

  /** Decodes a short window twice, with and without the new ids; the difference is their text. */
  #pushWhole(id: number): string {
    this.#held.push(id);
    const whole = this.#decode([...this.#context, ...this.#held]);
    return whole.endsWith("\uFFFD") && this.#held.length < MAX_HELD_TOKENS ? "" : this.#release();
  }

  #release(): string {
    const before = this.#decode(this.#context);
    const whole = this.#decode([...this.#context, ...this.#held]);
    this.#context = this.#held;
    this.#held = [];
    return whole.slice(before.length);
  }

  #decode(ids: readonly number[]): string {
    return this.#tokenizer.decode(ids, { skipSpecial: this.#skipSpecial, continuation: true });
  }
}
