// One streamed completion as a client sees it: sends the request, notes when each delivery came, and checks what it got.
// Knows the OpenAI wire format and the clock; not why the request is sent.

/** Where requests go. */
export interface Target {
  /** e.g. http://127.0.0.1:8000 */
  readonly url: string;
  readonly apiKey: string | null;
}

/** One request of a load. */
export interface PlannedRequest {
  readonly model: string;
  readonly prompt: string | readonly number[];
  /** Tokens to generate, exactly so many where the end token is ignored. */
  readonly maxTokens: number;
}

/** Settings that all requests of a load share. */
export interface RequestSettings {
  readonly ignoreEos: boolean;
  readonly temperature: number;
  /** Keep the ids of the answer. */
  readonly keepIds?: boolean;
  /** A connection of its own for each request. */
  readonly ownConnection?: boolean;
}

/** What became of one request; times in milliseconds. */
export interface RequestRecord {
  readonly model: string;
  /** Why it counts as failed: "http 429 queue_full", "connection", "2 tokens of 16"; null = it got what it asked for. */
  readonly failure: string | null;
  /** From sending to the first token, and to the end of the stream. */
  readonly ttft: number;
  readonly e2e: number;
  /** Between deliveries of tokens, after the first. */
  readonly gaps: readonly number[];
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
  /** Events of the stream, those without tokens included. */
  readonly numEvents: number;
  /** Empty unless asked for, or where the server does not name them. */
  readonly ids: readonly number[];
}

interface StreamEvent {
  readonly error?: { readonly code?: string | null; readonly type?: string; readonly message?: string };
  readonly choices?: readonly {
    readonly text?: string;
    readonly token_ids?: readonly number[];
    readonly finish_reason?: string | null;
  }[];
  readonly usage?: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details?: { readonly cached_tokens?: number } | null;
  } | null;
}

/** What the events of one stream have said so far. */
class StreamLog {
  readonly #sentAt: number;
  readonly #settings: RequestSettings;
  readonly ids: number[] = [];
  firstAt = 0;
  lastAt = 0;
  readonly gaps: number[] = [];
  numEvents = 0;
  /** Counted from the events, null where the server does not name ids. */
  numIds: number | null = null;
  finishReason: string | null = null;
  usage: NonNullable<StreamEvent["usage"]> | null = null;
  error: string | null = null;
  done = false;

  constructor(sentAt: number, settings: RequestSettings) {
    this.#sentAt = sentAt;
    this.#settings = settings;
  }

  /** Takes the payload of one event that arrived at `now`. */
  take(data: string, now: number): void {
    this.numEvents++;
    if (data === "[DONE]") {
      this.done = true;
      return;
    }
    const { error, choices, usage } = JSON.parse(data) as StreamEvent;
    if (error !== undefined) this.error ??= error.code ?? error.type ?? error.message ?? "unknown";
    if (usage) this.usage = usage;
    const choice = choices?.[0];
    if (choice === undefined) return;
    if (choice.token_ids !== undefined) this.numIds = (this.numIds ?? 0) + choice.token_ids.length;
    if (this.#settings.keepIds === true) this.ids.push(...(choice.token_ids ?? []));
    if (choice.finish_reason) this.finishReason = choice.finish_reason;
    if ((choice.token_ids?.length ?? 0) === 0 && !choice.text) return;
    if (this.firstAt === 0) this.firstAt = now;
    else this.gaps.push(now - this.lastAt);
    this.lastAt = now;
  }

  record(request: PlannedRequest, endedAt: number): RequestRecord {
    return {
      model: request.model,
      failure: this.#failure(request, this.#settings.ignoreEos),
      ttft: this.firstAt - this.#sentAt,
      e2e: endedAt - this.#sentAt,
      gaps: this.gaps,
      promptTokens: this.usage?.prompt_tokens ?? 0,
      cachedTokens: this.usage?.prompt_tokens_details?.cached_tokens ?? 0,
      outputTokens: this.usage?.completion_tokens ?? 0,
      numEvents: this.numEvents,
      ids: this.ids,
    };
  }

  #failure({ prompt, maxTokens }: PlannedRequest, ignoreEos: boolean): string | null {
    if (this.error !== null) return `error ${this.error}`;
    if (!this.done) return "stream cut";
    if (this.usage === null) return "no usage";
    const { prompt_tokens: given, completion_tokens: got } = this.usage;
    if (typeof prompt !== "string" && given !== prompt.length) return `${given} prompt tokens of ${prompt.length}`;
    if (this.numIds !== null && this.finishReason === "length" && this.numIds !== got) {
      return `${this.numIds} token ids, usage says ${got}`;
    }
    if (this.firstAt === 0 && got > 1) return "no token in the stream";
    if (ignoreEos && got !== maxTokens) return `${got} tokens of ${maxTokens}`;
    const reasons = ignoreEos ? ["length"] : ["length", "stop"];
    return reasons.includes(this.finishReason ?? "") ? null : `finish_reason ${this.finishReason}`;
  }
}

/** Sends a request and reads its stream to the end; never rejects but where `signal` aborts. */
export async function sendRequest(
  target: Target,
  request: PlannedRequest,
  settings: RequestSettings,
  signal?: AbortSignal,
): Promise<RequestRecord> {
  const body = JSON.stringify({
    model: request.model,
    prompt: request.prompt,
    max_tokens: request.maxTokens,
    temperature: settings.temperature,
    stream: true,
    stream_options: { include_usage: true },
    ...(settings.ignoreEos ? { ignore_eos: true } : {}),
  });
  const log = new StreamLog(performance.now(), settings);
  const record = (failure?: string) => {
    const made = log.record(request, performance.now());
    return failure === undefined ? made : { ...made, failure };
  };
  try {
    const response = await fetch(`${target.url}/v1/completions`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        ...(target.apiKey === null ? {} : { authorization: `Bearer ${target.apiKey}` }),
      },
      body,
      keepalive: settings.ownConnection !== true,
      ...(signal === undefined ? {} : { signal }),
    });
    if (!response.ok || response.body === null) return record(await refusal(response));
    await readEvents(response.body, (data) => log.take(data, performance.now()));
    return record();
  } catch (error) {
    if (signal?.aborted) throw error;
    return record(error instanceof SyntaxError ? "unreadable event" : "connection");
  }
}

async function refusal(response: Response): Promise<string> {
  const text = await response.text();
  let code = "";
  try {
    const { error } = JSON.parse(text) as StreamEvent;
    code = error?.code ?? error?.type ?? "";
  } catch {
    // Not every server answers in JSON; the status says enough then.
  }
  return `http ${response.status}${code === "" ? "" : ` ${code}`}`;
}

/** Calls `take` with the data of every server-sent event of a body; all events here have one line of data. */
export async function readEvents(body: ReadableStream<Uint8Array>, take: (data: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body) {
    const text = rest + decoder.decode(chunk, { stream: true });
    let from = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", from)) {
      if (text.startsWith("data:", from)) take(text.slice(from + 5, end).trim());
      from = end + 1;
    }
    rest = text.slice(from);
  }
}
