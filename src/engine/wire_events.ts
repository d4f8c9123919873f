// Token events as they cross the thread. Nearly all of them are one token of a stream that goes on: cloning an object for each
// would take longer than a step of a small model, so those travel as numbers in one array, the others as they are.
import type { TokenEvent } from "./types.ts";

/** An event and the stream it belongs to. */
export interface NamedEvent {
  readonly id: number;
  readonly event: TokenEvent;
}

/** A step's events. */
export interface WireEvents {
  /** Five numbers each: stream, token, tokens of the prompt, of the answer, of the prompt from a cache. */
  readonly plain: Float64Array;
  readonly rest: readonly NamedEvent[];
}

const FIELDS = 5;

/** @param events at most one of a stream, whose order among streams means nothing */
export function packEvents(events: readonly NamedEvent[]): WireEvents {
  const rest = events.filter(({ event }) => !isPlain(event));
  const plain = new Float64Array(FIELDS * (events.length - rest.length));
  let at = 0;
  for (const { id, event } of events) {
    if (!isPlain(event)) continue;
    const { promptTokens, completionTokens, cachedTokens } = event.usage;
    plain[at++] = id;
    plain[at++] = event.tokenIds[0]!;
    plain[at++] = promptTokens;
    plain[at++] = completionTokens;
    plain[at++] = cachedTokens;
  }
  return { plain, rest };
}

/** The events again, the plain ones first. */
export function unpackEvents({ plain, rest }: WireEvents): NamedEvent[] {
  const events: NamedEvent[] = [];
  for (let at = 0; at < plain.length; at += FIELDS) {
    const usage = { promptTokens: plain[at + 2]!, completionTokens: plain[at + 3]!, cachedTokens: plain[at + 4]! };
    events.push({ id: plain[at]!, event: { tokenIds: [plain[at + 1]!], finishReason: null, usage } });
  }
  return [...events, ...rest];
}

function isPlain({ tokenIds, logprobs, finishReason, timings }: TokenEvent): boolean {
  return finishReason === null && logprobs === undefined && timings === undefined && tokenIds.length === 1;
}
