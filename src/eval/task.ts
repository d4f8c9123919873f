// Task files: JSON Lines of multiple-choice or completion documents, read, checked and described by line number.
// Knows no tokenizer, model or metric; the format is documented in docs/task_format.md.
import { readFileSync, statSync } from "node:fs";

/** Where a document's text comes from: characters to be tokenised, or ids for models without a tokenizer. */
export type Source = { readonly text: string } | { readonly ids: readonly number[] };

/** A multiple-choice question. */
export interface ChoiceDocument {
  readonly id: string;
  readonly line: number;
  readonly context: Source;
  readonly choices: readonly Source[];
  /** Index of the right choice. */
  readonly gold: number;
}

/** A context and the one right continuation. */
export interface CompletionDocument {
  readonly id: string;
  readonly line: number;
  readonly context: Source;
  readonly completion: Source;
}

/** All documents of a file are of one kind and one source form. */
export type Task =
  | { readonly name: string; readonly kind: "choice"; readonly form: TaskForm; readonly documents: ChoiceDocument[] }
  | {
      readonly name: string;
      readonly kind: "completion";
      readonly form: TaskForm;
      readonly documents: CompletionDocument[];
    };

/** Whether documents hold characters or token ids. */
export type TaskForm = "text" | "ids";

/** Upper bounds on what a task file may hold, so that a wrong file fails early and in words. */
export const taskLimits = {
  fileBytes: 256 * 1024 * 1024,
  documents: 200_000,
  choices: 256,
  /** Code points (text) or ids of one context, choice or completion. */
  length: 1_000_000,
  id: 200,
} as const;

type Fields = Record<string, unknown>;

/** Says what is wrong with one field; the reader adds file and line. */
class FieldError extends Error {}

/**
 * Reads a task file.
 * @throws SyntaxError naming file and line for anything malformed, RangeError for a file past the limits.
 */
export function readTaskFile(path: string): Task {
  let bytes: Uint8Array;
  try {
    const size = statSync(path).size;
    if (size > taskLimits.fileBytes) {
      throw new RangeError(
        `Cannot read task "${path}": it has ${size} bytes, expected at most ${taskLimits.fileBytes}`,
      );
    }
    bytes = readFileSync(path);
  } catch (error) {
    if (error instanceof RangeError) throw error;
    throw new SyntaxError(`Cannot read task "${path}": ${reason(error)}`, { cause: error });
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch (error) {
    throw new SyntaxError(`Cannot read task "${path}": it is not UTF-8 text`, { cause: error });
  }
  return parseTask(text, path, taskNameOf(path));
}

/** "story_cloze" of ".../story_cloze.jsonl"; of ".../story_cloze/search.jsonl" the folder's name. */
export function taskNameOf(path: string): string {
  const parts = path.split("/").filter((part) => part !== "");
  const file = (parts.at(-1) ?? "task").replace(/\.(jsonl|json|txt)$/, "");
  const generic = ["search", "report", "validation", "valid", "dev", "test", "train"];
  const folder = parts.at(-2);
  return generic.includes(file) && folder !== undefined && folder !== "." && folder !== ".." ? folder : file;
}

/**
 * Parses task text. Lines end with LF only (a CR before it is white space to JSON); blank lines are skipped.
 * @throws SyntaxError naming `source` and the line
 */
export function parseTask(text: string, source: string, name: string): Task {
  const documents: (ChoiceDocument | CompletionDocument)[] = [];
  const lineOfId = new Map<string, number>();
  let first: { kind: Task["kind"]; form: TaskForm; line: number } | undefined;
  let line = 0;
  for (const raw of text.split("\n")) {
    line++;
    if (raw.trim() === "") continue;
    try {
      const fields = parseObject(raw);
      const { kind, form } = classify(fields);
      first ??= { kind, form, line };
      if (kind !== first.kind || form !== first.form) {
        throw new FieldError(
          `it is a ${describe(kind, form)} document, expected ${describe(first.kind, first.form)} as on line ${first.line}`,
        );
      }
      const id = readId(fields, line);
      const earlier = lineOfId.get(id);
      if (earlier !== undefined) throw new FieldError(`"id" is "${id}", already used on line ${earlier}`);
      lineOfId.set(id, line);
      documents.push(kind === "choice" ? readChoice(fields, form, id, line) : readCompletion(fields, form, id, line));
      if (documents.length > taskLimits.documents) {
        throw new FieldError(`more than ${taskLimits.documents} documents`);
      }
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      throw new SyntaxError(`Cannot read task "${source}" line ${line}: ${error.message}`, { cause: error });
    }
  }
  if (first === undefined)
    throw new SyntaxError(`Cannot read task "${source}": it holds no document, expected one JSON object a line`);
  return { name, kind: first.kind, form: first.form, documents } as Task;
}

/** Number of Unicode code points, the length that acc_norm divides by. */
export function codePoints(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

function parseObject(raw: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(raw);
  } catch (error) {
    throw new FieldError(`it is not JSON (${reason(error)}), expected one object a line`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FieldError(`it is ${typeName(value)}, expected an object`);
  }
  return value as Fields;
}

function classify(fields: Fields): { kind: Task["kind"]; form: TaskForm } {
  const has = (name: string) => fields[name] !== undefined;
  const text = has("context");
  const ids = has("context_ids");
  if (text && ids) throw new FieldError('both "context" and "context_ids" are given, expected one of them');
  if (!text && !ids) throw new FieldError('"context" is missing (or "context_ids" for token ids)');
  const suffix = ids ? "_ids" : "";
  const other = ids ? "" : "_ids";
  for (const name of ["choices", "completion"]) {
    if (has(name + other)) {
      throw new FieldError(`"${name + other}" does not go with "context${suffix}", expected "${name + suffix}"`);
    }
  }
  const choices = has(`choices${suffix}`);
  const completion = has(`completion${suffix}`);
  if (choices && completion) {
    throw new FieldError(`both "choices${suffix}" and "completion${suffix}" are given, expected one of them`);
  }
  if (!choices && !completion) throw new FieldError(`"choices${suffix}" (or "completion${suffix}") is missing`);
  return { kind: choices ? "choice" : "completion", form: ids ? "ids" : "text" };
}

function readChoice(fields: Fields, form: TaskForm, id: string, line: number): ChoiceDocument {
  const key = form === "ids" ? "choices_ids" : "choices";
  const list = fields[key];
  if (!Array.isArray(list)) throw new FieldError(`"${key}" is ${typeName(list)}, expected an array`);
  if (list.length < 2 || list.length > taskLimits.choices) {
    throw new FieldError(`"${key}" has ${list.length} entries, expected 2 to ${taskLimits.choices}`);
  }
  const choices = list.map((value: unknown, index) => readSource(value, form, `${key}[${index}]`, form === "text"));
  const gold = readGold(fields.gold, choices);
  return { id, line, context: readContext(fields, form), choices, gold };
}

function readCompletion(fields: Fields, form: TaskForm, id: string, line: number): CompletionDocument {
  const key = form === "ids" ? "completion_ids" : "completion";
  if (fields.gold !== undefined) throw new FieldError(`"gold" does not go with "${key}"`);
  return { id, line, context: readContext(fields, form), completion: readSource(fields[key], form, key, false) };
}

function readContext(fields: Fields, form: TaskForm): Source {
  const key = form === "ids" ? "context_ids" : "context";
  return readSource(fields[key], form, key, form === "text");
}

function readSource(value: unknown, form: TaskForm, name: string, emptyAllowed: boolean): Source {
  if (form === "text") {
    if (typeof value !== "string") throw new FieldError(`"${name}" is ${typeName(value)}, expected a string`);
    if (value === "" && !emptyAllowed) throw new FieldError(`"${name}" is empty`);
    if (!value.isWellFormed()) throw new FieldError(`"${name}" holds half of a surrogate pair`);
    checkLength(codePoints(value), name, "characters");
    return { text: value };
  }
  if (!Array.isArray(value)) throw new FieldError(`"${name}" is ${typeName(value)}, expected an array of token ids`);
  if (value.length === 0) throw new FieldError(`"${name}" is empty`);
  checkLength(value.length, name, "ids");
  const wrong = value.findIndex(
    (id: unknown) => !Number.isInteger(id) || (id as number) < 0 || (id as number) > 2 ** 31 - 1,
  );
  if (wrong >= 0) throw new FieldError(`"${name}[${wrong}]" is ${JSON.stringify(value[wrong])}, expected a token id`);
  return { ids: value as number[] };
}

function checkLength(length: number, name: string, unit: string): void {
  if (length > taskLimits.length) {
    throw new FieldError(`"${name}" has ${length} ${unit}, expected at most ${taskLimits.length}`);
  }
}

function readGold(value: unknown, choices: readonly Source[]): number {
  if (value === undefined) throw new FieldError('"gold" is missing');
  if (typeof value === "string") {
    const index = choices.findIndex((choice) => "text" in choice && choice.text === value);
    if (index < 0) throw new FieldError(`"gold" is ${JSON.stringify(value)}, which is none of the choices`);
    return index;
  }
  if (!Number.isInteger(value) || (value as number) < 0 || (value as number) >= choices.length) {
    throw new FieldError(`"gold" is ${JSON.stringify(value)}, expected an index 0 to ${choices.length - 1}`);
  }
  return value as number;
}

function readId(fields: Fields, line: number): string {
  const value = fields.id;
  if (value === undefined) return String(line);
  if (typeof value !== "string" && typeof value !== "number") {
    throw new FieldError(`"id" is ${typeName(value)}, expected a string or a number`);
  }
  const id = String(value);
  if (id === "" || id.length > taskLimits.id) {
    throw new FieldError(`"id" has ${id.length} characters, expected 1 to ${taskLimits.id}`);
  }
  return id;
}

function describe(kind: Task["kind"], form: TaskForm): string {
  return `${kind === "choice" ? "multiple-choice" : "completion"} (${form})`;
}

function typeName(value: unknown): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
