// Text corpora as lists of documents: .txt, .json and .jsonl files, folders and globs of them, and slices of any of these.
// Errors name file and line (or entry). Knows no tokenizer.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { Glob } from "bun";

/** One document: text, or token ids for models without a tokenizer. */
export type Document = { readonly text: string } | { readonly ids: readonly number[] };

const MAX_FILE_BYTES = 1 << 30;
const EXTENSIONS = [".txt", ".json", ".jsonl"];
/** A line of its own between the documents of a .txt file. */
const SEPARATOR = "<|endoftext|>";

/**
 * Reads documents from files, folders (all supported files below, in name order) and globs. A path may end in a slice of
 * its documents as in `stories.json[100:]` or `stories.json[:100]`.
 * A .txt file is one document, or several with lines of `<|endoftext|>` between them; a .json file is an array, a .jsonl
 * file a line each, of strings or of objects with "text" or "ids".
 * @throws SyntaxError naming the file and the place in it
 */
export function readDocuments(paths: readonly string[]): Document[] {
  return paths.flatMap((path) => {
    const slice = /^(.*)\[(\d*):(\d*)\]$/s.exec(path);
    if (slice === null) return readPath(path);
    const [, base, from, to] = slice;
    const documents = readPath(base!);
    const chosen = documents.slice(from === "" ? 0 : Number(from), to === "" ? documents.length : Number(to));
    if (chosen.length === 0) {
      throw new SyntaxError(`Cannot read "${path}": it selects none of ${documents.length} documents`);
    }
    return chosen;
  });
}

function readPath(path: string): Document[] {
  const files = expand(path);
  if (files.length === 0) {
    throw new SyntaxError(`Cannot read "${path}": no file matches, expected one of ${EXTENSIONS.join(", ")}`);
  }
  const documents = files.flatMap(readDocumentFile);
  if (documents.length === 0) throw new SyntaxError(`Cannot read "${path}": it holds no text`);
  return documents;
}

function expand(path: string): string[] {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isFile()) return [path];
  if (stat?.isDirectory()) {
    const names = readdirSync(path, { recursive: true, encoding: "utf8" }).sort();
    return names.map((name) => join(path, name)).filter((file) => isSupported(file) && statSync(file).isFile());
  }
  if (!/[*?{[]/.test(path)) throw new SyntaxError(`Cannot read "${path}": there is no such file or folder`);
  return [...new Glob(path).scanSync({ absolute: path.startsWith("/"), onlyFiles: true })].filter(isSupported).sort();
}

function isSupported(path: string): boolean {
  return EXTENSIONS.some((extension) => path.toLowerCase().endsWith(extension));
}

/** @throws SyntaxError naming the file and the place in it */
export function readDocumentFile(path: string): Document[] {
  const lower = path.toLowerCase();
  if (!isSupported(path)) {
    throw new SyntaxError(`Cannot read "${path}": unknown kind of file, expected one of ${EXTENSIONS.join(", ")}`);
  }
  const text = readText(path);
  if (lower.endsWith(".jsonl")) return parseJsonl(text, path);
  return lower.endsWith(".json") ? parseJson(text, path) : parsePlain(text);
}

function readText(path: string): string {
  try {
    const { size } = statSync(path);
    if (size > MAX_FILE_BYTES) throw new SyntaxError(`it has ${size} bytes, expected at most ${MAX_FILE_BYTES}`);
    return new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(path));
  } catch (cause) {
    const why = cause instanceof TypeError ? "it is not UTF-8 text" : (cause as Error).message;
    throw new SyntaxError(`Cannot read "${path}": ${why}`, { cause });
  }
}

function parsePlain(text: string): Document[] {
  const documents: Document[] = [];
  let lines: string[] = [];
  const end = () => {
    const document = lines.join("\n").trim();
    if (document !== "") documents.push({ text: document });
    lines = [];
  };
  for (const line of text.split("\n")) {
    if (line.trim() === SEPARATOR) end();
    else lines.push(line);
  }
  end();
  return documents;
}

function parseJson(text: string, path: string): Document[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new SyntaxError(`Cannot read "${path}": it is not JSON (${(cause as Error).message})`, { cause });
  }
  if (!Array.isArray(value)) throw new SyntaxError(`Cannot read "${path}": expected an array of documents`);
  return value.flatMap((entry, index) => toDocument(entry, `Cannot read "${path}" entry ${index}`));
}

function parseJsonl(text: string, path: string): Document[] {
  return text.split("\n").flatMap((line, index) => {
    if (line.trim() === "") return [];
    const place = `Cannot read "${path}" line ${index + 1}`;
    try {
      return toDocument(JSON.parse(line), place);
    } catch (cause) {
      if ((cause as Error).message.startsWith("Cannot read")) throw cause;
      throw new SyntaxError(`${place}: it is not JSON (${(cause as Error).message})`, { cause });
    }
  });
}

function toDocument(entry: unknown, place: string): Document[] {
  if (typeof entry === "string") return entry.trim() === "" ? [] : [{ text: entry }];
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
    throw new SyntaxError(`${place}: expected a string or an object with "text" or "ids"`);
  }
  const { text, ids } = entry as { text?: unknown; ids?: unknown };
  if (typeof text === "string") return text.trim() === "" ? [] : [{ text }];
  if (text !== undefined) throw new SyntaxError(`${place}: "text" is not a string`);
  if (!Array.isArray(ids)) throw new SyntaxError(`${place}: it has neither "text" nor "ids"`);
  if (!ids.every((id) => Number.isInteger(id) && id >= 0 && id < 2 ** 31)) {
    throw new SyntaxError(`${place}: "ids" holds something that is no token id`);
  }
  return ids.length === 0 ? [] : [{ ids: ids as number[] }];
}
