// Imports point one way: a file may import from its own folder or from a lower level, and each outside library is
// imported by one folder.
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";

const root = join(import.meta.dir, "..");

/** Folder -> level; main and the errors are files of src itself. */
const levels: Readonly<Record<string, number>> = {
  "src/errors.ts": 0,
  "src/tensor": 1,
  "src/text": 1,
  "src/hub": 1,
  "src/store": 1,
  "src/ops": 2,
  "src/checkpoint": 2,
  "src/data": 2,
  "src/grammar": 2,
  models: 3,
  "src/engine": 4,
  "src/train": 4,
  "src/eval": 5,
  "src/convert": 5,
  "src/pretrain": 5,
  "src/finetune": 5,
  "src/selftest": 5,
  "src/bench": 5,
  "src/search": 6,
  "src/jobs": 7,
  "src/metrics": 7,
  "src/report": 7,
  "src/server": 8,
  "src/cli": 9,
  "src/main.ts": 10,
};

/** Outside library -> the only folder that may import it. */
const owners: Readonly<Record<string, string>> = {
  elysia: "src/server",
  "@elysiajs/openapi": "src/server",
  "prom-client": "src/metrics",
  "bun:sqlite": "src/store",
  "@huggingface/tokenizers": "src/text",
  "@huggingface/jinja": "src/text",
};

function folderOf(file: string): string {
  if (file === "src/errors.ts" || file === "src/main.ts") return file;
  return file.startsWith("models/") ? "models" : file.split("/").slice(0, 2).join("/");
}

const files = ["src", "models"].flatMap((top) =>
  (readdirSync(join(root, top), { recursive: true }) as string[])
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".d.ts"))
    .map((name) => `${top}/${name}`),
);

function importsOf(file: string): string[] {
  const text = readFileSync(join(root, file), "utf8").replaceAll(/^\s*(\/\/|\*|\/\*).*$/gm, "");
  return [...text.matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)"([^"]+)"/g)].map((match) => match[1]!);
}

test("every folder of the sources has a level", () => {
  expect([...new Set(files.map(folderOf))].filter((folder) => levels[folder] === undefined)).toEqual([]);
});

test("imports point down or stay in their folder", () => {
  const broken: string[] = [];
  for (const file of files) {
    const own = folderOf(file);
    for (const target of importsOf(file).filter((name) => name.startsWith("."))) {
      const path = relative(root, normalize(join(root, dirname(file), target)));
      if (!path.startsWith("src/") && !path.startsWith("models/")) continue;
      const folder = folderOf(path);
      if (folder !== own && !(levels[folder]! < levels[own]!)) broken.push(`${file} imports ${path}`);
    }
  }
  expect(broken).toEqual([]);
});

test("an outside library is imported by its one folder", () => {
  const broken: string[] = [];
  for (const file of files) {
    for (const target of importsOf(file)) {
      const owner = owners[target];
      if (owner !== undefined && folderOf(file) !== owner) broken.push(`${file} imports ${target}`);
    }
  }
  expect(broken).toEqual([]);
});
