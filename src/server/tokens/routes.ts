// POST /tokenize and /detokenize, in the form of vLLM and llama-server.

import { Elysia, t } from "elysia";
import type { ServerContext } from "../context.ts";
import { HttpError } from "../errors.ts";
import { integer, text } from "../fields.ts";
import { encodePrompt } from "../prompt.ts";

const tokenizeBody = t.Object(
  {
    model: t.Optional(text(300)),
    prompt: t.Optional(t.String({ description: "The text" })),
    content: t.Optional(t.String({ description: "The text, by its name in llama-server" })),
    add_special_tokens: t.Optional(t.Boolean({ description: "Add the tokenizer's bos token; default true" })),
  },
  { additionalProperties: false },
);

const detokenizeBody = t.Object(
  {
    model: t.Optional(text(300)),
    tokens: t.Array(integer(0, 2 ** 31 - 1), { maxItems: 10_000_000 }),
    skip_special_tokens: t.Optional(t.Boolean({ description: "Leave special tokens out; default false" })),
  },
  { additionalProperties: false },
);

export function tokenRoutes(context: ServerContext) {
  return new Elysia({ normalize: false, detail: { tags: ["tokens"] } })
    .post(
      "/tokenize",
      async ({ body }) => {
        const given = body.prompt ?? body.content;
        if (given === undefined) {
          throw new HttpError(400, "missing_parameter", 'Missing parameter "prompt": expected text', "prompt");
        }
        context.hybrids.resolve(body.model);
        const tokens = await encodePrompt(context, given, body.add_special_tokens === false ? "never" : "auto");
        return { tokens, count: tokens.length, max_model_len: context.engine.info.maxContext };
      },
      { parse: "json", body: tokenizeBody },
    )
    .post(
      "/detokenize",
      ({ body }) => {
        context.hybrids.resolve(body.model);
        const { tokenizer } = context.text;
        if (tokenizer === null) throw new HttpError(400, "no_tokenizer", "This model has no tokenizer");
        const wrong = body.tokens.findIndex((id) => id >= context.engine.info.vocabSize);
        if (wrong >= 0) {
          const message = `Invalid "tokens[${wrong}]": got ${body.tokens[wrong]}, the vocabulary has ${context.engine.info.vocabSize} ids`;
          throw new HttpError(400, "invalid_value", message, `tokens[${wrong}]`);
        }
        return { prompt: tokenizer.decode(body.tokens, { skipSpecial: body.skip_special_tokens === true }) };
      },
      { parse: "json", body: detokenizeBody },
    );
}
