// Writing files so that a reader, a crash or a power cut sees the old content or the new one, never a part.
// Knows nothing of what the files mean.

import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { explained } from "./store_error.ts";

/** Where a writer puts the bytes of a file, in order. */
export interface FileSink {
  write(chunk: string | Uint8Array): void;
  /** Bytes written so far. */
  readonly bytes: number;
}

let temporaryCount = 0;

/**
 * Writes a whole file: temporary file beside it, fsync, rename, fsync of the folder (created when missing).
 * When anything fails the old file is untouched and the temporary one is gone.
 * @throws StoreError when the disk is full, read-only or failing; whatever `write` throws
 */
export function writeFileAtomically(path: string, content: string | Uint8Array | ((sink: FileSink) => void)): void {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${process.pid}.${temporaryCount++}.tmp`);
  explained(path, () => {
    mkdirSync(folder, { recursive: true });
    let fd: number | null = openSync(temporary, "wx", 0o644);
    try {
      const sink = fileSink(fd);
      if (typeof content === "function") content(sink);
      else sink.write(content);
      fsyncSync(fd);
      closeSync(fd);
      fd = null;
      renameSync(temporary, path);
    } catch (error) {
      if (fd !== null) closeSync(fd);
      rmSync(temporary, { force: true });
      throw error;
    }
    syncFolder(folder);
  });
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
      for (let offset = 0; offset < data.byteLength; ) offset += writeSync(fd, data, offset, data.byteLength - offset);
      bytes += data.byteLength;
    },
  };
}

/** Makes renames and removals in `folder` survive a power cut. */
export function syncFolder(folder: string): void {
  const fd = openSync(folder, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
