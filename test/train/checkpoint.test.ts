import { expect, test } from "bun:test";
import { readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { removeCheckpoints, restoreCheckpoint, saveCheckpoint } from "../../src/train/checkpoint.ts";
import { withTemporary } from "../support/checkpoints.ts";
import { bestOps } from "../support/kernels.ts";

const settings = { seed: 1, data: "abc" };

async function setUp() {
  const ops = await bestOps();
  const values = (step: number) => Float32Array.of(step, -0, 1e-40, step / 3);
  const tensor = ops.empty([2, 2]);
  const tensors = new Map<string, Tensor>([["a", tensor]]);
  const save = (folder: string, step: number) => {
    ops.upload(tensor, values(step));
    saveCheckpoint(ops, folder, tensors, settings, { step, note: { x: [step] } });
  };
  return { ops, tensor, tensors, values, save };
}

test("restoreCheckpoint() gives back the newest state to the bit and two checkpoints are kept", () =>
  withTemporary(async (folder) => {
    const { ops, tensor, tensors, values, save } = await setUp();
    expect(restoreCheckpoint(ops, folder, tensors, settings)).toBeNull();
    for (const step of [1, 2, 30]) save(folder, step);
    expect(readdirSync(folder).sort()).toEqual([
      "checkpoint.0000000002.safetensors",
      "checkpoint.0000000030.safetensors",
    ]);
    ops.zero(tensor);
    expect(restoreCheckpoint(ops, folder, tensors, settings)).toEqual({ step: 30, note: { x: [30] } });
    expect(new Uint8Array(ops.toFloat32(tensor).buffer)).toEqual(new Uint8Array(values(30).buffer));
  }));

test("a damaged checkpoint is passed over for the one before; leftovers of a killed process go away", () =>
  withTemporary(async (folder) => {
    const { ops, tensors, save } = await setUp();
    for (const step of [1, 2]) save(folder, step);
    const newest = join(folder, "checkpoint.0000000002.safetensors");
    truncateSync(newest, readFileSync(newest).length - 3);
    writeFileSync(join(folder, "checkpoint.0000000003.safetensors.77.tmp"), "half");
    expect(restoreCheckpoint(ops, folder, tensors, settings)?.step).toBe(1);
    removeCheckpoints(folder);
    expect(readdirSync(folder)).toEqual([]);
  }));

test("a checkpoint of other settings or shapes is refused by name", () =>
  withTemporary(async (folder) => {
    const { ops, tensors, save } = await setUp();
    save(folder, 1);
    expect(() => restoreCheckpoint(ops, folder, tensors, { ...settings, seed: 2 })).toThrow("seed was 1, now it is 2");
    expect(() => restoreCheckpoint(ops, folder, tensors, { ...settings, extra: true })).toThrow("extra was undefined");
    const other = new Map([["a", ops.empty([4])]]);
    expect(() => restoreCheckpoint(ops, folder, other, settings)).toThrow('tensor "a" is [2,2], expected [4]');
    expect(() => restoreCheckpoint(ops, folder, new Map([["b", ops.empty([4])]]), settings)).toThrow('tensor "b"');
  }));
