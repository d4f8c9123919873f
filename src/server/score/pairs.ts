// Contexts and continuations as ids, in the way of lm-evaluation-harness. Knows no engine.

import { trimmedEnd } from "../../eval/requests.ts";
import type { ServerContext } from "../context.ts";
import { HttpError, invalidField } from "../errors.ts";
import { encodePrompt } from "../prompt.ts";
import type { ScoreBody } from "./schema.ts";

/** One continuation after its context. */
export interface ScorePair {
  readonly contextIds: readonly number[];
  readonly continuationIds: readonly number[];
}

/**
 * The pairs in the order of the continuations.
 * @throws HttpError where context and continuations are not both text or both ids, or one of them has no token
 */
export async function scorePairs(context: ServerContext, body: ScoreBody): Promise<ScorePair[]> {
  const given = contextOf(body);
  const { continuations } = body;
  if (typeof given !== "string") {
    if (typeof continuations[0] === "string") {
      throw invalidField(
        "continuations",
        'Invalid "continuations": got texts, expected lists of ids as the context is',
      );
    }
    return (continuations as number[][]).map((ids) => ({ contextIds: given, continuationIds: ids }));
  }
  if (typeof continuations[0] !== "string") {
    throw invalidField("continuations", 'Invalid "continuations": got ids, expected texts as the context is');
  }
  return textPairs(context, given, continuations as string[]);
}

function contextOf(body: ScoreBody): string | readonly number[] {
  if (body.context !== undefined && body.prompt !== undefined) {
    throw invalidField("prompt", 'Parameters "context" and "prompt" mean the same: send one of them');
  }
  const given = body.context ?? body.prompt;
  if (given !== undefined) return given;
  const message = 'Missing parameter "context": expected a text or a list of token ids';
  throw new HttpError(400, "missing_parameter", message, "context");
}

/**
 * White space that ends the context goes in front of the continuation, and a continuation's ids are the whole's from
 * the context's count on, so that its words are split as the model reads them.
 */
async function textPairs(context: ServerContext, given: string, texts: readonly string[]): Promise<ScorePair[]> {
  const end = trimmedEnd(given);
  const kept = given.slice(0, end);
  const encoded = await encodePrompt(context, kept, "auto", "context");
  const contextIds = encoded.length > 0 ? encoded : startIds(context);
  const prefix = contextIds.length - encoded.length;
  return Promise.all(
    texts.map(async (text, i) => {
      const whole = await encodePrompt(context, kept + given.slice(end) + text, "auto", `continuations[${i}]`);
      const continuationIds = whole.slice(contextIds.length - prefix);
      if (continuationIds.length > 0) return { contextIds, continuationIds };
      throw invalidField(`continuations[${i}]`, `Continuation ${i} has no token of its own after the context`);
    }),
  );
}

/** Something must stand before the first token that is scored. */
function startIds(context: ServerContext): readonly number[] {
  const { bosId, eosId } = context.text.tokenizer!;
  const start = bosId ?? eosId;
  if (start !== null) return [start];
  throw invalidField("context", "The context is empty and the tokenizer has no token that begins a text");
}
