// Turns documents into scoring requests the way lm-evaluation-harness does: where white space goes, how the
// continuation is sliced, when special tokens are added, what is cut. Knows no engine and no metric.
import { type ChoiceDocument, type CompletionDocument, codePoints, type Source, type Task } from "./task.ts";

/** auto: as the tokenizer itself does by default; always: with its special tokens; never: without. */
export type BosPolicy = "auto" | "always" | "never";
/** All policies, the default first. */
export const bosPolicies: readonly BosPolicy[] = ["auto", "always", "never"];

/** What scoring needs of a tokenizer. */
export interface TaskEncoder {
  /** Special-token strings inside the text are parsed as such either way. */
  encode(text: string, addSpecialTokens: boolean): readonly number[];
  decode(ids: readonly number[]): string;
  /** bos, else eos; null where the tokenizer has neither. */
  readonly prefixId: number | null;
  /** Whether plain use of the tokenizer adds special tokens. */
  readonly addsSpecialTokens: boolean;
}

/** One continuation to be scored. */
export interface PreparedRequest {
  readonly contextIds: readonly number[];
  readonly continuationIds: readonly number[];
  /** Ids cut from the left of the context. */
  readonly dropped: number;
}

/** A document as ids. */
export interface PreparedDocument {
  readonly id: string;
  /** One per choice; a single one for a completion. */
  readonly requests: readonly PreparedRequest[];
  /** Of each choice: code points of its text as written, or ids of an id document. What acc_norm divides by. */
  readonly lengths: readonly number[];
  /** Index of the right choice, 0 for completions. */
  readonly gold: number;
  /** Text of a completion, where there is a tokenizer. */
  readonly completion?: string;
}

/** A task as ids of one tokenizer. */
export interface PreparedTask {
  readonly name: string;
  readonly kind: Task["kind"];
  /** What was done: "always" or "never"; "ids" where the task itself holds token ids. */
  readonly bos: "always" | "never" | "ids";
  readonly maxLength: number;
  readonly documents: readonly PreparedDocument[];
}

/** What turns a task's texts into ids. */
export interface PrepareOptions {
  /** null for a model without tokenizer: only id documents can be scored. */
  readonly encoder: TaskEncoder | null;
  readonly vocabSize: number;
  /** Longest model input, in ids. */
  readonly maxLength: number;
  /** Default auto. */
  readonly bos?: BosPolicy;
}

/**
 * Prepares a whole task once; it can then be scored with any number of models of the same tokenizer.
 * @throws RangeError naming the document that cannot be scored
 */
export function prepareTask(task: Task, options: PrepareOptions): PreparedTask {
  const { encoder, maxLength } = options;
  if (task.form === "text" && encoder === null) {
    throw new RangeError(
      `Cannot score task "${task.name}": it holds text and the model has no tokenizer, expected ids`,
    );
  }
  const special = (options.bos ?? "auto") === "auto" ? (encoder?.addsSpecialTokens ?? false) : options.bos === "always";
  const documents = task.documents.map((document: ChoiceDocument | CompletionDocument): PreparedDocument => {
    const sources = "choices" in document ? document.choices : [document.completion];
    try {
      const requests = sources.map((source) =>
        cutLeft(checkIds(encodePair(document.context, source, encoder, special), options.vocabSize), maxLength),
      );
      const lengths = sources.map((source) => ("text" in source ? codePoints(source.text) : source.ids.length));
      const gold = "gold" in document ? document.gold : 0;
      const first = sources[0];
      const completion = task.kind === "completion" && first !== undefined && "text" in first ? first.text : undefined;
      return { id: document.id, requests, lengths, gold, ...(completion === undefined ? {} : { completion }) };
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      const place = `document "${document.id}" (line ${document.line})`;
      throw new RangeError(`Cannot score task "${task.name}": ${place}: ${error.message}`, { cause: error });
    }
  });
  const bos = task.form === "ids" ? "ids" : special ? "always" : "never";
  return { name: task.name, kind: task.kind, bos, maxLength, documents };
}

interface Pair {
  readonly contextIds: readonly number[];
  readonly continuationIds: readonly number[];
}

function encodePair(context: Source, continuation: Source, encoder: TaskEncoder | null, special: boolean): Pair {
  if ("ids" in context || "ids" in continuation || encoder === null) {
    return {
      contextIds: "ids" in context ? context.ids : [],
      continuationIds: "ids" in continuation ? continuation.ids : [],
    };
  }
  return encodeText(context.text, ` ${continuation.text}`, encoder, special);
}

/**
 * Ids of a context and of a continuation (its leading delimiter included). The continuation is the whole's ids from
 * the context's count on, also where a token straddles the boundary.
 * @throws RangeError where nothing would come before the continuation
 */
export function encodeText(context: string, continuation: string, encoder: TaskEncoder, special: boolean): Pair {
  if (context === "") return encodeWithoutContext(continuation, encoder);
  const end = trimmedEnd(context);
  const moved = context.slice(end) + continuation;
  const kept = context.slice(0, end);
  const contextIds = encodeOnce(kept, encoder, special);
  const continuationIds = encodeOnce(kept + moved, encoder, special).slice(contextIds.length);
  if (contextIds.length === 0) {
    throw new RangeError("the context is white space only and no bos goes before it, expected text");
  }
  if (continuationIds.length === 0) throw new RangeError("the continuation has no token of its own");
  return { contextIds, continuationIds };
}

function encodeWithoutContext(continuation: string, encoder: TaskEncoder): Pair {
  const ids = encoder.encode(continuation, false);
  if (encoder.prefixId === null) throw new RangeError("the context is empty and the tokenizer has neither bos nor eos");
  if (ids.length > 1 && ids[0] === encoder.prefixId)
    return { contextIds: ids.slice(0, 1), continuationIds: ids.slice(1) };
  if (ids.length === 0) throw new RangeError("the continuation has no token of its own");
  return { contextIds: [encoder.prefixId], continuationIds: ids };
}

/** Adds special tokens unless the text begins with the prefix token's own string. */
function encodeOnce(text: string, encoder: TaskEncoder, special: boolean): readonly number[] {
  if (!special || encoder.prefixId === null) return encoder.encode(text, special);
  const prefix = encoder.decode([encoder.prefixId]);
  return encoder.encode(text, !(prefix !== "" && text.startsWith(prefix)));
}

/** Keeps the last maxLength ids of the input; only the context gives way. */
export function cutLeft(pair: Pair, maxLength: number): PreparedRequest {
  const { contextIds, continuationIds } = pair;
  if (continuationIds.length > maxLength) {
    throw new RangeError(
      `a continuation has ${continuationIds.length} ids, expected at most the context of ${maxLength}`,
    );
  }
  const dropped = Math.max(0, contextIds.length + continuationIds.length - (maxLength + 1));
  return { contextIds: contextIds.slice(dropped), continuationIds, dropped };
}

function checkIds(pair: Pair, vocabSize: number): Pair {
  for (const id of [...pair.contextIds, ...pair.continuationIds]) {
    if (id >= vocabSize) throw new RangeError(`token id ${id} is outside the vocabulary of ${vocabSize}`);
  }
  return pair;
}

/** Index after the last character that is not white space to Python's str.rstrip(). */
export function trimmedEnd(text: string): number {
  let end = text.length;
  while (end > 0 && isPythonSpace(text.charCodeAt(end - 1))) end--;
  return end;
}

function isPythonSpace(code: number): boolean {
  if (code <= 0x20) return (code >= 0x09 && code <= 0x0d) || code >= 0x1c;
  if (code === 0x85 || code === 0xa0 || code === 0x1680) return true;
  if (code >= 0x2000 && code <= 0x200a) return true;
  return code === 0x2028 || code === 0x2029 || code === 0x202f || code === 0x205f || code === 0x3000;
}
