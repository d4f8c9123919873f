// Names that are typed, or taken from a file's: the rule of the store, in words of the command line.
import { BASE_HYBRID } from "../engine/types.ts";
import { isName, NAME_EXPECTED, NAME_LENGTH } from "../store/names.ts";
import { UsageError } from "./config.ts";

/** The name itself. @throws UsageError where it cannot be part of a path or of `backbone:name` */
export function checkedName(name: string, noun: string): string {
  if (isName(name)) return name;
  const shown = name.length > NAME_LENGTH ? `${name.slice(0, 40)}...` : name;
  throw new UsageError(
    `Cannot name the ${noun} "${shown}": expected at most ${NAME_LENGTH} ${NAME_EXPECTED}; give --name NAME`,
  );
}

/** The same for what will be served as `backbone:name`. @throws UsageError */
export function checkedHybridName(name: string): string {
  if (name !== BASE_HYBRID) return checkedName(name, "hybrid");
  throw new UsageError(
    `Cannot name the hybrid "${BASE_HYBRID}": that always means the full backbone; give --name NAME`,
  );
}
