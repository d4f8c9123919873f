// Writing files so that a reader, a crash or a power cut sees the old content or the new one, never a part.
// Knows nothing of what the files mean.

import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { explained } from "./store_error.ts";

/** Where a writer puts the bytes of a file, in order. */
export interface FileSink {
  write(chunk: string | Uint8Array): void;
  /** Bytes written so far. */
  readonly bytes: number;
}

/** The system takes at most 2 GiB at once. */
const MAX_WRITE = 1 << 30;

let temporaryCount = 0;

/**
 * Writes a whole file; its folder is created when missing.
 * @throws StoreError when the disk is full, read-only or failing; whatever `content` throws
 */
export function writeFileAtomically(path: string, content: string | Uint8Array | ((sink: FileSink) => void)): void {
  const write = typeof content === "function" ? content : (sink: FileSink) => sink.write(content);
  explained(path, () => {
    mkdirSync(dirname(path), { recursive: true });
    const present = statSync(path, { throwIfNoEntry: false });
    if (present === undefined || present.isDirectory()) replaceFile(path, write);
    else if (present.isFile()) replaceFile(realpathSync(path), write);
    else writeOnto(path, write);
  });
}

/** A pipe or a device takes the bytes; nothing may be put in its place. */
function writeOnto(path: string, write: (sink: FileSink) => void): void {
  const fd = openSync(path, "w");
  try {
    write(fileSink(fd));
  } finally {
    closeSync(fd);
  }
}

/**
 * Temporary file beside `path`, fsync, rename, fsync of the folder, which must exist. When anything fails the old file is
 * untouched and the temporary one is gone. @throws what the file system or `write` throws
 */
export function replaceFile(path: string, write: (sink: FileSink) => void): void {
  const temporary = `${path}.${process.pid}.${temporaryCount++}.tmp`;
  let fd: number | null = openSync(temporary, "wx", 0o644);
  try {
    write(fileSink(fd));
    fsyncSync(fd);
    closeSync(fd);
    fd = null;
    renameSync(temporary, path);
  } catch (error) {
    if (fd !== null) closeSync(fd);
    rmSync(temporary, { force: true });
    throw error;
  }
  flush(dirname(path));
}

function fileSink(fd: number): FileSink {
  let bytes = 0;
  return {
    get bytes() {
      return bytes;
    },
    write(chunk) {
      const data = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
      // A write may take less than it was given, above all when the disk is nearly full.
      for (let done = 0; done < data.byteLength; ) {
        done += writeSync(fd, data, done, Math.min(data.byteLength - done, MAX_WRITE));
      }
      bytes += data.byteLength;
    },
  };
}

/** Makes the content of a file, or renames and removals in a folder, survive a power cut. */
export function flush(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
