// Token counts of a whole request: in OpenAI's shape for the client, and for the request's record.

import type { Usage } from "../engine/types.ts";
import type { ChoicePiece } from "./generation.ts";
import type { RequestRecord } from "./request_record.ts";

/** Adds up the newest counts of each choice; a prompt counts once however many choices it has. */
export class UsageCount {
  readonly #byChoice = new Map<number, ChoicePiece["usage"]>();
  readonly #n: number;
  readonly #record: RequestRecord;

  /** @param n choices of each prompt */
  constructor(n: number, record: RequestRecord) {
    this.#n = n;
    this.#record = record;
    record.usage = () => this.total();
  }

  add(piece: ChoicePiece): void {
    const record = this.#record;
    record.firstTokenSeconds ??= (performance.now() - record.startedAt) / 1000;
    record.queueSeconds ??= piece.timings?.queueSeconds ?? null;
    this.#byChoice.set(piece.index, piece.usage);
    const { finishReason } = piece;
    if (finishReason === null || record.finishReason?.split(",").includes(finishReason) === true) return;
    record.finishReason = record.finishReason === null ? finishReason : `${record.finishReason},${finishReason}`;
  }

  total(): Usage {
    let prompt = 0;
    let cached = 0;
    let completion = 0;
    for (const [index, usage] of this.#byChoice) {
      completion += usage.completionTokens;
      if (index % this.#n !== 0) continue;
      prompt += usage.promptTokens;
      cached += usage.cachedTokens;
    }
    return { promptTokens: prompt, cachedTokens: cached, completionTokens: completion };
  }

  body() {
    const { promptTokens, cachedTokens, completionTokens } = this.total();
    return {
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      total_tokens: promptTokens + completionTokens,
      prompt_tokens_details: { cached_tokens: cachedTokens },
    };
  }
}
