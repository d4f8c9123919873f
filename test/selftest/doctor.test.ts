// graft doctor: what it says of this machine, of a folder that cannot be written, and of a driver that is there.
import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { examine, type Finding } from "../../src/selftest/doctor.ts";
import { isas } from "../support/kernels.ts";

const about = (findings: readonly Finding[], topic: string) => findings.find((finding) => finding.topic === topic);

test("examine() finds this machine fit and leaves the data folder unmade", async () => {
  const folder = mkdtempSync(join(tmpdir(), "graft-test-"));
  try {
    const dataDir = join(folder, "deep", "data");
    const findings = await examine({ version: "1.2.3", dataDir, root: folder });
    expect(findings.filter((finding) => finding.state === "problem")).toEqual([]);
    expect(about(findings, "graft")?.text).toBe("1.2.3");
    expect(about(findings, "kernels")?.text).toStartWith(isas.at(-1)!);
    expect(about(findings, "gpu")).toEqual({
      topic: "gpu",
      state: "note",
      text: "no NVIDIA driver (no /proc/driver/nvidia, no libcuda.so.1): the processor computes",
    });
    expect(about(findings, "data folder")?.text).toContain("made when needed");
    expect(await Bun.file(dataDir).exists()).toBe(false);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("examine() reads the version and the cards of an NVIDIA driver", async () => {
  const root = mkdtempSync(join(tmpdir(), "graft-test-"));
  try {
    const card = join(root, "proc/driver/nvidia/gpus/0000:01:00.0");
    mkdirSync(card, { recursive: true });
    mkdirSync(join(root, "usr/lib64"), { recursive: true });
    writeFileSync(join(card, "information"), "Model: \t\t NVIDIA L4\nIRQ: 1\n");
    writeFileSync(
      join(root, "proc/driver/nvidia/version"),
      "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n",
    );
    writeFileSync(join(root, "usr/lib64/libcuda.so.1"), "");
    const text = about(await examine({ version: "1", dataDir: root, root }), "gpu")!.text;
    expect(text).toStartWith(`driver 550.54.15, ${root}/usr/lib64/libcuda.so.1, NVIDIA L4;`);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("examine() calls a data folder below a file a problem", async () => {
  const folder = mkdtempSync(join(tmpdir(), "graft-test-"));
  try {
    writeFileSync(join(folder, "file"), "");
    const finding = about(await examine({ version: "1", dataDir: join(folder, "file", "data") }), "data folder");
    expect(finding?.state).toBe("problem");
    expect(finding?.text).toContain(join(folder, "file"));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
