// Where the kernel libraries are put and what is said when the system refuses them.
import { expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openKernels } from "../../src/ops/library.ts";
import { withTemporary } from "../support/checkpoints.ts";

test("libraries are put into the folder that is named, once, and a damaged copy is mended", () =>
  withTemporary(async (folder) => {
    const options = { isa: "reference", extractTo: join(folder, "libs"), extractAlways: true } as const;
    expect((await openKernels(options)).isa).toBe("reference");
    const [name, ...others] = readdirSync(options.extractTo);
    expect([name, others]).toEqual([expect.stringMatching(/^libgraft_reference-[0-9a-f]{16}\.so$/), []]);
    const path = join(options.extractTo, name!);
    const { mtimeMs } = statSync(path);
    await openKernels(options);
    expect(statSync(path).mtimeMs).toBe(mtimeMs);
    const whole = readFileSync(path);
    writeFileSync(join(options.extractTo, "half"), whole.subarray(0, 100));
    renameSync(join(options.extractTo, "half"), path);
    await openKernels(options);
    expect(readFileSync(path).equals(whole)).toBe(true);
  }));

test("a library that cannot be opened or written is one line with the way out", () =>
  withTemporary(async (folder) => {
    await expect(openKernels({ isa: "reference", directory: folder })).rejects.toThrow(/GRAFT_LIB_DIR$/);
    mkdirSync(join(folder, "x"));
    writeFileSync(join(folder, "x", "file"), "");
    const blocked = { isa: "reference", extractTo: join(folder, "x", "file", "libs"), extractAlways: true } as const;
    await expect(openKernels(blocked)).rejects.toThrow("part of the path is a file");
  }));
