// The prompts of a completion: texts to ids, and the text that `echo` shows of them.

import type { ServerContext } from "../context.ts";
import { encodePrompt, tokenText } from "../prompt.ts";
import type { CompletionBody } from "./schema.ts";

/** One prompt. */
export interface CompletionPrompt {
  readonly ids: readonly number[];
  /** As given; of a prompt of ids, what they stand for. */
  readonly text: string;
  /** Ids in front that the tokenizer added and the text does not hold. */
  readonly added: number;
}

/** @throws HttpError for text without a tokenizer, and for text that cannot fit */
export function promptsOf(context: ServerContext, given: CompletionBody["prompt"]): Promise<CompletionPrompt[]> {
  const list = typeof given === "string" || typeof given[0] === "number" ? [given] : given;
  return Promise.all((list as (string | number[])[]).map((one) => promptOf(context, one)));
}

async function promptOf(context: ServerContext, given: string | number[]): Promise<CompletionPrompt> {
  if (typeof given !== "string") return { ids: given, text: tokenText(context, given, false), added: 0 };
  const ids = await encodePrompt(context, given);
  const { bosId } = context.text.tokenizer!;
  const added = bosId !== null && ids[0] === bosId && !given.startsWith(tokenText(context, [bosId], false)) ? 1 : 0;
  return { ids, text: given, added };
}
