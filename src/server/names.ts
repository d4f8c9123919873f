// Rules and help for names in requests.

import { BASE_HYBRID } from "../engine/types.ts";
import { invalidField } from "./errors.ts";

/** ` (served: a, b, ...)`, at most a handful. */
export function servedNames(names: readonly { readonly id: string }[]): string {
  const ids = names.map((served) => served.id);
  const shown = ids.slice(0, 5).join(", ");
  return `; served: ${shown}${ids.length > 5 ? `, ... (${ids.length} in all)` : ""}`;
}

/**
 * A hybrid's own name out of `task` or `backbone:task`.
 * @throws HttpError when it is another backbone's or the reserved name
 */
export function hybridName(given: string, backbone: string, param: string): string {
  const name = given.startsWith(`${backbone}:`) ? given.slice(backbone.length + 1) : given;
  if (name === BASE_HYBRID)
    throw invalidField(param, `Invalid "${param}": "${BASE_HYBRID}" always means the full backbone`);
  return name;
}
