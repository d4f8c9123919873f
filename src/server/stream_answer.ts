// How the pieces of a generation reach a client, as a stream or all at once. Knows no shape of an answer.

import type { ServerContext } from "./context.ts";
import { HttpError, logText, toHttpError } from "./errors.ts";
import { type ChoicePiece, generateChoices } from "./generation.ts";
import type { GenerationPlan } from "./plan.ts";
import { recordOf } from "./request_record.ts";
import { type SseEvent, sseResponse, withTimeout } from "./sse.ts";

/** How long a stream waits for its first token before the headers go out; until then errors keep their status. */
const FIRST_PIECE_MS = 1000;

/** What makes events of pieces. */
export interface StreamWriter {
  events(pieces: AsyncIterable<ChoicePiece>): AsyncIterable<SseEvent>;
  /** The end of a stream that failed. */
  failure(error: HttpError): readonly SseEvent[];
}

/**
 * Streams a generation. A reader that leaves cancels it.
 * @throws HttpError where it fails before its first token
 */
export async function streamAnswer(
  context: ServerContext,
  request: Request,
  plan: GenerationPlan,
  writer: StreamWriter,
): Promise<Response> {
  recordPlan(request, plan);
  const stop = new AbortController();
  const pieces = generateChoices(context, plan, stop.signal);
  const leave = () => stop.abort();
  request.signal.addEventListener("abort", leave, { once: true });
  // A full queue or a bad request shows before the first token, and then deserves its own status.
  const first = pieces.next();
  await withTimeout(first, FIRST_PIECE_MS);
  async function* all(): AsyncGenerator<ChoicePiece> {
    for (let next = await first; next.done !== true; next = await pieces.next()) yield next.value;
  }
  async function* events(signal: AbortSignal): AsyncGenerator<SseEvent> {
    signal.addEventListener("abort", leave, { once: true });
    try {
      yield* writer.events(all());
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
    return writer.failure(answer);
  });
}

/** The pieces for an answer as a whole. @throws HttpError 503 where the server itself ends it early */
export async function* wholePieces(
  context: ServerContext,
  request: Request,
  plan: GenerationPlan,
): AsyncGenerator<ChoicePiece> {
  recordPlan(request, plan);
  for await (const piece of generateChoices(context, plan, request.signal)) {
    if (piece.finishReason === "cancelled" && !request.signal.aborted) {
      throw endedEarly();
    }
    yield piece;
  }
}

/** The server goes down with this request under way. */
export function endedEarly(): HttpError {
  return new HttpError(503, "cancelled", "The server ended this request before it was complete");
}

function recordPlan(request: Request, { served }: GenerationPlan): void {
  const record = recordOf(request);
  record.model = served.id;
  record.hybrid = served.hybrid;
}
