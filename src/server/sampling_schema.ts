// The fields that all generating routes share, and what is understood but cannot be honoured.
// The ranges here are the only limits a client meets; the engine checks its own again.

import { t } from "elysia";
import { HttpError } from "./errors.ts";
import { ignored, integer, number, text } from "./fields.ts";

/** Most sequences one request may ask for, over all prompts. */
export const MAX_CHOICES = 128;
/** Most entries of a logit_bias. */
const MAX_BIASES = 1000;
const INT32_MAX = 2 ** 31 - 1;
/** A day. */
const MAX_TIMEOUT_MS = 86_400_000;

/** When a request's turn is, and how long it may take. */
export const urgencyFields = {
  priority: t.Optional(integer(-INT32_MAX, INT32_MAX, "Lower goes first; default 0")),
  timeout_ms: t.Optional(integer(1, MAX_TIMEOUT_MS, "The request fails where it is not complete by then")),
} as const;

/** Fields of a generation, by their OpenAI (or vLLM) names. */
export const samplingFields = {
  model: t.Optional(text(300, "backbone, backbone:task or an alias; default: the served backbone")),
  max_tokens: t.Optional(integer(1, INT32_MAX, "Most tokens to generate; the context's end also ends the text")),
  temperature: t.Optional(number(0, 2, "0 takes the most likely token")),
  top_p: t.Optional(number(1e-6, 1, "Nucleus mass; 1 is off")),
  top_k: t.Optional(integer(-1, INT32_MAX, "Keep the k most likely tokens; 0 and -1 are off")),
  min_p: t.Optional(number(0, 1, "Drop tokens below this part of the top probability; 0 is off")),
  frequency_penalty: t.Optional(number(-2, 2, "Per time a token has been generated; 0 is off")),
  presence_penalty: t.Optional(number(-2, 2, "Once for a token that has been generated; 0 is off")),
  repetition_penalty: t.Optional(number(1e-6, 2, "Divides the logits of tokens of the prompt and the text; 1 is off")),
  logit_bias: t.Optional(
    t.Record(t.String(), number(-100, 100), {
      maxProperties: MAX_BIASES,
      description: "Added to the logits of these token ids",
      expected: `an object of at most ${MAX_BIASES} token ids, each with a number in [-100, 100]`,
    }),
  ),
  seed: t.Optional(
    integer(-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, "Equal requests with equal seeds give equal texts"),
  ),
  n: t.Optional(integer(1, MAX_CHOICES, "Number of choices")),
  stop: t.Optional(
    t.Union(
      [
        t.String({ minLength: 1, maxLength: 1000 }),
        t.Array(t.String({ minLength: 1, maxLength: 1000 }), { maxItems: 16 }),
      ],
      {
        expected: "a text or a list of at most 16 texts, none empty or longer than 1000 characters",
      },
    ),
  ),
  ...urgencyFields,
  stop_token_ids: t.Optional(
    t.Array(integer(0, INT32_MAX), { maxItems: 64, description: "Further ids that end the text" }),
  ),
  ignore_eos: t.Optional(t.Boolean({ description: "Go on after the end-of-text token" })),
  stream: t.Optional(t.Boolean({ description: "Answer as server-sent events" })),
  stream_options: t.Optional(
    t.Object({ include_usage: t.Optional(t.Boolean()), include_obfuscation: ignored }, { additionalProperties: false }),
  ),
  return_token_ids: t.Optional(t.Boolean({ description: "Add token_ids to each choice" })),
  user: t.Optional(text(512, "Accepted and ignored")),
  metadata: t.Optional(
    t.Record(t.String({ maxLength: 64 }), text(512), {
      maxProperties: 16,
      description: "Accepted; a response shows it",
      expected: "an object of at most 16 texts of at most 512 characters",
    }),
  ),
  store: ignored,
  service_tier: ignored,
  safety_identifier: ignored,
  prompt_cache_key: ignored,
  prompt_cache_retention: ignored,
  reasoning_effort: ignored,
  verbosity: ignored,
} as const;

/** The shared fields as they arrive. */
export interface SamplingBody {
  readonly model?: string;
  readonly max_tokens?: number;
  readonly temperature?: number;
  readonly top_p?: number;
  readonly top_k?: number;
  readonly min_p?: number;
  readonly frequency_penalty?: number;
  readonly presence_penalty?: number;
  readonly repetition_penalty?: number;
  readonly logit_bias?: Readonly<Record<string, number>>;
  readonly seed?: number;
  readonly n?: number;
  readonly stop?: string | readonly string[];
  readonly priority?: number;
  readonly timeout_ms?: number;
  readonly stop_token_ids?: readonly number[];
  readonly ignore_eos?: boolean;
  readonly stream?: boolean;
  readonly return_token_ids?: boolean;
}

/** Field -> the values that mean "off"; any other value would change the text and is refused. */
export type NeutralValues = Readonly<Record<string, readonly unknown[]>>;

/**
 * Refuses by name what is understood but not supported.
 * @throws HttpError naming the field
 */
export function refuseUnsupported(body: Readonly<Record<string, unknown>>, neutral: NeutralValues): void {
  for (const [field, values] of Object.entries(neutral)) {
    const value = body[field];
    if (value === undefined) continue;
    const text = JSON.stringify(value);
    if (values.some((allowed) => JSON.stringify(allowed) === text)) continue;
    throw new HttpError(400, "unsupported_parameter", `Parameter "${field}" is not supported; leave it out`, field);
  }
}
