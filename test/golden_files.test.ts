// No golden file goes untested: each is of a kind that some test asks for, and none is empty.
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { allGoldenFiles, goldenDir } from "./support/golden.ts";

const sources = (readdirSync(import.meta.dir, { recursive: true }) as string[])
  .filter((name) => name.endsWith(".ts"))
  .map((name) => readFileSync(join(import.meta.dir, name), "utf8"));

/** Whether a test asks for the kind: by its name, by a key of a table of limits, or by the variant of an op. */
function isTested(kind: string): boolean {
  const op = /^(gla|gdn)_op$/.exec(kind)?.[1];
  const named = op === undefined ? `(Golden|goldenFiles)\\(\\[?"${kind}"|^  ${kind}: \\[` : `goldenTests\\(\\s*"${op}"`;
  return sources.some((text) => new RegExp(named, "m").test(text));
}

test(`every file of ${goldenDir} is of a kind that is tested`, () => {
  const files = allGoldenFiles();
  expect(files.length).toBeGreaterThan(0);
  const untested = files.filter(({ kind, names }) => !isTested(kind) || names().length === 0);
  expect(untested.map(({ name, kind }) => `${name} (${kind})`)).toEqual([]);
});
