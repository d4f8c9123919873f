// What the served model knows about text: tokenizer, chat template, defaults. Knows no request.

import { ChatTemplate } from "../text/chat_template.ts";
import { type GenerationConfig, loadGenerationConfig } from "../text/generation_config.ts";
import { Tokenizer } from "../text/tokenizer.ts";

/** The text side of one model directory. */
export interface ModelText {
  /** null: the model speaks token ids only. */
  readonly tokenizer: Tokenizer | null;
  readonly template: ChatTemplate | null;
  readonly defaults: GenerationConfig;
  /** Ids that end a text unless the request says otherwise. */
  readonly stopIds: readonly number[];
}

/** @throws CheckpointError when a file in the directory is broken */
export function loadModelText(directory: string): ModelText {
  const tokenizer = Tokenizer.load(directory);
  const defaults = loadGenerationConfig(directory);
  const eos = tokenizer?.eosId ?? null;
  const stopIds = defaults.eosIds.length > 0 || eos === null ? defaults.eosIds : [eos];
  return { tokenizer, template: tokenizer === null ? null : ChatTemplate.load(directory), defaults, stopIds };
}
