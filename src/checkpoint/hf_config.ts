// Bounded reading of a JSON file and of the fields of a config.json: every number has a range, every refusal is one line
// that names the field. Knows no architecture.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { CheckpointError } from "../errors.ts";

/** Largest JSON file read; the index of a model with 10,000 tensors has about 1 MB. */
const MAX_JSON_BYTES = 32 << 20;

/** A JSON object of unknown content. */
export type JsonObject = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function readWhole(path: string): string {
  const fd = openSync(path, "r");
  try {
    const { size } = fstatSync(fd);
    if (size > MAX_JSON_BYTES) {
      throw new CheckpointError(`Cannot read "${path}": it has ${size} bytes, expected at most ${MAX_JSON_BYTES}`);
    }
    const bytes = Buffer.alloc(size);
    let done = 0;
    while (done < size) {
      const n = readSync(fd, bytes, done, size - done, done);
      if (n === 0) break;
      done += n;
    }
    return bytes.toString("utf8", 0, done);
  } finally {
    closeSync(fd);
  }
}

/** Reads a file that must hold one JSON object. @throws CheckpointError if it is absent, too long or anything else. */
export function readJsonObject(path: string): JsonObject {
  let text: string;
  try {
    text = readWhole(path);
  } catch (cause) {
    if (cause instanceof CheckpointError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code ?? "unknown error";
    throw new CheckpointError(`Cannot read "${path}": ${code === "ENOENT" ? "there is no such file" : code}`, {
      cause,
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const reason = printable((cause as Error).message);
    throw new CheckpointError(`Cannot read "${path}": it is not JSON (${reason})`, { cause });
  }
  if (!isObject(value)) {
    throw new CheckpointError(`Cannot read "${path}": it holds ${describe(value)}, expected an object`);
  }
  return value;
}

/** Text from a file as an error line shows it: no control characters, cut to a readable length. */
export function printable(text: string): string {
  const plain = text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, "?");
  return plain.length > 120 ? `${plain.slice(0, 117)}...` : plain;
}

/** A value as an error line shows it: JSON, cut to a readable length. */
export function describe(value: unknown): string {
  if (value === undefined) return "absent";
  const text = printable(JSON.stringify(value) ?? String(value));
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** Range of a number; both ends included. */
export interface Bounds {
  readonly min: number;
  readonly max: number;
}

/** The fields of one JSON object, read with bounds. A field that is null counts as absent. */
export class ConfigFields {
  readonly values: JsonObject;
  readonly #prefix: string;

  constructor(values: JsonObject, prefix = "") {
    this.values = values;
    this.#prefix = prefix;
  }

  has(name: string): boolean {
    return this.values[name] !== undefined && this.values[name] !== null;
  }

  /** @throws CheckpointError always: the field's value cannot be used. */
  refuse(name: string, expected: string): never {
    const found = describe(this.values[name]);
    throw new CheckpointError(`Cannot use config.json: ${this.#prefix}${name} is ${found}, expected ${expected}`);
  }

  /** @throws CheckpointError if absent without a fallback, not a whole number, or out of bounds. */
  integer(name: string, { min, max }: Bounds, fallback?: number): number {
    if (!this.has(name) && fallback !== undefined) return fallback;
    const value = this.values[name];
    if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max) {
      return this.refuse(name, `an integer from ${min} to ${max}`);
    }
    return value;
  }

  /** @throws CheckpointError if absent without a fallback, not a number, or out of bounds. */
  number(name: string, { min, max }: Bounds, fallback?: number): number {
    if (!this.has(name) && fallback !== undefined) return fallback;
    const value = this.values[name];
    if (typeof value !== "number" || !(value >= min && value <= max)) {
      return this.refuse(name, `a number from ${min} to ${max}`);
    }
    return value;
  }

  /** @throws CheckpointError if present and not true or false. */
  boolean(name: string, fallback: boolean): boolean {
    if (!this.has(name)) return fallback;
    const value = this.values[name];
    return typeof value === "boolean" ? value : this.refuse(name, "true or false");
  }

  /** @throws CheckpointError if the value is none of those allowed. */
  oneOf<T extends string>(name: string, allowed: readonly T[], fallback?: T): T {
    if (!this.has(name) && fallback !== undefined) return fallback;
    const value = allowed.find((a) => a === this.values[name]);
    return value ?? this.refuse(name, allowed.map((a) => `"${a}"`).join(" or "));
  }

  /** The fields of a nested object, or null where there is none. @throws CheckpointError if it is not an object. */
  object(name: string): ConfigFields | null {
    if (!this.has(name)) return null;
    const value = this.values[name];
    return isObject(value) ? new ConfigFields(value, `${this.#prefix}${name}.`) : this.refuse(name, "an object");
  }

  /** @throws CheckpointError if the value is not an array, or longer than `max`. */
  array(name: string, max: number): readonly unknown[] {
    const value = this.values[name];
    if (!Array.isArray(value) || value.length > max) return this.refuse(name, `an array of at most ${max} values`);
    return value;
  }

  /** @throws CheckpointError if the field is present with a value other than those listed. */
  requireAbsentOr(name: string, allowed: readonly unknown[], expected: string): void {
    if (this.has(name) && !allowed.some((a) => a === this.values[name])) this.refuse(name, expected);
  }
}
