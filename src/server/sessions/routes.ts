// /v1/sessions: computed prefixes on the disk, saved by prompt, listed and deleted. They come back by themselves when a
// request begins with one.

import { Elysia } from "elysia";
import type { SessionInfo } from "../../engine/types.ts";
import type { ServerContext } from "../context.ts";
import { encodeConversation } from "../conversation.ts";
import { HttpError, invalidField } from "../errors.ts";
import { checkIds } from "../plan.ts";
import { encodePrompt } from "../prompt.ts";
import { type SessionBody, sessionBody } from "./schema.ts";

export function sessionRoutes(context: ServerContext) {
  const { engine } = context;
  return new Elysia({ normalize: false, prefix: "/v1/sessions", detail: { tags: ["sessions"] } })
    .get("", async () => ({ object: "list", data: (await engine.sessions()).map(view) }))
    .post(
      "",
      async ({ body, request, set }) => {
        const { hybrid } = context.hybrids.resolve(body.model);
        const promptIds = await idsOf(context, body);
        const over = context.lifecycle.begin();
        try {
          // Computes what is not cached yet; what is, costs one step.
          for await (const _ of engine.generate({ hybrid, promptIds, maxTokens: 1 }, request.signal));
          set.status = 201;
          return view(await engine.saveSession(hybrid, promptIds));
        } finally {
          over();
        }
      },
      { parse: "json", body: sessionBody },
    )
    .get("/:id", async ({ params }) => {
      const found = (await engine.sessions()).find(({ id }) => id === params.id);
      if (found === undefined) throw unknown(params.id);
      return view(found);
    })
    .delete("/:id", async ({ params }) => {
      if (!(await engine.deleteSession(params.id))) throw unknown(params.id);
      return { id: params.id, object: "session", deleted: true };
    });
}

async function idsOf(context: ServerContext, { messages, prompt }: SessionBody): Promise<readonly number[]> {
  if ((messages === undefined) === (prompt === undefined)) {
    throw invalidField("prompt", 'Expected either "messages" or "prompt"');
  }
  if (messages !== undefined) return encodeConversation(context, messages);
  if (typeof prompt === "string") return encodePrompt(context, prompt);
  checkIds(prompt!, context.engine.info.vocabSize, "prompt");
  return prompt!;
}

function view({ id, hybrid, tokens, bytes, createdAt, lastUsed, problem }: SessionInfo) {
  return {
    id,
    object: "session",
    hybrid,
    tokens,
    bytes,
    created_at: Math.floor(createdAt / 1000),
    last_used_at: Math.floor(lastUsed / 1000),
    problem,
  };
}

function unknown(id: string): HttpError {
  return new HttpError(404, "unknown_session", `There is no session "${id.slice(0, 100)}"`);
}
