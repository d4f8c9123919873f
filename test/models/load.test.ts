// Checkpoints as they occur: dtypes, shards, buffers, missing prefixes, aliases, tied heads. Each must give the same logits as
// the plain float32 file, or those of its rounded weights.
import { describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { type LoadOptions, loadModel } from "../../models/load.ts";
import { writeWeights } from "../../src/checkpoint/directory.ts";
import type { TensorToWrite } from "../../src/checkpoint/safetensors.ts";
import type { Ops } from "../../src/ops/ops.ts";
import {
  type Config,
  randomTensors,
  tinyGpt2,
  tinyHybrid,
  tinyLlama,
  tinyQwen2,
  tinyQwen3,
  withTemporary,
  writeCheckpoint,
} from "../support/checkpoints.ts";
import { relativeError } from "../support/golden.ts";
import { bestOps } from "../support/kernels.ts";
import { ModelRun } from "../support/run_model.ts";

const IDS = [1, 5, 39, 7, 7, 0, 12];

function logitsOf(ops: Ops, directory: string, options: LoadOptions = {}): Float32Array {
  const model = loadModel(ops, directory, options);
  const run = new ModelRun(ops, model.backbone, model.mixers, { sequences: 1, maxTokens: IDS.length });
  const rows = run.forward([{ sequence: 0, ids: IDS }]);
  run.close();
  model.free();
  return Float32Array.from(rows.flatMap((row) => [...row]));
}

async function logitsFrom(config: Config, tensors = randomTensors(config), options: LoadOptions = {}) {
  const ops = await bestOps();
  return withTemporary((directory) => logitsOf(ops, writeCheckpoint(directory, config, tensors), options));
}

function renamed(tensors: TensorToWrite[], rename: (name: string) => string): TensorToWrite[] {
  return tensors.map((t) => ({ ...t, name: rename(t.name) }));
}

function zeros(name: string, shape: number[]): TensorToWrite {
  return { name, shape, dtype: "F32", bytes: () => new Uint8Array(shape.reduce((a, b) => a * b, 4)) };
}

describe("loadModel()", () => {
  const families: [string, Config][] = [
    ["llama", tinyLlama],
    ["qwen2", tinyQwen2],
    ["qwen3", tinyQwen3],
    ["gpt2", tinyGpt2],
    ["hybrid", tinyHybrid],
    ["llama with every bias", { ...tinyLlama, attention_bias: true, mlp_bias: true }],
  ];
  for (const [name, config] of families) {
    test(`reads ${name} in F16 and BF16 close to F32`, async () => {
      const exact = await logitsFrom(config);
      expect(exact.every(Number.isFinite)).toBe(true);
      expect(relativeError(await logitsFrom(config, randomTensors(config, "F16")), exact)).toBeLessThan(1e-2);
      expect(relativeError(await logitsFrom(config, randomTensors(config, "BF16")), exact)).toBeLessThan(1e-1);
    });

    test(`holds ${name} in bf16 or f32 as asked, whatever is stored`, async () => {
      const stored = await logitsFrom(config, randomTensors(config, "BF16"));
      expect(await logitsFrom(config, randomTensors(config), { dtype: "bf16" })).not.toEqual(await logitsFrom(config));
      const widened = await logitsFrom(config, randomTensors(config, "BF16"), { dtype: "f32" });
      expect(relativeError(widened, stored)).toBeLessThan(5e-2);
    });
  }

  test("reads shards to the very same logits", async () => {
    const ops = await bestOps();
    const sharded = await withTemporary((directory) => {
      writeCheckpoint(directory, tinyLlama);
      rmSync(join(directory, "model.safetensors"));
      writeWeights(directory, randomTensors(tinyLlama), 8000);
      return [logitsOf(ops, directory), [...new Bun.Glob("*.safetensors").scanSync(directory)].length] as const;
    });
    expect(sharded[1]).toBeGreaterThan(2);
    expect(sharded[0]).toEqual(await logitsFrom(tinyLlama));
  });

  test("reads GPT-2 without the transformer prefix and with its buffers", async () => {
    const bare = renamed(randomTensors(tinyGpt2), (name) => name.replace(/^transformer\./, ""));
    const buffers = [zeros("h.0.attn.bias", [1, 1, 64, 64]), zeros("h.1.attn.masked_bias", [])];
    expect(await logitsFrom(tinyGpt2, [...bare, ...buffers])).toEqual(await logitsFrom(tinyGpt2));
  });

  test("ignores rotary buffers and the copy of a tied head", async () => {
    const all = randomTensors(tinyQwen2);
    const more = [zeros("model.layers.0.self_attn.rotary_emb.inv_freq", [4]), zeros("lm_head.weight", [40, 32])];
    expect(await logitsFrom(tinyQwen2, [...all, ...more])).toEqual(await logitsFrom(tinyQwen2));
  });

  test("reads an untied GPT-2", async () => {
    const untied = { ...tinyGpt2, tie_word_embeddings: false };
    expect(await logitsFrom(untied)).not.toEqual(await logitsFrom(tinyGpt2));
  });

  test("reads FLA's name of the norm and convolutions without their middle dimension", async () => {
    const config = { ...tinyHybrid, linear_conv_kernel_dim: 4, linear_conv_bias: true };
    const all = randomTensors(config);
    const alias = renamed(all, (name) => name.replace("o_norm", "g_norm_swish_gate"));
    const squeezed = alias.map((t) => (t.shape.length === 3 ? { ...t, shape: [t.shape[0]!, t.shape[2]!] } : t));
    expect(await logitsFrom(config, squeezed)).toEqual(await logitsFrom(config, all));
  });

  test("gives one identity to a checkpoint in any layout, another to changed weights", async () => {
    const ops = await bestOps();
    const identity = (change: (t: TensorToWrite[]) => TensorToWrite[], config = tinyLlama) =>
      withTemporary((directory) => {
        const model = loadModel(ops, writeCheckpoint(directory, config, change(randomTensors(config))));
        model.free();
        return model.identity;
      });
    const plain = await identity((t) => t);
    expect(await identity((t) => t.toReversed())).toBe(plain);
    expect(await identity((t) => t, { ...tinyLlama, transformers_version: "5.0" })).toBe(plain);
    expect(await identity((t) => t, { ...tinyLlama, rope_theta: 20_000 })).not.toBe(plain);
    expect(await identity((t) => [zeros(t[0]!.name, [...t[0]!.shape]), ...t.slice(1)])).not.toBe(plain);
  });

  test("limits the context to what is asked for", async () => {
    const ops = await bestOps();
    await withTemporary((directory) => {
      writeCheckpoint(directory, tinyLlama);
      const model = loadModel(ops, directory, { maxContext: 16 });
      expect(model.config.maxPositions).toBe(16);
      model.free();
    });
  });
});
