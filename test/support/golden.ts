// Golden files: where they are, and one of them as named arrays. The folder is GRAFT_GOLDEN, else the golden data beside
// the checkout, else the committed subset.
import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { SafetensorsFile } from "../../src/checkpoint/safetensors.ts";

const root = join(import.meta.dir, "..", "..");
const candidates = [join(root, "..", "shared", "golden"), join(root, "test", "fixtures", "golden")];

/** Folder of the golden files. */
export const goldenDir = process.env.GRAFT_GOLDEN ?? candidates.find((dir) => existsSync(dir)) ?? candidates[1]!;

export interface Golden {
  readonly name: string;
  readonly kind: string;
  readonly hyperparameters: Readonly<Record<string, unknown>>;
  readonly metadata: Readonly<Record<string, string>>;
  names(prefix?: string): string[];
  has(name: string): boolean;
  shape(name: string): readonly number[];
  f32(name: string): Float32Array;
  i32(name: string): Int32Array;
}

/** Every golden file, sorted by name. */
export function allGoldenFiles(): Golden[] {
  if (!existsSync(goldenDir)) return [];
  return readdirSync(goldenDir)
    .filter((file) => file.endsWith(".safetensors"))
    .sort()
    .map((file) => openGolden(join(goldenDir, file)));
}

/** Every golden file whose kind is one of `kinds`, sorted by name. */
export function goldenFiles(...kinds: string[]): Golden[] {
  return allGoldenFiles().filter((golden) => kinds.includes(golden.kind));
}

function openGolden(path: string): Golden {
  const file = new SafetensorsFile(path);
  return {
    name: basename(path, ".safetensors"),
    kind: file.metadata.kind ?? "",
    hyperparameters: JSON.parse(file.metadata.hyperparameters_json ?? "{}") as Record<string, unknown>,
    metadata: file.metadata,
    names: (prefix = "") => [...file.entries.keys()].filter((name) => name.startsWith(prefix)),
    has: (name) => file.entries.has(name),
    shape: (name) => file.get(name).shape,
    f32: (name) => file.float32(name),
    i32: (name) => file.int32(name),
  };
}

/** The golden files' own metric: max|a-b| / max(1e-6, max|b|); NaN anywhere gives infinity. */
export function relativeError(actual: Float32Array, expected: Float32Array): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let scale = 1e-6;
  for (let i = 0; i < expected.length; i++) {
    const d = Math.abs(actual[i]! - expected[i]!);
    if (!(d >= 0)) return Number.POSITIVE_INFINITY;
    difference = Math.max(difference, d);
    scale = Math.max(scale, Math.abs(expected[i]!));
  }
  return difference / scale;
}
