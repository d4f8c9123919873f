// The folder of saved sessions: finds them by identity and prefix, writes them whole or not at all, and keeps within its
// bytes by dropping the least recently used. Knows files and headers, not what is done with their contents.
import { createHash } from "node:crypto";
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  utimesSync,
} from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { RequestError } from "../../errors.ts";
import { flush } from "../../store/files.ts";
import {
  decodeHeader,
  encodeHeader,
  identityKey,
  prefixHashes,
  SECTIONS,
  type Section,
  type SessionHeader,
} from "./format.ts";

const SUFFIX = ".session";
const NO_SUM = "0".repeat(64);

/** One file. */
export interface StoredSession {
  readonly id: string;
  readonly path: string;
  readonly header: SessionHeader;
  readonly headerBytes: number;
  /** Of the whole file. */
  readonly bytes: number;
  /** Milliseconds since 1970. */
  lastUsed: number;
}

/** The bytes of one section, piece by piece. */
export type Pieces = AsyncIterable<Uint8Array>;

/** All that a folder holds. */
export class SessionStore {
  readonly #directory: string;
  readonly #maxBytes: number;
  readonly #sessions = new Map<string, StoredSession>();
  /** Files that cannot be read, with the reason. */
  readonly damaged = new Map<string, string>();
  #writes = 0;

  /** Reads the headers of what is there. @throws Error where the folder cannot be made */
  constructor(directory: string, maxBytes: number) {
    this.#directory = directory;
    this.#maxBytes = maxBytes;
    // What a session holds are people's texts.
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(directory)) {
      if (name.endsWith(".tmp")) rmSync(join(directory, name), { force: true });
      if (name.endsWith(SUFFIX)) this.#look(name);
    }
    this.#makeRoom(0);
  }

  get maxBytes(): number {
    return this.#maxBytes;
  }

  get bytes(): number {
    return [...this.#sessions.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  list(): StoredSession[] {
    return [...this.#sessions.values()].sort((a, b) => b.lastUsed - a.lastUsed);
  }

  /** The id of the session of a prefix. */
  static idOf(identity: Readonly<Record<string, string>>, prefix: string): string {
    return createHash("sha256")
      .update(identityKey(identity) + prefix)
      .digest("hex")
      .slice(0, 32);
  }

  get(id: string): StoredSession | null {
    return this.#sessions.get(id) ?? null;
  }

  /** The longest saved prefix of at most `limit` of these tokens under this very identity. */
  find(identity: Readonly<Record<string, string>>, tokens: readonly number[], limit: number): StoredSession | null {
    if (this.#sessions.size === 0) return null;
    const key = identityKey(identity);
    const lengths = new Set<number>();
    for (const { header } of this.#sessions.values()) {
      if (header.position <= limit && identityKey(header.identity) === key) lengths.add(header.position);
    }
    const ascending = [...lengths].sort((a, b) => a - b);
    const ids = prefixHashes(tokens, ascending).map((prefix) => SessionStore.idOf(identity, prefix));
    const found = ids.findLast((id) => this.#sessions.has(id));
    return found === undefined ? null : this.#sessions.get(found)!;
  }

  /** Notes a use, by which the least recently used is known after a restart too. */
  touch(session: StoredSession): void {
    session.lastUsed = Date.now();
    try {
      utimesSync(session.path, new Date(), new Date());
    } catch {
      // Another process may have removed it; a reader will notice.
    }
  }

  remove(id: string): boolean {
    const session = this.#sessions.get(id);
    if (session === undefined) return false;
    this.#sessions.delete(id);
    rmSync(session.path, { force: true });
    return true;
  }

  /**
   * Writes a session beside its place and puts it there when it is on the disk. The sections' checksums are filled in.
   * @throws RequestError where it is larger than the folder may be, Error where the disk refuses
   */
  async write(header: SessionHeader, contents: Readonly<Record<Section, () => Pieces>>): Promise<StoredSession> {
    const id = SessionStore.idOf(header.identity, header.prefix);
    const path = join(this.#directory, id + SUFFIX);
    const headerBytes = encodeHeader(withSums(header, () => NO_SUM)).length;
    const bytes = SECTIONS.reduce((sum, name) => sum + header.sections[name].bytes, headerBytes);
    if (bytes > this.#maxBytes) {
      throw new RequestError(
        "session_too_large",
        `Cannot save the session: it has ${bytes} bytes, the limit of all is ${this.#maxBytes}`,
      );
    }
    this.remove(id);
    this.#makeRoom(bytes);
    const temporary = `${path}.${process.pid}.${this.#writes++}.tmp`;
    const file = await open(temporary, "wx", 0o600);
    try {
      const sums = await writeSections(file, headerBytes, contents);
      const final = withSums(header, (name) => sums[name]);
      await writeFully(file, encodeHeader(final), 0);
      await file.sync();
      await file.close();
      await rename(temporary, path);
      flush(this.#directory);
      const session = { id, path, header: final, headerBytes, bytes, lastUsed: Date.now() };
      this.#sessions.set(id, session);
      return session;
    } catch (error) {
      await file.close().catch(() => {});
      await rm(temporary, { force: true });
      throw error;
    }
  }

  #makeRoom(bytes: number): void {
    const oldest = this.list().reverse();
    for (const session of oldest) {
      if (this.bytes + bytes <= this.#maxBytes) return;
      this.remove(session.id);
    }
  }

  #look(name: string): void {
    const path = join(this.#directory, name);
    try {
      const fd = openSync(path, "r");
      try {
        const { size } = fstatSync(fd);
        const { header, bytes } = decodeHeader(size, (out, at) => void readSync(fd, out, 0, out.length, at));
        const id = SessionStore.idOf(header.identity, header.prefix);
        if (id + SUFFIX !== name) throw new RangeError("its name is that of another session");
        this.#sessions.set(id, { id, path, header, headerBytes: bytes, bytes: size, lastUsed: statSync(path).mtimeMs });
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      this.damaged.set(name, error instanceof Error ? error.message : String(error));
    }
  }
}

/** Hands the sections of a session to `use` piece by piece. @throws RangeError where the bytes are not those written */
export async function readSections(
  session: StoredSession,
  pieceBytes: Readonly<Record<Section, number>>,
  use: (name: Section, piece: Uint8Array, at: number) => Promise<void>,
): Promise<void> {
  const file = await open(session.path, "r");
  try {
    let begin = session.headerBytes;
    for (const name of SECTIONS) {
      const { bytes, sha256 } = session.header.sections[name];
      const hash = createHash("sha256");
      for (let at = 0; at < bytes; at += pieceBytes[name]) {
        const piece = new Uint8Array(Math.min(pieceBytes[name], bytes - at));
        await readFully(file, piece, begin + at);
        await use(name, piece, at);
        hash.update(piece);
      }
      if (hash.digest("hex") !== sha256) throw new RangeError(`its ${name} are damaged`);
      begin += bytes;
    }
  } finally {
    await file.close();
  }
}

async function writeSections(
  file: FileHandle,
  from: number,
  contents: Readonly<Record<Section, () => Pieces>>,
): Promise<Record<Section, string>> {
  const sums = { tokens: "", states: "", pages: "" };
  let at = from;
  for (const name of SECTIONS) {
    const hash = createHash("sha256");
    for await (const piece of contents[name]()) {
      hash.update(piece);
      await writeFully(file, piece, at);
      at += piece.length;
    }
    sums[name] = hash.digest("hex");
  }
  return sums;
}

async function writeFully(file: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
  }
}

async function readFully(file: FileHandle, out: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < out.length; ) {
    const { bytesRead } = await file.read(out, done, out.length - done, at + done);
    if (bytesRead === 0) throw new RangeError("the file is cut off");
    done += bytesRead;
  }
}

function withSums(header: SessionHeader, sum: (name: Section) => string): SessionHeader {
  const section = (name: Section) => ({ bytes: header.sections[name].bytes, sha256: sum(name) });
  return { ...header, sections: { tokens: section("tokens"), states: section("states"), pages: section("pages") } };
}
