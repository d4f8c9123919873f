// The check before loading: every expected tensor present with its exact shape and a known dtype, none left over. Passed
// tensors are handed on under their canonical names and shapes. Runs before any kernel.
import { printable } from "../src/checkpoint/hf_config.ts";
import type { SafetensorsDType } from "../src/checkpoint/safetensors.ts";
import { type Renamed, RenamedTensors, type TensorReader } from "../src/checkpoint/tensors.ts";
import { CheckpointError } from "../src/errors.ts";
import type { ParameterSpec } from "./parameters.ts";

const FLOATS: readonly SafetensorsDType[] = ["F32", "BF16", "F16"];

/** How a checkpoint may differ from the expected names. */
export interface NameRules {
  /** Canonical name of a stored one. */
  readonly canonical: (name: string) => string;
  /** Tensors that may be present and are not loaded. */
  readonly ignored: (canonical: string) => boolean;
}

/** Names must be as expected. */
export const EXACT_NAMES: NameRules = { canonical: (name) => name, ignored: () => false };

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((d, i) => d === b[i]);
}

/** Short convolutions are stored as [C, 1, W] or [C, W]. */
function fits(stored: readonly number[], expected: readonly number[]): boolean {
  const squeezed = expected.length === 3 && expected[1] === 1 ? [expected[0]!, expected[2]!] : expected;
  return sameShape(stored, expected) || sameShape(stored, squeezed);
}

function refuse(name: string, found: string, expected: string): never {
  throw new CheckpointError(`Cannot load tensor "${printable(name)}": ${found}, expected ${expected}`);
}

/** Canonical name -> stored name. @throws CheckpointError if two stored tensors are the same one. */
function canonicalNames(reader: TensorReader, rules: NameRules): Map<string, string> {
  const stored = new Map<string, string>();
  for (const name of reader.names()) {
    const canonical = rules.canonical(name);
    const other = stored.get(canonical);
    if (other !== undefined) refuse(name, `it is the same tensor as "${printable(other)}"`, "one of them");
    stored.set(canonical, name);
  }
  return stored;
}

/**
 * The expected tensors of `reader`.
 * @throws CheckpointError naming the first tensor that is absent, left over, stored twice or not as expected.
 */
export function verifyTensors(
  reader: TensorReader,
  expected: readonly ParameterSpec[],
  rules: NameRules = EXACT_NAMES,
): TensorReader {
  const stored = canonicalNames(reader, rules);
  const passed = new Map<string, Renamed>();
  for (const { name, shape } of expected) {
    const source = stored.get(name);
    if (source === undefined) refuse(name, "it is absent", `shape [${shape.join(", ")}]`);
    const found = reader.find(source)!;
    if (!fits(found.shape, shape)) refuse(source, `shape is [${found.shape.join(", ")}]`, `[${shape.join(", ")}]`);
    if (!FLOATS.includes(found.dtype)) refuse(source, `dtype is ${found.dtype}`, FLOATS.join(", "));
    passed.set(name, { source, shape });
  }
  for (const [canonical, name] of stored) {
    if (!passed.has(canonical) && !rules.ignored(canonical)) refuse(name, "it is no part of this model", "it absent");
  }
  return new RenamedTensors(reader, passed);
}
