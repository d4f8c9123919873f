// POST /tokenize (a text, or a conversation by the model's template) and /detokenize, as vLLM and llama-server have them.

import { Elysia, type Static, t } from "elysia";
import { MAX_MESSAGES, message } from "../chat/schema.ts";
import type { ServerContext } from "../context.ts";
import { encodeConversation } from "../conversation.ts";
import { HttpError, invalidField } from "../errors.ts";
import { integer, text } from "../fields.ts";
import { encodePrompt, tokenText } from "../prompt.ts";
import { toolFields } from "../tools/schema.ts";

const tokenizeBody = t.Object(
  {
    model: t.Optional(text(300)),
    prompt: t.Optional(t.String({ description: "The text" })),
    content: t.Optional(t.String({ description: "The text, by its name in llama-server" })),
    add_special_tokens: t.Optional(t.Boolean({ description: "Add the tokenizer's bos token to a text; default true" })),
    messages: t.Optional(
      t.Array(message, { minItems: 1, maxItems: MAX_MESSAGES, description: "A conversation in place of a text" }),
    ),
    tools: toolFields.tools,
    add_generation_prompt: t.Optional(t.Boolean({ description: "End a conversation with the opening of an answer" })),
    return_token_strs: t.Optional(t.Boolean({ description: "Add token_strs, each token's text" })),
  },
  { additionalProperties: false },
);

type TokenizeBody = Static<typeof tokenizeBody>;

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
        context.hybrids.resolve(body.model);
        const tokens = await tokensOf(context, body);
        return {
          tokens,
          count: tokens.length,
          max_model_len: context.engine.info.maxContext,
          ...(body.return_token_strs === true
            ? { token_strs: tokens.map((id) => tokenText(context, [id], true)) }
            : {}),
        };
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

/** @throws HttpError unless there is one text or one conversation */
async function tokensOf(context: ServerContext, body: TokenizeBody): Promise<number[]> {
  const [field, ...more] = (["prompt", "content", "messages"] as const).filter((name) => body[name] !== undefined);
  if (field === undefined) {
    throw new HttpError(400, "missing_parameter", 'Missing parameter "prompt": expected text', "prompt");
  }
  if (more[0] !== undefined) throw invalidField(more[0], `Send one of "${field}" and "${more[0]}", not both`);
  const { messages, tools = [], add_generation_prompt = true } = body;
  if (messages !== undefined) {
    return encodeConversation(context, messages, { tools, addGenerationPrompt: add_generation_prompt });
  }
  const special = body.add_special_tokens === false ? "never" : "auto";
  return encodePrompt(context, body.prompt ?? body.content ?? "", special, field);
}
