// Turns the pieces of one choice into the items of a response and the events that tell of them.
// Knows one response; neither HTTP nor the engine.

import { randomBytes } from "node:crypto";
import type { ToolCallDelta } from "../choice_text.ts";
import type { TokenEntry } from "../token_logprobs.ts";

type Status = "in_progress" | "completed" | "incomplete";

interface MessageItem {
  readonly id: string;
  readonly type: "message";
  status: Status;
  readonly role: "assistant";
  readonly content: { readonly type: "output_text"; text: string; readonly annotations: []; logprobs: TokenEntry[] }[];
}

interface CallItem {
  readonly id: string;
  readonly type: "function_call";
  status: Status;
  readonly call_id: string;
  readonly name: string;
  arguments: string;
}

/** An event without its number in the stream. */
export interface ResponseEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** The items of one response; the last of them may still be open. */
export class ResponseWriter {
  readonly output: (MessageItem | CallItem)[] = [];
  #open: MessageItem | CallItem | null = null;
  /** Entries of tokens whose text has not come yet. */
  #logprobs: TokenEntry[] = [];

  /** Some more text and calls, in this order. */
  *push(text: string, calls: readonly ToolCallDelta[], logprobs: TokenEntry[]): Generator<ResponseEvent> {
    this.#logprobs.push(...logprobs);
    if (text !== "") yield* this.#text(text);
    for (const call of calls) yield* this.#call(call);
  }

  /** The end; a text that was cut off leaves its last item incomplete. A response has at least one item. */
  *finish(status: "completed" | "incomplete"): Generator<ResponseEvent> {
    if (this.output.length === 0) yield* this.#openMessage();
    yield* this.#close(status);
  }

  *#text(delta: string): Generator<ResponseEvent> {
    if (this.#open?.type !== "message") yield* this.#openMessage();
    const part = (this.#open as MessageItem).content[0]!;
    const logprobs = this.#logprobs.splice(0);
    part.text += delta;
    part.logprobs.push(...logprobs);
    yield { type: "response.output_text.delta", ...this.#place(), content_index: 0, delta, logprobs };
  }

  *#openMessage(): Generator<ResponseEvent> {
    yield* this.#add({ id: newId("msg"), type: "message", status: "in_progress", role: "assistant", content: [] });
    const part = { type: "output_text" as const, text: "", annotations: [] as [], logprobs: [] };
    (this.#open as MessageItem).content.push(part);
    yield { type: "response.content_part.added", ...this.#place(), content_index: 0, part: { ...part } };
  }

  *#call({ id, name, arguments: args }: ToolCallDelta): Generator<ResponseEvent> {
    if (id !== undefined && name !== undefined) {
      const item = { id: newId("fc"), status: "in_progress", call_id: id, name, arguments: "" } as const;
      yield* this.#add({ ...item, type: "function_call" });
    }
    if (args === "") return;
    (this.#open as CallItem).arguments += args;
    yield { type: "response.function_call_arguments.delta", ...this.#place(), delta: args };
  }

  *#add(item: MessageItem | CallItem): Generator<ResponseEvent> {
    yield* this.#close("completed");
    this.output.push(item);
    this.#open = item;
    yield { type: "response.output_item.added", output_index: this.output.length - 1, item: structuredClone(item) };
  }

  *#close(status: "completed" | "incomplete"): Generator<ResponseEvent> {
    const item = this.#open;
    if (item === null) return;
    item.status = status;
    if (item.type === "function_call") {
      const { name, arguments: args } = item;
      yield { type: "response.function_call_arguments.done", ...this.#place(), name, arguments: args };
    } else {
      const part = item.content[0]!;
      part.logprobs.push(...this.#logprobs.splice(0));
      const place = { ...this.#place(), content_index: 0 };
      yield { type: "response.output_text.done", ...place, text: part.text, logprobs: part.logprobs };
      yield { type: "response.content_part.done", ...place, part };
    }
    yield { type: "response.output_item.done", output_index: this.output.length - 1, item };
    this.#open = null;
  }

  #place() {
    return { item_id: this.#open!.id, output_index: this.output.length - 1 };
  }
}

/** An id as OpenAI's look. */
export function newId(prefix: string): string {
  return `${prefix}_${randomBytes(16).toString("hex")}`;
}
