// How a generation is answered, streamed or whole, for both completion routes; the routes give the shapes.

import { randomBytes } from "node:crypto";
import type { ServerContext } from "./context.ts";
import { errorBody } from "./errors.ts";
import type { ChoicePiece } from "./generation.ts";
import type { GenerationPlan } from "./plan.ts";
import { recordOf } from "./request_record.ts";
import type { SseEvent } from "./sse.ts";
import { streamAnswer, wholePieces } from "./stream_answer.ts";
import { UsageCount } from "./usage.ts";

/** What ends every stream of the completion routes. */
const DONE: SseEvent = { data: "[DONE]" };

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
  for await (const piece of wholePieces(context, request, plan)) {
    usage.add(piece);
    pieces[piece.index]!.push(piece);
  }
  const choices = (shape.select?.(pieces) ?? pieces).map((list, index) => shape.choice(index, list));
  return { ...head, object: shape.object, choices, usage: usage.body() };
}

function streamedAnswer(
  context: ServerContext,
  request: Request,
  plan: GenerationPlan,
  withUsage: boolean,
  shape: AnswerShape,
  head: object,
): Promise<Response> {
  const usage = new UsageCount(plan.n, recordOf(request));
  // What every chunk begins and ends with is made once.
  const front = `${JSON.stringify({ ...head, object: shape.chunkObject }).slice(0, -1)},"choices":[`;
  const back = withUsage ? '],"usage":null}' : "]}";
  const chunk = (choice: object): SseEvent => ({ data: front + JSON.stringify(choice) + back });
  return streamAnswer(context, request, plan, {
    async *events(pieces) {
      for (const choice of shape.opening(plan)) yield chunk(choice);
      for await (const piece of pieces) {
        usage.add(piece);
        const choice = shape.chunk(piece);
        if (choice !== null) yield chunk(choice);
      }
      if (withUsage) yield { data: `${front}],"usage":${JSON.stringify(usage.body())}}` };
      yield DONE;
    },
    failure: (error) => [{ data: JSON.stringify(errorBody(error)) }, DONE],
  });
}
