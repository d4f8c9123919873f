// A conversation with one hybrid at a time on an engine in this process: history, streaming, what a chat or a plain
// text is. Knows no terminal.

import type { EngineClient, FinishReason, SamplingParams, Usage } from "../engine/types.ts";
import type { ModelText } from "../server/model_text.ts";
import type { ChatMessage } from "../text/chat_template.ts";
import { Detokenizer } from "../text/detokenizer.ts";
import { messageEnds } from "../text/message_ends.ts";
import { StopStrings } from "../text/stop_strings.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

export interface ConversationOptions {
  readonly engine: EngineClient;
  readonly text: ModelText & { readonly tokenizer: Tokenizer };
  readonly sampling: SamplingParams;
  readonly maxTokens: number;
  readonly stop: readonly string[];
  /** true: messages through the chat template, with history; false: each text is continued as it is. */
  readonly chat: boolean;
  readonly system: string | null;
}

/** How one answer went. */
export interface Answer {
  readonly text: string;
  readonly finishReason: FinishReason;
  readonly usage: Usage;
  /** Seconds to the first token and in all. */
  readonly firstSeconds: number;
  readonly seconds: number;
}

export class Conversation {
  /** The engine's name of the hybrid that answers. */
  hybrid: string;
  readonly #options: ConversationOptions;
  #messages: ChatMessage[] = [];

  constructor(options: ConversationOptions, hybrid: string) {
    this.#options = options;
    this.hybrid = hybrid;
  }

  /** Forgets what was said. */
  clear(): void {
    this.#messages = [];
  }

  /**
   * Answers `input`; pieces of text go to `write` as they come. An aborted answer stays in the history as far as it
   * came. @throws RangeError when the conversation no longer fits the context
   */
  async ask(input: string, write: (text: string) => void, signal: AbortSignal): Promise<Answer> {
    const { chat } = this.#options;
    const messages = [...this.#messages, { role: "user", content: input }];
    const promptIds = chat ? this.#render(messages) : this.#options.text.tokenizer.encode(input);
    const { maxContext } = this.#options.engine.info;
    if (promptIds.length >= maxContext) {
      const hint = messages.length > 1 ? "; /clear forgets it" : "";
      throw new RangeError(`The conversation has ${promptIds.length} tokens, the context holds ${maxContext}${hint}`);
    }
    if (promptIds.length === 0) throw new RangeError("The text holds no token");
    const answer = await this.#generate(promptIds, write, signal);
    if (chat) this.#messages = [...messages, { role: "assistant", content: answer.text }];
    return answer;
  }

  #render(messages: readonly ChatMessage[]): number[] {
    const { text, system } = this.#options;
    const front = system === null ? [] : [{ role: "system", content: system }];
    const rendered = text.template!.render([...front, ...messages]);
    return text.tokenizer.encode(rendered, text.template!.isFallback ? "auto" : "never");
  }

  async #generate(promptIds: number[], write: (text: string) => void, signal: AbortSignal): Promise<Answer> {
    const { engine, text, sampling, stop } = this.#options;
    const detokenizer = new Detokenizer(text.tokenizer);
    const stops = new StopStrings(stop);
    const maxTokens = Math.min(this.#options.maxTokens, engine.info.maxContext - promptIds.length);
    const start = performance.now();
    let firstSeconds = 0;
    let written = "";
    let usage: Usage = { promptTokens: promptIds.length, completionTokens: 0, cachedTokens: 0 };
    let finishReason: FinishReason = "cancelled";
    const show = (piece: string) => {
      written += piece;
      if (piece !== "") write(piece);
    };
    const boundaries = messageEnds(promptIds, text.stopIds, text.tokenizer);
    const request = { hybrid: this.hybrid, promptIds, maxTokens, sampling, stopIds: text.stopIds, boundaries };
    for await (const event of engine.generate(request, signal)) {
      if (usage.completionTokens === 0) firstSeconds = (performance.now() - start) / 1000;
      usage = event.usage;
      const last = event.tokenIds.at(-1);
      const ends = event.finishReason === "stop" && last !== undefined && text.stopIds.includes(last);
      const ids = ends ? event.tokenIds.slice(0, -1) : event.tokenIds;
      const decoded = detokenizer.push(ids) + (event.finishReason === null ? "" : detokenizer.flush());
      const cut = stops.push(decoded);
      show(cut.text);
      finishReason = cut.stop === null ? (event.finishReason ?? finishReason) : "stop";
      if (cut.stop !== null) break;
      if (event.finishReason !== null) show(stops.flush());
    }
    return { text: written, finishReason, usage, firstSeconds, seconds: (performance.now() - start) / 1000 };
  }
}
