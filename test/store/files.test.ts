// Files and databases when the disk is full, the path is wrong, or another process holds them.
import { afterEach, beforeEach, expect, onTestFinished, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Store } from "../../src/store/database.ts";
import { writeFileAtomically } from "../../src/store/files.ts";
import { tryLock } from "../../src/store/lock.ts";
import { StoreError } from "../../src/store/store_error.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "graft-files-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const caught = (body: () => unknown): Error | null => {
  try {
    body();
    return null;
  } catch (error) {
    return error as Error;
  }
};

/** Mounts a file system of a few blocks at `path`; null where this is not allowed. */
function smallDisk(path: string, bytes: number): (() => void) | null {
  mkdirSync(path);
  const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", `size=${bytes}`, "graft-test", path]);
  return mounted.exitCode === 0 ? () => void Bun.spawnSync(["umount", path]) : null;
}

const canMount = (() => {
  const path = mkdtempSync(join(tmpdir(), "graft-mount-"));
  const unmount = smallDisk(join(path, "disk"), 65536);
  unmount?.();
  rmSync(path, { recursive: true, force: true });
  if (unmount === null) console.error("skipped: no file systems can be mounted here, so no disk can be filled");
  return unmount !== null;
})();

test("writeFileAtomically() replaces a file whole and leaves no temporary one", () => {
  const path = join(root, "deep", "file.json");
  writeFileAtomically(path, "one");
  writeFileAtomically(path, new Uint8Array([116, 119, 111]));
  expect(readFileSync(path, "utf8")).toBe("two");
  const sizes: number[] = [];
  writeFileAtomically(path, (sink) => {
    sink.write("th");
    sizes.push(sink.bytes);
    sink.write(Buffer.from("rée"));
    sizes.push(sink.bytes);
  });
  expect(readFileSync(path, "utf8")).toBe("thrée");
  expect(sizes).toEqual([2, 6]);
  expect(readdirSync(join(root, "deep"))).toEqual(["file.json"]);
});

test("a writer that throws leaves the old file", () => {
  const path = join(root, "file");
  writeFileAtomically(path, "old");
  const error = caught(() =>
    writeFileAtomically(path, (sink) => {
      sink.write("half");
      throw new Error("stopped");
    }),
  );
  expect(error?.message).toBe("stopped");
  expect(readFileSync(path, "utf8")).toBe("old");
  expect(readdirSync(root)).toEqual(["file"]);
});

test("a link stays a link, and a device is written to, never replaced", () => {
  const [file, link] = [join(root, "file"), join(root, "link")];
  writeFileSync(file, "old");
  symlinkSync(file, link);
  writeFileAtomically(link, "new");
  expect(readFileSync(file, "utf8")).toBe("new");
  expect(lstatSync(link).isSymbolicLink()).toBe(true);
  const [device, full] = [join(root, "device"), "/dev/full"];
  symlinkSync(full, device);
  expect(caught(() => writeFileAtomically(device, "x"))).toMatchObject({ code: "disk_full" });
  expect(lstatSync(full).isCharacterDevice()).toBe(true);
  expect(readdirSync(root).sort()).toEqual(["device", "file", "link"]);
});

test("a path through a file, and a folder in the way, are one clear line", () => {
  writeFileSync(join(root, "file"), "");
  mkdirSync(join(root, "folder"));
  writeFileSync(join(root, "folder", "inside"), "");
  for (const path of [join(root, "file", "below"), join(root, "folder")]) {
    const error = caught(() => writeFileAtomically(path, "x"));
    expect(error).toBeInstanceOf(StoreError);
    expect(error?.message).toStartWith(`Cannot use "${path}": `);
  }
  expect(readdirSync(root).sort()).toEqual(["file", "folder"]);
});

test.skipIf(!canMount)("a full disk tears nothing: neither a file nor the database", () => {
  const disk = join(root, "disk");
  const unmount = smallDisk(disk, 400 * 1024)!;
  try {
    const path = join(disk, "file");
    writeFileAtomically(path, "old");
    const store = Store.open(join(disk, "data"));
    store.models.put({ name: "kept", path: "/", architecture: null, numLayers: null, fingerprint: null });
    const error = caught(() => writeFileAtomically(path, new Uint8Array(1 << 20)));
    expect(error).toMatchObject({ code: "disk_full" });
    expect(error?.message).toBe(`Cannot use "${path}": the disk is full; free some space and try again`);
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(disk).sort()).toEqual(["data", "file"]);
    const fill = caught(() =>
      store.transaction(() => {
        for (let i = 0; i < 1000; i++) {
          const name = `m${i}${"x".repeat(1000)}`;
          store.models.put({ name, path: "/", architecture: null, numLayers: null, fingerprint: null });
        }
      }),
    );
    expect(fill).toMatchObject({ code: "disk_full" });
    expect(store.models.list().map(({ name }) => name)).toEqual(["kept"]);
    store.check();
    store.close();
  } finally {
    unmount();
  }
});

test("a data folder that is no database or is damaged says so", () => {
  writeFileSync(join(root, "graft.db"), "this is not a database, it is a letter to the reader, long enough to be one");
  expect(caught(() => Store.open(root))).toMatchObject({ code: "corrupt" });
  const file = join(root, "file");
  writeFileSync(file, "");
  expect(caught(() => Store.open(file))).toBeInstanceOf(StoreError);
});

test("a lock is one process's at a time and dies with it", async () => {
  const path = join(root, "locks", "lock");
  const script = `
    import { tryLock } from ${JSON.stringify(join(import.meta.dir, "..", "..", "src", "store", "lock.ts"))};
    console.log(tryLock(${JSON.stringify(path)}) === null ? "taken" : "mine");
    setInterval(() => {}, 1000);`;
  const children: Bun.Subprocess[] = [];
  const start = async () => {
    const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "ignore" });
    children.push(child);
    const { value } = await child.stdout.getReader().read();
    return { child, said: new TextDecoder().decode(value).trim() };
  };
  onTestFinished(() => {
    for (const child of children) child.kill("SIGKILL");
  });
  const first = await start();
  expect(first.said).toBe("mine");
  expect(tryLock(path)).toBeNull();
  const second = await start();
  expect(second.said).toBe("taken");
  second.child.kill("SIGKILL");
  first.child.kill("SIGKILL");
  await Promise.all([first.child.exited, second.child.exited]);
  const own = tryLock(path);
  expect(own).not.toBeNull();
  expect(tryLock(path)).toBeNull();
  own?.release();
  const again = tryLock(path);
  expect(again).not.toBeNull();
  again?.release();
  expect(existsSync(path)).toBe(true);
});
