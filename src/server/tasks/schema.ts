// Body of POST /v1/tasks in its JSON form; its JSON Lines form has the name in the query.

import { t } from "elysia";
import { name } from "../fields.ts";

export const taskBody = t.Union(
  [
    t.String(),
    t.Object(
      {
        name: name("What searches and hybrids will call it"),
        documents: t.Array(t.Unknown(), {
          minItems: 1,
          maxItems: 200_000,
          description: "The documents, as in a task file",
        }),
      },
      { additionalProperties: false },
    ),
  ],
  { expected: "JSON Lines (content type application/jsonl, ?name=NAME) or { name, documents }" },
);

export const taskQuery = t.Object({ name: t.Optional(name("Name of a task posted as JSON Lines")) });
