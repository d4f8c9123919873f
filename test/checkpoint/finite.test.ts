// NaN and infinity in weights: found wherever they stand, in every stored dtype and family, with the tensor's name.
import { expect, test } from "bun:test";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import { firstNonFinite } from "../../src/checkpoint/finite.ts";
import { SafetensorsFile, type TensorToWrite } from "../../src/checkpoint/safetensors.ts";
import { CheckpointError } from "../../src/errors.ts";
import {
  randomTensors,
  tinyGpt2,
  tinyHybrid,
  tinyLlama,
  withTemporary,
  writeCheckpoint,
} from "../support/checkpoints.ts";
import { bestOps } from "../support/kernels.ts";

test("firstNonFinite() finds the first one at every place, whatever the length and alignment", () => {
  const dtypes = [
    ["f32", Uint32Array, [0x7f800000, 0xff800000, 0x7fc00001], [0x7f7fffff, 0xff7fffff, 0, 0x00000001]],
    ["bf16", Uint16Array, [0x7f80, 0xff80, 0x7fc1], [0x7f7f, 0xff7f, 0, 0x0001]],
    ["f16", Uint16Array, [0x7c00, 0xfc00, 0x7e01], [0x7bff, 0xfbff, 0, 0x0001]],
  ] as const;
  for (const [dtype, Bits, bad, good] of dtypes) {
    for (let length = 1; length <= 6; length++) {
      const bits = new Bits(Array.from({ length }, (_, i) => good[i % good.length]!));
      expect(firstNonFinite(new Uint8Array(bits.buffer), dtype)).toBe(-1);
      for (let i = 0; i < length; i++) {
        const spoilt = bits.slice();
        for (let j = i; j < length; j++) spoilt[j] = bad[j % bad.length]!;
        const bytes = new Uint8Array(spoilt.buffer);
        expect(firstNonFinite(bytes, dtype)).toBe(i);
        const shifted = new Uint8Array(bytes.length + 2);
        shifted.set(bytes, 2);
        expect(firstNonFinite(shifted.subarray(2), dtype)).toBe(i);
      }
    }
  }
});

function spoil(tensor: TensorToWrite): TensorToWrite {
  const bytes = () => {
    const values = tensor.bytes().slice();
    // The highest byte of the last element and the one below: infinity in every stored dtype.
    values[values.length - 1] = 0x7f;
    values[values.length - 2] = 0x80;
    if (tensor.dtype === "F16") values[values.length - 1] = 0x7c;
    if (tensor.dtype === "F16") values[values.length - 2] = 0;
    return values;
  };
  return { ...tensor, bytes };
}

test("a weight that is no number is refused with its tensor's name, in every tensor of every family", async () => {
  const ops = await bestOps();
  for (const [config, dtype] of [
    [tinyLlama, "F32"],
    [tinyLlama, "BF16"],
    [tinyGpt2, "F16"],
    [tinyHybrid, "F32"],
  ] as const) {
    await withTemporary((directory) => {
      const tensors = randomTensors(config, dtype);
      tensors.forEach(({ name }, spoilt) => {
        const path = writeCheckpoint(
          join(directory, String(spoilt)),
          config,
          tensors.map((tensor, i) => (i === spoilt ? spoil(tensor) : tensor)),
        );
        let message = "";
        try {
          loadModel(ops, path).free();
        } catch (error) {
          expect(error).toBeInstanceOf(CheckpointError);
          message = (error as Error).message;
        }
        expect(message).toMatch(/^Cannot load tensor ".*": value \d+ is NaN or infinite, expected numbers$/);
        expect(message).toContain(`"${name}"`);
      });
    });
  }
});

test("weights that are no file are refused without waiting for them", () =>
  withTemporary((directory) => {
    const path = join(directory, "model.safetensors");
    expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
    expect(() => new SafetensorsFile(path)).toThrow(/^Cannot open ".*": it is a pipe or a device, expected a file$/);
    rmSync(path);
    mkdirSync(path);
    expect(() => new SafetensorsFile(path)).toThrow(/^Cannot open ".*": it is a directory, expected a file$/);
  }));
