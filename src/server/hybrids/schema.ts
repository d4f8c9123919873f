// Bodies of the hybrid routes.

import { t } from "elysia";
import { integer, name, oneOf, text, VARIANTS, variant } from "../fields.ts";

const MAX_LAYERS = 4096;

/** A hybrid by its mask, by the layers to replace, or out of a search's trajectory. */
export const newHybridBody = t.Object(
  {
    name: name("The hybrid is then served as backbone:name"),
    layers: t.Optional(
      t.Array(oneOf(["full_attention", "full", ...VARIANTS]), {
        minItems: 1,
        maxItems: MAX_LAYERS,
        description: "One entry per layer",
      }),
    ),
    replace: t.Optional(
      t.Array(integer(0, MAX_LAYERS - 1), { maxItems: MAX_LAYERS, description: "Layers to replace" }),
    ),
    variant: t.Optional(variant),
    search: t.Optional(text(128, "Id of a search to take the hybrid from")),
    pick: t.Optional(oneOf(["best", "optimal"])),
    num_replaced: t.Optional(integer(0, MAX_LAYERS, "Take the search's hybrid with this many replaced layers")),
    task: t.Optional(text(128)),
    alias: t.Optional(name("A further name to serve it under")),
    default: t.Optional(t.Boolean({ description: "Make it the meaning of the bare backbone name" })),
  },
  { additionalProperties: false },
);

export const defaultBody = t.Object(
  { name: text(300, 'The hybrid, or "base" for the full backbone') },
  { additionalProperties: false },
);

export const loadBody = t.Object(
  {
    keep_alive: t.Optional(
      integer(-1, 2 ** 31, "Seconds that it stays in memory after its last use; -1: until the room is needed"),
    ),
  },
  { additionalProperties: false },
);
