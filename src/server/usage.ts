// Token counts of a whole request, in OpenAI's shape.

import type { ChoicePiece } from "./generation.ts";

/** Adds up the newest counts of each choice; a prompt counts once however many choices it has. */
export class UsageCount {
  readonly #byChoice = new Map<number, ChoicePiece["usage"]>();
  readonly #n: number;

  constructor(n: number) {
    this.#n = n;
  }

  add(piece: ChoicePiece): void {
    this.#byChoice.set(piece.index, piece.usage);
  }

  body() {
    let prompt = 0;
    let cached = 0;
    let completion = 0;
    for (const [index, usage] of this.#byChoice) {
      completion += usage.completionTokens;
      if (index % this.#n !== 0) continue;
      prompt += usage.promptTokens;
      cached += usage.cachedTokens;
    }
    return {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      prompt_tokens_details: { cached_tokens: cached },
    };
  }
}
