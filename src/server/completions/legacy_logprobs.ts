// The parallel lists in which the completions API shows log-probabilities.

import { Detokenizer } from "../../text/detokenizer.ts";
import type { ServerContext } from "../context.ts";
import { tokenText } from "../prompt.ts";
import type { PromptToken } from "./echo.ts";

/** As OpenAI has it: one entry per token in each list. */
export interface LegacyLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
  readonly text_offset: number[];
}

/** The lists of one choice, piece by piece; offsets go on from piece to piece. */
export class LegacyLogprobsWriter {
  readonly #context: ServerContext;
  /** Characters (code points) of the choice's text before the next token. */
  #offset = 0;
  /** What the generated tokens add to the text. */
  readonly #generated: Detokenizer | null;

  constructor(context: ServerContext) {
    this.#context = context;
    this.#generated = context.text.tokenizer === null ? null : new Detokenizer(context.text.tokenizer);
  }

  /** The tokens of the prompt in front of the text; the first `added` of them are not in it. */
  prompt(tokens: readonly PromptToken[], text: string, added: number): LegacyLogprobs {
    const { tokenizer } = this.#context.text;
    const shown = tokenizer === null ? null : new Detokenizer(tokenizer, { skipSpecial: false, continuation: false });
    const offsets = tokens.map(({ id }, i) => {
      const at = this.#offset;
      if (i >= added) this.#offset += codePoints(shown?.push([id]) ?? "");
      return at;
    });
    this.#offset = codePoints(text);
    return this.#lists(tokens, offsets);
  }

  /** Generated tokens. */
  generated(tokens: readonly PromptToken[]): LegacyLogprobs {
    const offsets = tokens.map(({ id }) => {
      const at = this.#offset;
      this.#offset += codePoints(this.#generated?.push([id]) ?? "");
      return at;
    });
    return this.#lists(tokens, offsets);
  }

  #lists(tokens: readonly PromptToken[], text_offset: number[]): LegacyLogprobs {
    const names = tokens.map(({ id }) => this.#name(id));
    return {
      tokens: names,
      token_logprobs: tokens.map(({ logprob }) => logprob),
      top_logprobs: tokens.map((token, i) => (token.top === null ? null : this.#top(names[i]!, token))),
      text_offset,
    };
  }

  /** The most likely tokens and the chosen one. Of several ids with one spelling the most likely counts. */
  #top(chosen: string, token: PromptToken & { readonly logprob: number }): Record<string, number> {
    const top: Record<string, number> = {};
    for (const { id, logprob } of token.top) top[this.#name(id)] ??= logprob;
    top[chosen] ??= token.logprob;
    return top;
  }

  #name(id: number): string {
    return tokenText(this.#context, [id], true);
  }
}

/** One list of lists out of two. */
export function joinLogprobs(a: LegacyLogprobs, b: LegacyLogprobs): LegacyLogprobs {
  return {
    tokens: [...a.tokens, ...b.tokens],
    token_logprobs: [...a.token_logprobs, ...b.token_logprobs],
    top_logprobs: [...a.top_logprobs, ...b.top_logprobs],
    text_offset: [...a.text_offset, ...b.text_offset],
  };
}

function codePoints(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}
