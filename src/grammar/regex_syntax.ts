// Reads a regular expression of the supported subset (JavaScript's syntax without look-around, back-references and flags)
// into a tree. What is not supported is refused by name.
import { refuse } from "./budget.ts";
import { CLASSES, DOT, propertySet } from "./character_classes.ts";
import { type CodeSet, codeSet, complement, MAX_CODE } from "./code_points.ts";

/** A parsed expression. */
export type RegexNode =
  | { readonly kind: "set"; readonly set: CodeSet }
  | { readonly kind: "seq" | "alt"; readonly parts: readonly RegexNode[] }
  | { readonly kind: "repeat"; readonly part: RegexNode; readonly min: number; readonly max: number }
  | { readonly kind: "start" | "end" };

/** Longest expression that is read. */
export const MAX_PATTERN = 20_000;
const MAX_DEPTH = 200;
const MAX_REPEAT = 100_000;

const CONTROLS: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13, "0": 0 };

/** @param place names the expression in a refusal @throws RequestError */
export function parseRegex(pattern: string, place: string): RegexNode {
  if (pattern.length > MAX_PATTERN) refuse(place, `the regular expression is longer than ${MAX_PATTERN} characters`);
  return new Parser([...pattern], place).parse();
}

class Parser {
  readonly #chars: readonly string[];
  readonly #place: string;
  #at = 0;
  #depth = 0;

  constructor(chars: readonly string[], place: string) {
    this.#chars = chars;
    this.#place = place;
  }

  parse(): RegexNode {
    const node = this.#alternatives();
    if (this.#at < this.#chars.length) this.#refuse('there is a ")" without its "("');
    return node;
  }

  #refuse(why: string): never {
    refuse(this.#place, `in the regular expression, ${why} (character ${this.#at + 1})`);
  }

  #take(char: string): boolean {
    if (this.#chars[this.#at] !== char) return false;
    this.#at++;
    return true;
  }

  #alternatives(): RegexNode {
    if (++this.#depth > MAX_DEPTH) this.#refuse(`groups are nested deeper than ${MAX_DEPTH}`);
    const parts = [this.#sequence()];
    while (this.#take("|")) parts.push(this.#sequence());
    this.#depth--;
    return parts.length === 1 ? parts[0]! : { kind: "alt", parts };
  }

  #sequence(): RegexNode {
    const parts: RegexNode[] = [];
    for (let char = this.#chars[this.#at]; char !== undefined && char !== "|" && char !== ")"; ) {
      parts.push(this.#quantified(this.#atom(char)));
      char = this.#chars[this.#at];
    }
    return { kind: "seq", parts };
  }

  #atom(char: string): RegexNode {
    this.#at++;
    if (char === "^") return { kind: "start" };
    if (char === "$") return { kind: "end" };
    if (char === ".") return { kind: "set", set: DOT };
    if (char === "(") return this.#group();
    if (char === "[") return { kind: "set", set: this.#class() };
    if (char === "\\") return { kind: "set", set: this.#escape(false) };
    if (char === "*" || char === "+" || char === "?") this.#refuse(`"${char}" has nothing to repeat`);
    return { kind: "set", set: one(char.codePointAt(0)!) };
  }

  #group(): RegexNode {
    if (this.#take("?")) {
      const named = this.#chars.slice(this.#at, this.#at + 2).join("");
      if (this.#take(":")) {
        // A group that only groups.
      } else if (named[0] === "<" && named !== "<=" && named !== "<!") this.#name();
      else if (named[0] === "P" && named[1] === "<") this.#name();
      else this.#refuse("look-around, flags and other (?...) groups are not supported");
    }
    const node = this.#alternatives();
    if (!this.#take(")")) this.#refuse('a "(" is never closed');
    return node;
  }

  #name(): void {
    const end = this.#chars.indexOf(">", this.#at);
    if (end < 0) this.#refuse("a group's name is never closed");
    this.#at = end + 1;
  }

  #quantified(node: RegexNode): RegexNode {
    const range = this.#quantifier();
    if (range === null) return node;
    if (node.kind === "start" || node.kind === "end") this.#refuse("an anchor cannot be repeated");
    // Lazy or not makes no difference to which texts match.
    this.#take("?");
    if (this.#chars[this.#at] === "+") this.#refuse("possessive quantifiers are not supported");
    const next = this.#at;
    if (this.#quantifier() !== null) {
      this.#at = next;
      this.#refuse("a quantifier follows a quantifier");
    }
    return { kind: "repeat", part: node, min: range[0], max: range[1] };
  }

  #quantifier(): readonly [number, number] | null {
    if (this.#take("*")) return [0, Number.POSITIVE_INFINITY];
    if (this.#take("+")) return [1, Number.POSITIVE_INFINITY];
    if (this.#take("?")) return [0, 1];
    if (this.#chars[this.#at] !== "{") return null;
    const end = this.#chars.indexOf("}", this.#at);
    const text = end < 0 ? "" : this.#chars.slice(this.#at + 1, end).join("");
    const found = /^(\d+)(,(\d*))?$/.exec(text);
    // A brace that is no quantifier stands for itself.
    if (found === null) return null;
    this.#at = end + 1;
    const min = Number(found[1]);
    const max = found[2] === undefined ? min : found[3] === "" ? Number.POSITIVE_INFINITY : Number(found[3]);
    if (min > max) this.#refuse(`{${text}} has its numbers in the wrong order`);
    if (min > MAX_REPEAT || (max > MAX_REPEAT && max !== Number.POSITIVE_INFINITY)) {
      this.#refuse(`a repetition of more than ${MAX_REPEAT} is too large`);
    }
    return [min, max];
  }

  /** What follows a backslash. */
  #escape(inClass: boolean): CodeSet {
    const char = this.#chars[this.#at++];
    if (char === undefined) this.#refuse("it ends in a backslash");
    const known = CLASSES[char];
    if (known !== undefined) return known;
    if (inClass && char === "b") return one(8);
    const control = CONTROLS[char];
    if (control !== undefined && !(char === "0" && /\d/.test(this.#chars[this.#at] ?? ""))) return one(control);
    if (char === "x") return one(this.#hex(2));
    if (char === "u") return one(this.#unicode());
    if (char === "c") return this.#controlLetter();
    if (char === "p" || char === "P") return this.#property(char === "P");
    if (/[A-Za-z0-9]/.test(char)) {
      this.#refuse(`\\${char} is not supported${/\d/.test(char) ? " (back-references)" : ""}`);
    }
    return one(char.codePointAt(0)!);
  }

  #hex(digits: number): number {
    const text = this.#chars.slice(this.#at, this.#at + digits).join("");
    if (text.length !== digits || !/^[0-9A-Fa-f]+$/.test(text)) this.#refuse("an escape lacks hexadecimal digits");
    this.#at += digits;
    return Number.parseInt(text, 16);
  }

  #unicode(): number {
    if (!this.#take("{")) {
      const high = this.#hex(4);
      const isPair =
        high >= 0xd800 && high < 0xdc00 && this.#chars[this.#at] === "\\" && this.#chars[this.#at + 1] === "u";
      if (!isPair) return high;
      this.#at += 2;
      const low = this.#hex(4);
      if (low < 0xdc00 || low > 0xdfff) this.#refuse("half a surrogate pair stands for nothing");
      return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }
    const end = this.#chars.indexOf("}", this.#at);
    const text = this.#chars.slice(this.#at, Math.max(end, this.#at)).join("");
    const code = /^[0-9A-Fa-f]{1,6}$/.test(text) ? Number.parseInt(text, 16) : MAX_CODE + 1;
    if (code > MAX_CODE) this.#refuse("\\u{...} is no code point");
    this.#at = end + 1;
    return code;
  }

  #controlLetter(): CodeSet {
    const letter = this.#chars[this.#at++] ?? "";
    if (!/^[A-Za-z]$/.test(letter)) this.#refuse("\\c lacks its letter");
    return one(letter.charCodeAt(0) % 32);
  }

  #property(negated: boolean): CodeSet {
    const end = this.#take("{") ? this.#chars.indexOf("}", this.#at) : -1;
    const name = end < 0 ? "" : this.#chars.slice(this.#at, end).join("");
    const set = /^[A-Za-z_]+(=[A-Za-z_]+)?$/.test(name) ? propertySet(name) : null;
    if (set === null) this.#refuse("\\p lacks the {name} of a Unicode property");
    this.#at = end + 1;
    return negated ? complement(set) : set;
  }

  #class(): CodeSet {
    const negated = this.#take("^");
    const pairs: number[] = [];
    while (!this.#take("]")) {
      const from = this.#classAtom();
      const ranges = this.#chars[this.#at] === "-" && this.#chars[this.#at + 1] !== "]";
      if (!ranges) {
        pairs.push(...from);
        continue;
      }
      this.#at++;
      const to = this.#classAtom();
      if (!isOne(from) || !isOne(to)) this.#refuse("a range in [...] has a class at its end");
      if (from[0]! > to[0]!) this.#refuse("a range in [...] has its ends in the wrong order");
      pairs.push(from[0]!, to[0]!);
    }
    return negated ? complement(codeSet(pairs)) : codeSet(pairs);
  }

  #classAtom(): CodeSet {
    const char = this.#chars[this.#at++];
    if (char === undefined) this.#refuse('a "[" is never closed');
    if (char === "\\") return this.#escape(true);
    if (char === "[" && this.#chars[this.#at] === ":") this.#refuse("[:...:] classes are not supported");
    return one(char.codePointAt(0)!);
  }
}

function one(code: number): CodeSet {
  return [code, code];
}

function isOne(set: CodeSet): boolean {
  return set.length === 2 && set[0] === set[1];
}
