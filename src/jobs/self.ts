// How this program starts itself again: the same executable when compiled, `bun src/main.ts` from a checkout.

import { fileURLToPath } from "node:url";

/** The words that start graft, to be followed by a command and its arguments. */
export function selfCommand(): string[] {
  // A compiled executable carries its sources below a virtual folder and is its own interpreter.
  if (import.meta.url.includes("$bunfs") || import.meta.url.includes("~BUN")) return [process.execPath];
  return [process.execPath, fileURLToPath(new URL("../main.ts", import.meta.url))];
}
