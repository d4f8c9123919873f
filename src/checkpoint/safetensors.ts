// The safetensors format: a bounded reader that trusts nothing in the header, and an atomic writer.
// Format: 8 bytes little-endian header length, JSON header, data. Knows no model.
import { closeSync, fstatSync, openSync, read, readSync, statSync } from "node:fs";
import { CheckpointError } from "../errors.ts";
import { replaceFile } from "../store/files.ts";
import { printable } from "./hf_config.ts";
import type { TensorReader } from "./tensors.ts";

/** Element types of the format that can be read, with their size in bytes. */
const elementBytes = { F32: 4, BF16: 2, F16: 2, F64: 8, I32: 4, I64: 8, U8: 1 } as const;
/** Element type as a header spells it. */
export type SafetensorsDType = keyof typeof elementBytes;

/** Bytes of a tensor's data. */
export function bytesOfStored({ dtype, shape }: { dtype: SafetensorsDType; shape: readonly number[] }): number {
  return shape.reduce((a, b) => a * b, elementBytes[dtype]);
}

/** The reference implementation's own bound on the header. */
const MAX_HEADER_BYTES = 100_000_000;
const MAX_DIMENSIONS = 8;

/** One tensor as the header describes it. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  /** Byte range in the file. */
  readonly begin: number;
  readonly end: number;
}

/** An opened file; tensors are read one at a time. Close it when done. */
export class SafetensorsFile implements TensorReader {
  readonly path: string;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #fd: number;

  /** @throws CheckpointError for anything that is not a sound safetensors file. */
  constructor(path: string) {
    this.path = path;
    try {
      // Opening a pipe would wait for its writer.
      const kind = statSync(path);
      if (!kind.isFile()) {
        throw new TypeError(`it is ${kind.isDirectory() ? "a directory" : "a pipe or a device"}, expected a file`);
      }
      this.#fd = openSync(path, "r");
    } catch (cause) {
      throw new CheckpointError(`Cannot open "${path}": ${(cause as Error).message}`, { cause });
    }
    try {
      const { entries, metadata } = readHeader(path, this.#fd);
      this.entries = entries;
      this.metadata = metadata;
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /** Tells this file from whatever takes its place under the same name. */
  get stamp(): string {
    const { dev, ino, size, mtimeMs } = fstatSync(this.#fd);
    return [dev, ino, size, mtimeMs].join();
  }

  names(): Iterable<string> {
    return this.entries.keys();
  }

  find(name: string): TensorEntry | undefined {
    return this.entries.get(name);
  }

  get(name: string): TensorEntry {
    const entry = this.entries.get(name);
    if (entry === undefined) throw new CheckpointError(`Cannot find tensor "${name}" in "${this.path}"`);
    return entry;
  }

  /** Raw little-endian bytes of a tensor. */
  bytes(name: string): Uint8Array {
    const entry = this.get(name);
    const out = new Uint8Array(entry.end - entry.begin);
    readFully(this.#fd, out, entry.begin, this.path);
    return out;
  }

  /** Fills `out` with the tensor's bytes from byte `offset` on. @throws CheckpointError if they end before it is full. */
  readInto(name: string, offset: number, out: Uint8Array): void {
    const entry = this.get(name);
    if (offset < 0 || entry.begin + offset + out.length > entry.end) {
      throw new CheckpointError(
        `Cannot read tensor "${name}": bytes ${offset} to ${offset + out.length} are outside it`,
      );
    }
    readFully(this.#fd, out, entry.begin + offset, this.path);
  }

  /** As readInto(), in another thread. */
  async read(name: string, offset: number, out: Uint8Array): Promise<void> {
    const { begin } = this.get(name);
    for (let done = 0; done < out.length; ) {
      let got = 0;
      try {
        got = await readAt(this.#fd, out, done, out.length - done, begin + offset + done);
      } catch (cause) {
        throw new CheckpointError(`Cannot read "${this.path}": ${(cause as Error).message}`, { cause });
      }
      if (got === 0) throw new CheckpointError(`Cannot read "${this.path}": the file ended early`);
      done += got;
    }
  }

  /** Values of an F32 tensor, or of another floating type widened (F64 narrowed). */
  float32(name: string): Float32Array {
    const { dtype } = this.get(name);
    const raw = this.bytes(name);
    if (dtype === "F32") return new Float32Array(raw.buffer);
    if (dtype === "F64") return Float32Array.from(new Float64Array(raw.buffer));
    if (dtype === "BF16") return widenBf16(new Uint16Array(raw.buffer));
    if (dtype === "F16") return Float32Array.from(new Float16Array(raw.buffer));
    throw new CheckpointError(`Cannot read tensor "${name}" as floats: dtype is ${dtype}`);
  }

  /** Values of an I32 or I64 tensor. @throws CheckpointError when one does not fit 32 bits. */
  int32(name: string): Int32Array {
    const { dtype } = this.get(name);
    const raw = this.bytes(name);
    if (dtype === "I32") return new Int32Array(raw.buffer);
    if (dtype !== "I64") throw new CheckpointError(`Cannot read tensor "${name}" as integers: dtype is ${dtype}`);
    return Int32Array.from(new BigInt64Array(raw.buffer), (x) => {
      if (x < -2147483648n || x > 2147483647n)
        throw new CheckpointError(`Cannot read tensor "${name}": ${x} is too large`);
      return Number(x);
    });
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** bfloat16 bits as float32. */
export function widenBf16(bits: Uint16Array): Float32Array {
  const out = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = bits[i]! << 16;
  return new Float32Array(out.buffer);
}

function readAt(fd: number, out: Uint8Array, offset: number, length: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, out, offset, length, position, (error, got) => (error ? reject(error) : resolve(got)));
  });
}

function readFully(fd: number, out: Uint8Array, position: number, path: string): void {
  for (let done = 0; done < out.length; ) {
    let got = 0;
    try {
      got = readSync(fd, out, done, Math.min(out.length - done, 1 << 30), position + done);
    } catch (cause) {
      throw new CheckpointError(`Cannot read "${path}": ${(cause as Error).message}`, { cause });
    }
    if (got === 0) throw new CheckpointError(`Cannot read "${path}": the file ended early`);
    done += got;
  }
}

function readHeader(path: string, fd: number) {
  const fail = (reason: string, cause?: unknown): never => {
    throw new CheckpointError(`Cannot read "${path}": ${reason}`, { cause });
  };
  const fileBytes = fstatSync(fd).size;
  if (fileBytes < 8) fail(`file has ${fileBytes} bytes, a safetensors header needs at least 8`);
  const lengthBytes = new Uint8Array(8);
  readFully(fd, lengthBytes, 0, path);
  const length = new DataView(lengthBytes.buffer).getBigUint64(0, true);
  if (length > BigInt(Math.min(MAX_HEADER_BYTES, fileBytes - 8))) {
    fail(`header claims ${length} bytes, file has ${fileBytes} and the limit is ${MAX_HEADER_BYTES}`);
  }
  const headerBytes = new Uint8Array(Number(length));
  readFully(fd, headerBytes, 8, path);
  let header: unknown;
  let text = "";
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(headerBytes);
    header = JSON.parse(text);
  } catch (cause) {
    fail(`header is not JSON (${printable((cause as Error).message)})`, cause);
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) fail("header is not a JSON object");
  const table = header as Record<string, unknown>;
  if (countTopLevelKeys(text) !== Object.keys(table).length) fail("header names a tensor twice");
  const dataStart = 8 + Number(length);
  const entries = Object.entries(table)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, value]) => readEntry(path, name, value, dataStart, fileBytes));
  checkLayout(path, entries, dataStart, fileBytes);
  return { entries: new Map(entries.map((e) => [e.name, e])), metadata: readMetadata(path, table.__metadata__) };
}

function readMetadata(path: string, value: unknown): Record<string, string> {
  if (value === undefined) return {};
  const sound = typeof value === "object" && value !== null && Object.values(value).every((v) => typeof v === "string");
  if (!sound) throw new CheckpointError(`Cannot read "${path}": __metadata__ is not an object of strings`);
  return value as Record<string, string>;
}

function readEntry(path: string, name: string, value: unknown, dataStart: number, fileBytes: number): TensorEntry {
  const fail = (reason: string): never => {
    throw new CheckpointError(`Cannot read "${path}": tensor "${printable(name)}" ${reason}`);
  };
  if (typeof value !== "object" || value === null) fail("is not described by an object");
  const { dtype, shape, data_offsets: offsets } = value as Record<string, unknown>;
  if (typeof dtype !== "string" || !Object.hasOwn(elementBytes, dtype))
    fail(`has unknown dtype ${JSON.stringify(dtype)}`);
  const isCount = (x: unknown): x is number => typeof x === "number" && Number.isSafeInteger(x) && x >= 0;
  if (!Array.isArray(shape) || shape.length > MAX_DIMENSIONS || !shape.every(isCount)) {
    fail(`has a bad shape ${JSON.stringify(shape)?.slice(0, 80)}`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    fail(`has bad data_offsets ${JSON.stringify(offsets)?.slice(0, 80)}`);
  }
  const [begin, end] = offsets as [number, number];
  let bytes = elementBytes[dtype as SafetensorsDType];
  for (const d of shape as number[]) {
    bytes *= d;
    if (!Number.isSafeInteger(bytes)) fail(`has an impossible shape [${shape}]`);
  }
  if (end - begin !== bytes)
    fail(`has ${end - begin} bytes of data, its shape [${shape}] and dtype ${dtype} need ${bytes}`);
  if (dataStart + end > fileBytes) fail(`ends at byte ${dataStart + end}, file has ${fileBytes}`);
  return {
    name,
    dtype: dtype as SafetensorsDType,
    shape: shape as number[],
    begin: dataStart + begin,
    end: dataStart + end,
  };
}

/** Tensors must fill the data section without gap, overlap or tail. */
function checkLayout(path: string, entries: TensorEntry[], dataStart: number, fileBytes: number): void {
  let expected = dataStart;
  for (const entry of [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (entry.begin !== expected) {
      const what = entry.begin < expected ? "overlaps its neighbour" : "leaves a gap before it";
      throw new CheckpointError(`Cannot read "${path}": tensor "${printable(entry.name)}" ${what}`);
    }
    expected = entry.end;
  }
  if (expected !== fileBytes) {
    throw new CheckpointError(`Cannot read "${path}": ${fileBytes - expected} bytes follow the last tensor`);
  }
}

/** Number of keys of the outermost object, duplicates counted; the text is already known to be JSON. */
function countTopLevelKeys(text: string): number {
  let depth = 0;
  let keys = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '"') {
      for (i++; text[i] !== '"'; i++) if (text[i] === "\\") i++;
    } else if (c === "{" || c === "[") depth++;
    else if (c === "}" || c === "]") depth--;
    else if (c === ":" && depth === 1) keys++;
  }
  return keys;
}

/** One tensor of a file to be written. */
export interface TensorToWrite {
  readonly name: string;
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  /** The tensor's little-endian bytes; called once, when its turn comes. */
  readonly bytes: () => Uint8Array;
}

/** Writes a file beside `path`, flushes it to the disk, and renames it over `path`. The old file survives any failure. */
export function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Record<string, string> = {},
): void {
  let offset = 0;
  const header: Record<string, unknown> = { __metadata__: { format: "pt", ...metadata } };
  for (const tensor of tensors) {
    const bytes = bytesOfStored(tensor);
    header[tensor.name] = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(json, 8);
  try {
    replaceFile(path, (sink) => {
      sink.write(head);
      for (const tensor of tensors) {
        const bytes = tensor.bytes();
        const expected = bytesOfStored(tensor);
        if (bytes.length !== expected) {
          throw new RangeError(
            `Cannot write tensor "${tensor.name}": ${bytes.length} bytes, its shape needs ${expected}`,
          );
        }
        sink.write(bytes);
      }
    });
  } catch (cause) {
    throw cause instanceof RangeError
      ? cause
      : new CheckpointError(`Cannot write "${path}": ${(cause as Error).message}`, { cause });
  }
}
