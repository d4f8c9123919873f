// graft doctor: what it says of this machine, of a folder that cannot be written, and of a driver that is there.
import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hasCudaKernels } from "../../src/ops/library.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { describeDevice, examine, type Finding } from "../../src/selftest/doctor.ts";
import { isas, opsOf } from "../support/kernels.ts";

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
      text: "no NVIDIA driver (no /proc/driver/nvidia, no libcuda.so.1)",
    });
    const built = await hasCudaKernels();
    expect(about(findings, "cuda kernels")?.state).toBe(built ? "ok" : "note");
    const why = built ? "there is no NVIDIA driver here (no /dev/nvidiactl)" : "no CUDA kernels";
    expect(about(findings, "device")).toEqual({
      topic: "device",
      state: "note",
      text: `${why}: the processor computes`,
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
    expect(text).toBe(`driver 550.54.15, ${root}/usr/lib64/libcuda.so.1, NVIDIA L4`);
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

test("a device that was asked for and is not there is a problem", async () => {
  const root = mkdtempSync(join(tmpdir(), "graft-test-"));
  try {
    const findings = await examine({ version: "1", dataDir: root, root, kernels: { device: "cuda" } });
    expect(about(findings, "device")).toMatchObject({ state: "problem" });
    expect(about(findings, "kernels")?.state).toBe("ok");
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("a device that answers is described by what its library says of it", async () => {
  const info = () => ({
    ...{ name: "NVIDIA H200", isa: "sm_90", threads: 132, features: ["driver 12.8", "wgmma"] },
    ...{ memory: 150_000_000_000, free: 149_000_000_000 },
  });
  const ops = Object.create(await opsOf("simt"), { info: { value: info } }) as Ops;
  const text =
    "NVIDIA H200, compute capability 9.0, 132 multiprocessors, 138.8 GiB free of 139.7 GiB, driver 12.8, wgmma";
  expect(describeDevice(ops, { device: "auto" })).toBe(text);
  expect(describeDevice(ops, { device: "cpu" })).toBe(`${text}; not used: the processor is asked for`);
  expect(describeDevice(ops, { device: "auto", isa: "avx2" })).toBe(`${text}; not used: the processor is asked for`);
});
