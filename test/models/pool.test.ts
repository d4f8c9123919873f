// Pools on disk and stand-alone hybrids: what was saved is loaded; an exported hybrid gives the logits of the backbone with the
// pool's mixers, byte for byte; what does not fit is refused and leaves nothing behind.
import { describe, expect, test } from "bun:test";
import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TokenMixer, Variant } from "../../models/attention/mixer.ts";
import type { ShapeOverrides } from "../../models/attention/shape.ts";
import { exportHybrid } from "../../models/export.ts";
import { loadModel, loadTrainable, withCheckpoint } from "../../models/load.ts";
import type { Backbone } from "../../models/model.ts";
import { isWholePool, loadPool, readPoolInfo } from "../../models/pool.ts";
import type { Ops } from "../../src/ops/ops.ts";
import {
  type Config,
  tinyGpt2,
  tinyLlama,
  tinyQwen2,
  tinyQwen3,
  withTemporary,
  writeCheckpoint,
} from "../support/checkpoints.ts";
import { bestOps } from "../support/kernels.ts";
import { makePool } from "../support/pools.ts";
import { ModelRun } from "../support/run_model.ts";

const IDS = [1, 5, 39, 7, 7, 0, 12, 30, 2, 2, 9];

function logits(ops: Ops, backbone: Backbone, mixers: readonly (TokenMixer | null)[]): Float32Array[] {
  const run = new ModelRun(ops, backbone, mixers, { sequences: 1, maxTokens: IDS.length });
  const rows = run.forward([{ sequence: 0, ids: IDS }]);
  run.close();
  return rows;
}

describe("pools", () => {
  for (const variant of ["gla", "gdn", "jet"] as const) {
    test(`${variant}: what was saved is loaded`, async () => {
      const ops = await bestOps();
      await withTemporary((directory) => {
        const model = writeCheckpoint(join(directory, "model"), tinyLlama);
        const shape = makePool(model, join(directory, "pool"), variant);
        expect(readPoolInfo(join(directory, "pool"))).toMatchObject({ shape, numLayers: 2, details: { note: "test" } });
        const pool = loadPool(ops, join(directory, "pool"));
        expect(pool.mixers.map((m) => m.kind)).toEqual([variant, variant]);
        expect(readdirSync(join(directory, "pool")).sort()).toEqual(["linear.safetensors", "pool.json"]);
        pool.free();
      });
    });
  }

  test("weights beside the description of another conversion are refused in one line", async () => {
    const ops = await bestOps();
    await withTemporary((directory) => {
      const model = writeCheckpoint(join(directory, "model"), tinyLlama);
      makePool(model, join(directory, "old"), "gla", {}, 4);
      makePool(model, join(directory, "new"), "gla", {}, 5);
      expect([isWholePool(join(directory, "old")), isWholePool(join(directory, "new"))]).toEqual([true, true]);
      copyFileSync(join(directory, "new", "linear.safetensors"), join(directory, "old", "linear.safetensors"));
      expect(isWholePool(join(directory, "old"))).toBe(false);
      expect(() => loadPool(ops, join(directory, "old"))).toThrow(/are of different conversions; convert again$/);
    });
  });

  test("a lying pool.json is refused in one line", async () => {
    const ops = await bestOps();
    await withTemporary((directory) => {
      const model = writeCheckpoint(join(directory, "model"), tinyLlama);
      const pool = join(directory, "pool");
      makePool(model, pool, "gla");
      const good = JSON.parse(readFileSync(join(pool, "pool.json"), "utf8")) as Config;
      const lies: [string, Config][] = [
        ["num_layers", { ...good, num_layers: 1e6 }],
        ["linear.2.q_proj.weight", { ...good, num_layers: 3 }],
        ["no part of this model", { ...good, num_layers: 1 }],
        ["linear_attn_variant", { ...good, shape: { ...(good.shape as Config), linear_attn_variant: "xyz" } }],
        ["shape is", { ...good, shape: { ...(good.shape as Config), linear_key_head_dim: 16 } }],
        ["hidden_size", { ...good, hidden_size: -1 }],
        ["no description of a pool", { ...good, version: 99 }],
      ];
      for (const [words, lie] of lies) {
        writeFileSync(join(pool, "pool.json"), JSON.stringify(lie));
        expect(() => loadPool(ops, pool)).toThrow(words);
        expect(() => loadPool(ops, pool)).not.toThrow(/\n/);
      }
    });
  });
});

describe("exportHybrid()", () => {
  const cases: [name: string, config: Config, layers: (Variant | null)[], overrides: ShapeOverrides][] = [
    ["llama with gla and jet", tinyLlama, ["gla", "jet"], {}],
    ["llama with one gla layer with convolutions", tinyLlama, [null, "gla"], { convKernel: 3, convBias: true }],
    ["qwen2 with gdn", tinyQwen2, ["gdn", null], {}],
    ["qwen3 with jet everywhere", tinyQwen3, ["jet", "jet"], {}],
    ["gpt2 with gla and gdn", tinyGpt2, ["gla", "gdn"], {}],
  ];
  for (const [name, config, layers, overrides] of cases) {
    test(`${name} loads back to the same logits`, async () => {
      const ops = await bestOps();
      await withTemporary((directory) => {
        const modelDirectory = writeCheckpoint(join(directory, "model"), config);
        writeFileSync(join(modelDirectory, "tokenizer.json"), "{}");
        const variants = [...new Set(layers)].filter((v): v is Variant => v !== null);
        const pools = new Map(variants.map((v) => [v, join(directory, v)]));
        for (const [variant, path] of pools)
          makePool(modelDirectory, path, variant, variant === "gla" ? overrides : {});
        const outDirectory = join(directory, "out");
        exportHybrid({ modelDirectory, pools, layers, outDirectory, notes: { task: "t" }, shardBytes: 20_000 });
        const model = loadModel(ops, modelDirectory);
        const loaded = new Map([...pools].map(([v, path]) => [v, loadPool(ops, path)]));
        const mixed = logits(
          ops,
          model.backbone,
          layers.map((v, i) => (v ? loaded.get(v)!.mixers[i]! : null)),
        );
        const hybrid = loadModel(ops, outDirectory);
        expect(hybrid.layerTypes).toEqual(layers.map((v) => (v ? "linear_attention" : "full_attention")));
        expect(logits(ops, hybrid.backbone, hybrid.mixers)).toEqual(mixed);
        expect(mixed).not.toEqual(logits(ops, model.backbone, model.mixers));
        expect(readFileSync(join(outDirectory, "tokenizer.json"), "utf8")).toBe("{}");
        const written = JSON.parse(readFileSync(join(outDirectory, "config.json"), "utf8")) as Config;
        expect([written.model_type, written.base_model_type]).toEqual(["graft_hybrid", config.model_type]);
        expect(readdirSync(directory).sort()).toEqual(["model", "out", ...pools.keys()].sort());
        for (const part of [model, hybrid, ...loaded.values()]) part.free();
      });
    });
  }

  test("refuses what does not fit, and leaves nothing behind", () =>
    withTemporary((directory) => {
      const modelDirectory = writeCheckpoint(join(directory, "model"), tinyLlama);
      const other = writeCheckpoint(join(directory, "other"), { ...tinyLlama, rope_theta: 9000 });
      const pools = new Map<Variant, string>([["gla", join(directory, "gla")]]);
      makePool(modelDirectory, pools.get("gla")!, "gla");
      const outDirectory = join(directory, "out");
      const request = { modelDirectory, pools, layers: ["gla", null] as (Variant | null)[], outDirectory };
      expect(() => exportHybrid({ ...request, layers: ["gla"] })).toThrow("1 layers named, the model has 2");
      expect(() => exportHybrid({ ...request, layers: ["jet", null] })).toThrow("no pool of that variant");
      expect(() => exportHybrid({ ...request, modelDirectory: other })).toThrow("it was made for backbone");
      expect(() => exportHybrid({ ...request, outDirectory: modelDirectory })).toThrow("exists and is not empty");
      expect(existsSync(outDirectory)).toBe(false);
      exportHybrid(request);
      expect(() =>
        exportHybrid({ ...request, modelDirectory: outDirectory, outDirectory: `${outDirectory}2` }),
      ).toThrow("a hybrid already");
      expect(readdirSync(directory).sort()).toEqual(["gla", "model", "other", "out"]);
    }));
});

describe("loadTrainable()", () => {
  for (const config of [tinyLlama, tinyGpt2]) {
    test(`holds a ${String(config.model_type)} as its checkpoint spells it`, async () => {
      const ops = await bestOps();
      await withTemporary((directory) => {
        const source = writeCheckpoint(join(directory, "model"), config);
        const model = loadTrainable(ops, source);
        withCheckpoint(source, (_, tensors) => {
          for (const name of model.params.names()) expect(model.params.read(name)).toEqual(tensors.float32(name));
        });
        model.free();
      });
    });
  }
});
