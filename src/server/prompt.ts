// Texts to ids and back as requests need them, with an early end to absurd lengths.

import type { ServerContext } from "./context.ts";
import { HttpError } from "./errors.ts";

/** No tokenizer in use spells that many characters with one id on average; beyond it, encoding would be wasted time. */
const MAX_CHARACTERS_PER_TOKEN = 48;

/**
 * The ids of a prompt. `special`: "auto" lets the tokenizer add its bos token; "never" is for rendered templates.
 * `param` is the field that an error names.
 * @throws HttpError when the model has no tokenizer or the text cannot fit
 */
export async function encodePrompt(
  context: ServerContext,
  text: string,
  special: "auto" | "never" = "auto",
  param = "prompt",
): Promise<number[]> {
  const { tokenizer } = context.text;
  if (tokenizer === null) {
    throw new HttpError(400, "no_tokenizer", "This model has no tokenizer: send the prompt as token ids", param);
  }
  const { maxContext } = context.engine.info;
  if (text.length > maxContext * MAX_CHARACTERS_PER_TOKEN) {
    const message = `The prompt has ${text.length} characters and cannot fit in a context of ${maxContext} tokens`;
    throw new HttpError(400, "context_length_exceeded", message, param);
  }
  return context.text.encode(text, special);
}

/** The text of ids; without a tokenizer, their numbers. */
export function tokenText(context: ServerContext, ids: readonly number[], continuation: boolean): string {
  const { tokenizer } = context.text;
  if (tokenizer === null) return ids.join(" ");
  return tokenizer.decode(ids, { skipSpecial: false, continuation });
}
