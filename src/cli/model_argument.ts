// What MODEL means on the command line: a folder, a registered name, or either with ":hybrid" behind it. Registers folders
// under their own name. Loads nothing but the config.
import { existsSync, realpathSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { RequestError } from "../errors.ts";
import type { Store } from "../store/database.ts";
import { BUNDLED_NAME, extractBundledModel } from "./bundled_model.ts";
import { suggestion } from "./suggest.ts";

/** A model as the store and the file system know it. */
export interface ModelArgument {
  /** Name in the store, the first half of `backbone:hybrid`. */
  readonly name: string;
  /** Absolute path of its Hugging Face directory. */
  readonly path: string;
  /** What stood behind the last colon, if anything. */
  readonly hybrid: string | null;
}

/**
 * Finds a model by folder or name. A folder that is new to the store is given its base name, numbered if taken.
 * @throws RequestError if there is neither
 */
export function resolveModel(store: Store, argument: string): ModelArgument {
  const whole = findModel(store, argument);
  if (whole !== null) return { ...whole, hybrid: null };
  const colon = argument.lastIndexOf(":");
  const base = colon > 0 ? findModel(store, argument.slice(0, colon)) : null;
  if (base !== null) return { ...base, hybrid: argument.slice(colon + 1) };
  const names = store.models.list().map((model) => model.name);
  const hint = suggestion(argument, names);
  throw new RequestError(
    "unknown_model",
    `Cannot find model "${argument}"${hint}: it is neither a folder with a config.json nor a registered name`,
  );
}

function findModel(store: Store, argument: string): { name: string; path: string } | null {
  if (existsSync(join(argument, "config.json")) && statSync(argument).isDirectory()) {
    const path = realpathSync(argument);
    const known = store.models.findByPath(path);
    return { name: known?.name ?? freeName(store, basename(path)), path };
  }
  const known = store.models.get(argument);
  if (known !== null) return { name: known.name, path: known.path };
  return argument === BUNDLED_NAME ? { name: BUNDLED_NAME, path: extractBundledModel(store.dir.root) } : null;
}

/** The name itself, or the first of name-2, name-3, ... that no model has. Colons separate hybrids, so names have none. */
function freeName(store: Store, wanted: string): string {
  const name = wanted.replaceAll(":", "_");
  for (let i = 1; ; i++) {
    const candidate = i === 1 ? name : `${name}-${i}`;
    if (store.models.get(candidate) === null) return candidate;
  }
}

/** Records what loading has shown. */
export function registerModel(
  store: Store,
  model: ModelArgument,
  facts: { readonly architecture: string; readonly numLayers: number; readonly identity: string },
): void {
  const { name, path } = model;
  const { architecture, numLayers, identity } = facts;
  store.models.put({ name, path, architecture, numLayers, fingerprint: identity });
}
