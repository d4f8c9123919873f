// What is known of one HTTP request while it runs: its id, who sent it, what it asked, how it went. It ends when its
// answer has been sent whole, which for a stream is long after the headers. Knows no route.

import type { Usage } from "../engine/types.ts";
import type { Admission } from "./access/access.ts";

/** Ids of clients that are taken over; anything else gets one of ours. */
const SANE_ID = /^[A-Za-z0-9._:-]{1,128}$/;

/** One request. Everything that is not known yet is null. */
export class RequestRecord {
  readonly id: string;
  /** The client's address, as far as it is known. */
  readonly address: string;
  readonly startedAt = performance.now();
  /** The route's pattern, never the raw path. */
  route = "unknown";
  status: number | null = null;
  /** Code of the error that was answered. */
  errorCode: string | null = null;
  admission: Admission | null = null;
  /** What a generation was asked of: a served name, and the hybrid that it meant. */
  model: string | null = null;
  hybrid: string | null = null;
  /** Counts the tokens so far. */
  usage: (() => Usage) | null = null;
  /** Why the texts ended: each reason once. */
  finishReason: string | null = null;
  /** From the request's start. */
  queueSeconds: number | null = null;
  firstTokenSeconds: number | null = null;
  #held = 1;
  #onEnd: (() => void)[] = [];

  constructor(givenId: string | null, address: string) {
    this.id = givenId !== null && SANE_ID.test(givenId) ? givenId : crypto.randomUUID();
    this.address = address;
  }

  /** Keeps the request from ending; call the result when its part is over. */
  hold(): () => void {
    this.#held++;
    let held = true;
    return () => {
      if (held) this.release();
      held = false;
    };
  }

  /** The answer is made; unless something holds it, the request is over. */
  release(): void {
    if (--this.#held === 0) for (const end of this.#onEnd.splice(0)) end();
  }

  onEnd(callback: () => void): void {
    this.#onEnd.push(callback);
  }
}

const records = new WeakMap<Request, RequestRecord>();

/** The record of a request, made at the first question. */
export function recordOf(request: Request, address = "unknown"): RequestRecord {
  const known = records.get(request);
  if (known !== undefined) return known;
  const record = new RequestRecord(request.headers.get("x-request-id"), address);
  records.set(request, record);
  return record;
}
