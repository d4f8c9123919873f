// Body of POST /v1/searches.

import { t } from "elysia";
import { strategyNames } from "../../search/strategies.ts";
import { integer, name, number, oneOf, text, variant } from "../fields.ts";

export const searchBody = t.Object(
  {
    model: t.Optional(text(300, "The backbone; default: the served one")),
    task: t.Optional(name("A posted task; with documents, the name they are kept under")),
    documents: t.Optional(
      t.Array(t.Unknown(), { minItems: 1, maxItems: 200_000, description: "Documents of a new task" }),
    ),
    variant,
    max_drop: t.Optional(number(0, 1, "Tolerated relative drop of the score, e.g. 0.05")),
    replace: t.Optional(integer(1, 4096, "Replace exactly this many layers")),
    all: t.Optional(t.Boolean({ description: "Go on until every layer is replaced" })),
    strategy: t.Optional(oneOf(strategyNames)),
    metric: t.Optional(oneOf(["acc", "acc_norm", "exact_match"])),
    seed: t.Optional(integer(0, 2 ** 31 - 1, "For the random strategy")),
  },
  { additionalProperties: false },
);
