// From what a request says of a hybrid to its mask, one entry per layer. Knows no engine.

import type { Static } from "elysia";
import type { Store } from "../../store/database.ts";
import { HttpError, invalidField } from "../errors.ts";
import type { newHybridBody } from "./schema.ts";

export type NewHybridBody = Static<typeof newHybridBody>;
type Mask = readonly (string | null)[];

/**
 * The mask that the body describes in exactly one of its three ways.
 * @throws HttpError naming the field
 */
export function maskOf(body: NewHybridBody, numLayers: number, store: Store): Mask {
  const ways = (["layers", "replace", "search"] as const).filter((field) => body[field] !== undefined);
  const [way] = ways;
  if (way === undefined || ways.length > 1) {
    const message = `Give exactly one of "layers", "replace" and "search", got ${ways.length === 0 ? "none" : ways.join(" and ")}`;
    throw new HttpError(400, "invalid_value", message, ways[1] ?? "layers");
  }
  const mask =
    way === "layers" ? byLayers(body) : way === "replace" ? byReplaced(body, numLayers) : bySearch(body, store);
  if (mask.length !== numLayers) {
    throw invalidField(way, `Invalid "${way}": it describes ${mask.length} layers, the backbone has ${numLayers}`);
  }
  return mask;
}

function byLayers(body: NewHybridBody): Mask {
  return body.layers!.map((layer) => (layer === "full" || layer === "full_attention" ? null : layer));
}

function byReplaced(body: NewHybridBody, numLayers: number): Mask {
  const { variant } = body;
  if (variant === undefined) throw invalidField("variant", 'Missing parameter "variant": "replace" needs it');
  const outside = body.replace!.find((layer) => layer >= numLayers);
  if (outside !== undefined) {
    throw invalidField("replace", `Invalid "replace": there is no layer ${outside}, the backbone has ${numLayers}`);
  }
  const replaced = new Set(body.replace);
  return Array.from({ length: numLayers }, (_, layer) => (replaced.has(layer) ? variant : null));
}

function bySearch(body: NewHybridBody, store: Store): Mask {
  const search = store.searches.get(body.search!);
  if (search === null) throw new HttpError(404, "unknown_search", `There is no search "${body.search}"`, "search");
  if (body.num_replaced !== undefined) {
    const found = store.candidates
      .list(search.id)
      .find((one) => one.chosen && one.layers.filter((layer) => layer !== null).length === body.num_replaced);
    if (found !== undefined) return found.layers;
    throw invalidField("num_replaced", `Search "${search.id}" has no hybrid with ${body.num_replaced} replaced layers`);
  }
  const found = body.pick === "best" ? search.best : search.opt;
  if (found !== null) return found.layers;
  throw new HttpError(409, "search_unfinished", `Search "${search.id}" has found no hybrid yet`, "search");
}
