// Finds calls of tools in a growing text and says at once what is known of them: the name, then the arguments in pieces.
// What looks like a call and is none stays text, to the letter. Knows one stream; not the requests.
import { JsonObjectScanner } from "./json_scanner.ts";
import type { ToolFormat } from "./tool_format.ts";

/** More of a call; the first part of one, and only it, has its name. */
export interface ToolCallPart {
  /** Number of the call within the text. */
  readonly index: number;
  readonly name?: string;
  /** A further piece of the JSON of the arguments. */
  readonly arguments: string;
}

/** What a piece of text turned out to be. */
export interface ToolText {
  /** Text outside of calls. */
  readonly text: string;
  readonly calls: readonly ToolCallPart[];
}

/** The head of a call whose arguments can be passed on before it is complete. */
const HEAD = /^\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)/;
/** A head is looked for within this many characters; later ones wait for the call's end. */
const MAX_HEAD = 1024;

type State = "text" | "call" | "closing" | "plain";

/** The calls in one text. */
export class ToolCallParser {
  readonly #format: ToolFormat;
  readonly #names: ReadonlySet<string>;
  #state: State;
  /** Not yet decided: part of a tag in text, white space, or a call so far. */
  #held = "";
  /** White space that is shown only if words follow. */
  #space = "";
  #numCalls = 0;
  #scanner = new JsonObjectScanner();
  /** Follows the arguments of a call that is being passed on, and up to where they are out. */
  #arguments: JsonObjectScanner | null = null;
  #passed = 0;
  #text = "";
  #calls: ToolCallPart[] = [];

  /** @param names what may be called; anything else in the form of a call is text */
  constructor(format: ToolFormat, names: ReadonlySet<string>) {
    this.#format = format;
    this.#names = names;
    this.#state = format.open === "" ? "call" : "text";
  }

  /** Calls that are complete. */
  get completed(): number {
    return this.#numCalls - (this.#state === "call" && this.#arguments !== null ? 1 : 0);
  }

  /** Calls that have begun. */
  get begun(): number {
    return this.#numCalls;
  }

  /** What more text says; with `last`, also what was held back. */
  push(text: string, last = false): ToolText {
    this.#text = "";
    this.#calls = [];
    this.#held += text;
    while (this.#advance()) {}
    if (last) this.#finish();
    return { text: this.#text, calls: this.#calls };
  }

  /** One step; false where more text is needed. */
  #advance(): boolean {
    if (this.#state === "text") return this.#inText();
    if (this.#state === "call") return this.#inCall();
    if (this.#state === "closing") return this.#inClosing();
    this.#show(this.#held);
    this.#held = "";
    return false;
  }

  #inText(): boolean {
    const { open } = this.#format;
    const at = this.#held.indexOf(open);
    if (at < 0) {
      const keep = partialEnd(this.#held, open);
      this.#show(this.#held.slice(0, this.#held.length - keep));
      this.#held = this.#held.slice(this.#held.length - keep);
      return false;
    }
    this.#show(this.#held.slice(0, at));
    this.#held = this.#held.slice(at + open.length);
    this.#beginCall();
    return true;
  }

  #beginCall(): void {
    this.#state = "call";
    this.#scanner = new JsonObjectScanner();
    this.#arguments = null;
  }

  #inCall(): boolean {
    const progress = this.#scanner.push(this.#held);
    if (progress === "none") {
      this.#noCall(0);
      return true;
    }
    if (this.#arguments === null) this.#readHead();
    if (this.#arguments !== null) this.#passArguments(this.#arguments);
    if (progress === "open") return false;
    const end = this.#scanner.position;
    if (this.#arguments === null && !this.#wholeCall(this.#held.slice(0, end))) {
      this.#noCall(end);
      return true;
    }
    this.#held = this.#held.slice(end);
    this.#state = "closing";
    return true;
  }

  #readHead(): void {
    const head = HEAD.exec(this.#held.slice(0, MAX_HEAD));
    if (head === null) return;
    const name = parseJson(head[1]!);
    if (typeof name !== "string" || !this.#names.has(name)) return;
    this.#arguments = new JsonObjectScanner(head[0].length);
    this.#passed = head[0].length;
    this.#addCall(name, "");
  }

  #addCall(name: string, args: string): void {
    this.#space = "";
    this.#calls.push({ index: this.#numCalls++, name, arguments: args });
  }

  #passArguments(scanner: JsonObjectScanner): void {
    scanner.push(this.#held);
    const end = Math.min(scanner.position, this.#held.length);
    if (end <= this.#passed) return;
    const piece = this.#held.slice(this.#passed, end);
    this.#passed = end;
    const begun = this.#calls.at(-1);
    // The name and the first of the arguments go together.
    if (begun !== undefined && begun.index === this.#numCalls - 1) {
      this.#calls[this.#calls.length - 1] = { ...begun, arguments: begun.arguments + piece };
    } else this.#calls.push({ index: this.#numCalls - 1, arguments: piece });
  }

  /** A call whose keys come in another order, or whose arguments are a text. */
  #wholeCall(json: string): boolean {
    const call = parseJson(json);
    if (typeof call !== "object" || call === null) return false;
    const { name, arguments: given, parameters } = call as Record<string, unknown>;
    if (typeof name !== "string" || !this.#names.has(name)) return false;
    const value = given ?? parameters ?? {};
    const args = typeof value === "string" ? value : JSON.stringify(value);
    this.#addCall(name, args);
    return true;
  }

  /** Gives back as text what looked like a call; `end` characters are beyond doubt. */
  #noCall(end: number): void {
    this.#show(this.#format.open + this.#held.slice(0, end));
    this.#held = this.#held.slice(end);
    this.#state = this.#format.open === "" ? "plain" : "text";
  }

  /** After a call's JSON: its closing tag, or what separates it from the next. */
  #inClosing(): boolean {
    const { open, close } = this.#format;
    this.#held = open === "" ? this.#held.replace(/^[\s;]+/, "") : this.#held.trimStart();
    if (this.#held === "" || (this.#held.length < close.length && close.startsWith(this.#held))) return false;
    if (open === "") {
      if (this.#held.startsWith("{")) this.#beginCall();
      else this.#state = "plain";
      return true;
    }
    if (this.#held.startsWith(close)) this.#held = this.#held.slice(close.length);
    this.#state = "text";
    return true;
  }

  #finish(): void {
    if (this.#state === "text" || this.#state === "plain") this.#show(this.#held);
    // A call that breaks off stands as far as it went; one without a name is text.
    else if (this.#state === "call" && this.#arguments === null) this.#show(this.#format.open + this.#held);
    this.#held = "";
    if (this.#numCalls === 0) this.#text += this.#space;
    this.#space = "";
  }

  /** White space in front of a call and after the last one is no text, so it waits for words. */
  #show(text: string): void {
    const all = this.#space + text;
    const end = all.trimEnd().length;
    this.#text += all.slice(0, end);
    this.#space = all.slice(end);
  }
}

/** Length of the longest end of `text` that begins `tag`. */
function partialEnd(text: string, tag: string): number {
  for (let n = Math.min(tag.length - 1, text.length); n > 0; n--) if (text.endsWith(tag.slice(0, n))) return n;
  return 0;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
