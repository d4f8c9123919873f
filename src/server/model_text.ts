// What the served model knows about text: tokenizer, chat template, defaults. Knows no request.

import { BackgroundEncoder } from "../text/background_encoder.ts";
import { ChatTemplate } from "../text/chat_template.ts";
import { type GenerationConfig, loadGenerationConfig } from "../text/generation_config.ts";
import { type SpecialTokens, Tokenizer } from "../text/tokenizer.ts";

/** The text side of one model directory. */
export interface ModelText {
  /** null: the model speaks token ids only. */
  readonly tokenizer: Tokenizer | null;
  /** Encodes without holding this thread for long; only where there is a tokenizer. */
  encode(text: string, special: SpecialTokens): Promise<number[]>;
  readonly template: ChatTemplate | null;
  readonly defaults: GenerationConfig;
  /** Ids that end a text unless the request says otherwise. */
  readonly stopIds: readonly number[];
  /** Ends what encodes in the background. */
  close(): void;
}

/** @throws CheckpointError when a file in the directory is broken */
export function loadModelText(directory: string): ModelText {
  const tokenizer = Tokenizer.load(directory);
  const defaults = loadGenerationConfig(directory);
  const eos = tokenizer?.eosId ?? null;
  const stopIds = defaults.eosIds.length > 0 || eos === null ? defaults.eosIds : [eos];
  const encoder = tokenizer === null ? null : new BackgroundEncoder(tokenizer, directory);
  return {
    tokenizer,
    encode(text, special) {
      if (encoder === null) throw new TypeError("Cannot encode: the model has no tokenizer");
      return encoder.encode(text, special);
    },
    template: tokenizer === null ? null : ChatTemplate.load(directory),
    defaults,
    stopIds,
    close: () => encoder?.close(),
  };
}
