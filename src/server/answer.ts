// How a generation is answered, streamed or whole, for both completion routes; the routes give the shapes.

import { randomBytes } from "node:crypto";
import type { ServerContext } from "./context.ts";
import { errorBody, HttpError, logText, toHttpError } from "./errors.ts";
import { type ChoicePiece, generateChoices } from "./generation.ts";
import type { GenerationPlan } from "./plan.ts";
import { recordOf } from "./request_record.ts";
import { type SseEvent, sseResponse, withTimeout } from "./sse.ts";
import { UsageCount } from "./usage.ts";

/** How long a stream waits for its first token before the headers go out; until then errors keep their status. */
const FIRST_PIECE_MS = 1000;

/** The shapes of one route. */
export interface AnswerShape {
  /** "chatcmpl" or "cmpl". */
  readonly idPrefix: string;
  /** `object` of the whole answer and of a streamed chunk. */
  readonly object: string;
  readonly chunkObject: string;
  /** A streamed choice; null leaves the piece out. */
  chunk(piece: ChoicePiece): object | null;
  /** Chunks before the first piece, one list of choices each. */
  opening(plan: GenerationPlan): readonly object[];
  /** Which sequences become choices of a whole answer, in their order; default: all. */
  select?(sequences: readonly (readonly ChoicePiece[])[]): readonly (readonly ChoicePiece[])[];
  /** A whole choice out of all its pieces. */
  choice(index: number, pieces: readonly ChoicePiece[]): object;
}

/** Answers the plan as the request wants it. */
export async function answer(
  context: ServerContext,
  request: Request,
  plan: GenerationPlan,
  stream: { readonly on: boolean; readonly usage: boolean },
  shape: AnswerShape,
): Promise<object | Response> {
  const record = recordOf(request);
  record.model = plan.served.id;
  record.hybrid = plan.served.hybrid;
  const head = {
    id: `${shape.idPrefix}-${randomBytes(12).toString("hex")}`,
    created: Math.floor(Date.now() / 1000),
    model: plan.served.id,
  };
  return stream.on
    ? streamedAnswer(context, request, plan, stream.usage, shape, head)
    : wholeAnswer(context, request, plan, shape, head);
}

async function wholeAnswer(
  context: ServerContext,
  request: Request,
  plan: GenerationPlan,
  shape: AnswerShape,
  head: object,
): Promise<object> {
  const usage = new UsageCount(plan.n, recordOf(request));
  const pieces = Array.from({ length: plan.n * plan.prompts.length }, (): ChoicePiece[] => []);
  for await (const piece of generateChoices(context, plan, request.signal)) {
    usage.add(piece);
    pieces[piece.index]!.push(piece);
    if (piece.finishReason === "cancelled" && !request.signal.aborted) {
      throw new HttpError(503, "cancelled", "The server ended this request before it was complete");
    }
  }
  const choices = (shape.select?.(pieces) ?? pieces).map((list, index) => shape.choice(index, list));
  return { ...head, object: shape.object, choices, usage: usage.body() };
}

async function streamedAnswer(
  context: ServerContext,
  request: Request,
  plan: GenerationPlan,
  withUsage: boolean,
  shape: AnswerShape,
  head: object,
): Promise<Response> {
  const stop = new AbortController();
  const pieces = generateChoices(context, plan, stop.signal);
  const leave = () => stop.abort();
  request.signal.addEventListener("abort", leave, { once: true });
  // A full queue or a bad request shows before the first token, and then deserves its own status.
  const first = pieces.next();
  await withTimeout(first, FIRST_PIECE_MS);
  const usage = new UsageCount(plan.n, recordOf(request));
  const chunk = (choices: readonly object[], last?: object): SseEvent => ({
    data: JSON.stringify({
      ...head,
      object: shape.chunkObject,
      choices,
      ...(withUsage ? { usage: last ?? null } : {}),
    }),
  });
  async function* events(signal: AbortSignal): AsyncGenerator<SseEvent> {
    signal.addEventListener("abort", leave, { once: true });
    try {
      for (const choice of shape.opening(plan)) yield chunk([choice]);
      for (let next = await first; next.done !== true; next = await pieces.next()) {
        usage.add(next.value);
        const choice = shape.chunk(next.value);
        if (choice !== null) yield chunk([choice]);
      }
      if (withUsage) yield chunk([], usage.body());
      yield { data: "[DONE]" };
    } finally {
      request.signal.removeEventListener("abort", leave);
      leave();
      await pieces.return(undefined);
    }
  }
  return sseResponse(request, events, (error) => {
    const record = recordOf(request);
    const text = logText(error);
    if (text !== null) context.log(text, "error", { request_id: record.id });
    const answer = toHttpError(error);
    record.errorCode = answer.code;
    return [{ data: JSON.stringify(errorBody(answer)) }, { data: "[DONE]" }];
  });
}
