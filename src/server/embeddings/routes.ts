// POST /v1/embeddings: known, and not what these models are made for.

import { Elysia } from "elysia";
import { HttpError } from "../errors.ts";

export function embeddingRoutes() {
  return new Elysia({ normalize: false }).post(
    "/v1/embeddings",
    () => {
      throw new HttpError(501, "not_supported", "The served models generate text; they have no embeddings");
    },
    { detail: { tags: ["openai"], summary: "Not supported: always 501" } },
  );
}
