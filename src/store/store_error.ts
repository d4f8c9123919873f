// The store's one error class and the translation of SQLite and file-system failures into it.

/** What went wrong, for callers that answer differently: the server says 507 for a full disk. */
export type StoreErrorCode = "disk_full" | "read_only" | "locked" | "corrupt" | "schema" | "io";

/** The data folder or a file in it cannot be used; nothing was half written. */
export class StoreError extends Error {
  override name = "StoreError";
  readonly code: StoreErrorCode;
  constructor(code: StoreErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

const CAUSES: Readonly<Record<string, readonly [StoreErrorCode, string]>> = {
  SQLITE_FULL: ["disk_full", "the disk is full; free some space and try again"],
  ENOSPC: ["disk_full", "the disk is full; free some space and try again"],
  EDQUOT: ["disk_full", "the disk quota is used up; free some space and try again"],
  SQLITE_READONLY: ["read_only", "it is read-only; make it writable or choose another with --data-dir"],
  EROFS: ["read_only", "the file system is read-only; choose another folder"],
  EACCES: ["read_only", "permission denied; make it writable or choose another"],
  EPERM: ["read_only", "permission denied; make it writable or choose another"],
  SQLITE_CANTOPEN: ["read_only", "it cannot be opened; check that the folder exists and is writable"],
  SQLITE_BUSY: ["locked", "another process holds it for too long; try again"],
  SQLITE_CORRUPT: ["corrupt", "the database is damaged; restore a backup or choose another folder"],
  SQLITE_NOTADB: ["corrupt", "the file is not a graft database; choose another folder"],
  SQLITE_IOERR: ["io", "reading or writing failed; check the disk and the space left on it"],
  EIO: ["io", "reading or writing failed; check the disk"],
  ENOTDIR: ["io", "part of the path is a file; choose another folder"],
  EEXIST: ["io", "a file is in the way; choose another folder"],
  EISDIR: ["io", "a folder is in the way; choose another name"],
};

/** The known meaning of a SQLite or file-system error code, or null when it is neither. */
export function storeErrorFrom(subject: string, error: unknown): StoreError | null {
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
  // Extended codes such as SQLITE_IOERR_WRITE share the meaning of their family.
  const known = CAUSES[code] ?? Object.entries(CAUSES).find(([key]) => code.startsWith(`${key}_`))?.[1];
  return known === undefined
    ? null
    : new StoreError(known[0], `Cannot use "${subject}": ${known[1]}`, { cause: error });
}

/** Runs `body`; a SQLite or file-system failure comes out as a StoreError about `subject`. */
export function explained<T>(subject: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw storeErrorFrom(subject, error) ?? error;
  }
}
