// Finds the end of a JSON object in a growing text by its brackets alone; whether it is valid JSON is not its question.

/** Where the scan stands: white space or an open object, a whole object, or something that is no object. */
export type ScanState = "open" | "done" | "none";

/** One object that begins at `start`, after white space. */
export class JsonObjectScanner {
  /** Index of the next character to look at; once done, the index after the object. */
  position: number;
  #depth = 0;
  #inText = false;
  #state: ScanState = "open";

  constructor(start = 0) {
    this.position = start;
  }

  /** Goes on in `text`, which begins with all that was given before. */
  push(text: string): ScanState {
    while (this.#state === "open" && this.position < text.length) this.#step(text.charCodeAt(this.position));
    return this.#state;
  }

  #step(code: number): void {
    if (this.#inText) {
      // The character after a backslash may not have come yet; its index is skipped all the same.
      if (code === BACKSLASH) this.position++;
      else if (code === QUOTE) this.#inText = false;
    } else if (this.#depth === 0) {
      if (code === OPEN_BRACE) this.#depth = 1;
      else if (!WHITE_SPACE.has(code)) {
        this.#state = "none";
        return;
      }
    } else if (code === QUOTE) this.#inText = true;
    else if (code === OPEN_BRACE || code === OPEN_BRACKET) this.#depth++;
    else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) {
      this.#depth--;
      if (this.#depth === 0) this.#state = "done";
    }
    this.position++;
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const WHITE_SPACE: ReadonlySet<number> = new Set([0x20, 0x09, 0x0a, 0x0d]);
