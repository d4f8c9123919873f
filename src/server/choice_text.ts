// What the ids of one choice say: text, cut at stop strings, with the calls of tools taken out of it.
// Knows one choice; neither the engine nor the OpenAI shapes.

import { randomBytes } from "node:crypto";
import { Detokenizer } from "../text/detokenizer.ts";
import { StopStrings } from "../text/stop_strings.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { ToolCallParser, type ToolCallPart } from "../text/tool_call_parser.ts";
import type { ToolUse } from "./tools/use.ts";

/** More of a call; the first delta of one, and only it, has id and name. */
export interface ToolCallDelta extends ToolCallPart {
  readonly id?: string;
}

/** What some ids added. */
export interface TextDelta {
  readonly text: string;
  readonly calls: readonly ToolCallDelta[];
  /** Why the text ends here though the engine might go on. */
  readonly ended: "stop" | "tool_calls" | null;
}

/** A whole call. */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  readonly arguments: string;
}

/** The calls of one choice out of all their parts. */
export function wholeCalls(deltas: readonly ToolCallDelta[]): ToolCall[] {
  const calls: ToolCall[] = [];
  for (const { index, id = "", name = "", arguments: args } of deltas) {
    const known = calls[index];
    calls[index] =
      known === undefined ? { id, name, arguments: args } : { ...known, arguments: known.arguments + args };
  }
  return calls;
}

/** Reads one choice as its ids come. Without a tokenizer there is no text, and nothing to cut. */
export class ChoiceText {
  readonly #detokenizer: Detokenizer | null;
  readonly #stops: StopStrings;
  readonly #parser: ToolCallParser | null;
  readonly #multiple: boolean;

  constructor(tokenizer: Tokenizer | null, stopStrings: readonly string[], tools: ToolUse | null) {
    this.#detokenizer = tokenizer === null ? null : new Detokenizer(tokenizer);
    this.#stops = new StopStrings(stopStrings);
    this.#parser = tools === null ? null : new ToolCallParser(tools.format, tools.callable);
    this.#multiple = tools?.multiple ?? true;
  }

  /** Whether the text holds calls so far. */
  get hasCalls(): boolean {
    return (this.#parser?.begun ?? 0) > 0;
  }

  /** What `ids` add; with `last`, also what was held back. */
  push(ids: readonly number[], last: boolean): TextDelta {
    if (this.#detokenizer === null) return { text: "", calls: [], ended: null };
    const decoded = this.#detokenizer.push(ids) + (last ? this.#detokenizer.flush() : "");
    const { text, stop } = this.#stops.push(decoded);
    const ended = stop === null ? null : "stop";
    const whole = last && stop === null ? text + this.#stops.flush() : text;
    if (this.#parser === null) return { text: whole, calls: [], ended };
    const { text: rest, calls } = this.#parser.push(whole, last || stop !== null);
    if (this.#multiple) return { text: rest, calls: calls.map(withId), ended };
    const first = calls.filter((call) => call.index === 0).map(withId);
    return { text: rest, calls: first, ended: this.#parser.completed > 0 ? "tool_calls" : ended };
  }
}

function withId(part: ToolCallPart): ToolCallDelta {
  return part.name === undefined ? part : { ...part, id: `call_${randomBytes(12).toString("hex")}` };
}
