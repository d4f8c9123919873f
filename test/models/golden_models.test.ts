// Every golden model: loaded from its directory, logits, captures, greedy tokens; whole = chunked = token by token as bytes;
// loss and every gradient of the training form.
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadModel, loadTrainable } from "../../models/load.ts";
import { crossEntropyInPlace } from "../../models/train_layers.ts";
import { batchesInOrder, RowBatcher, runParent } from "../../src/convert/parent.ts";
import { makeRowSet, numRows } from "../../src/data/rows.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { Arena } from "../../src/tensor/arena.ts";
import { type Config, writeCheckpoint } from "../support/checkpoints.ts";
import { type Golden, goldenDir, goldenFiles, relativeError } from "../support/golden.ts";
import { forwardLibraries, isas, opsOf } from "../support/kernels.ts";
import { createRows, shiftLabels } from "../support/rows.ts";
import { ModelRun } from "../support/run_model.ts";

const FORWARD = 1e-4;
const GRADS = 5e-4;
const BF16 = 5e-2;

const written = mkdtempSync(join(tmpdir(), "graft-golden-"));
afterAll(() => rmSync(written, { recursive: true, force: true }));

/** The checkpoint beside the golden file, or, where there is none, one made of the file's own parameters. */
function directoryOf(golden: Golden): string {
  const name = golden.name.replace(/^model_/, "");
  const stored = join(goldenDir, "models", name);
  if (existsSync(stored)) return stored;
  const directory = join(written, name);
  if (existsSync(directory)) return directory;
  const tensors = golden.names("param.").map((param) => {
    const bytes = () => new Uint8Array(golden.f32(param).buffer);
    return { name: param.slice("param.".length), dtype: "F32" as const, shape: golden.shape(param), bytes };
  });
  return writeCheckpoint(directory, JSON.parse(golden.metadata.config_json!) as Config, tensors);
}

function compare(actual: Float32Array, golden: Golden, name: string, limit: number): void {
  const error = relativeError(actual, golden.f32(name));
  if (!(error <= limit)) throw new Error(`${golden.name} ${name}: relative error ${error}, limit ${limit}`);
}

function prompts(golden: Golden): number[][] {
  const [B, T] = golden.shape("input.token_ids") as [number, number];
  const ids = [...golden.i32("input.token_ids")];
  return Array.from({ length: B }, (_, b) => ids.slice(b * T, (b + 1) * T));
}

function concat(rows: readonly Float32Array[]): Float32Array {
  return Float32Array.from(rows.flatMap((row) => [...row]));
}

function serving(ops: Ops, golden: Golden): void {
  const model = loadModel(ops, directoryOf(golden));
  const sequences = prompts(golden);
  const T = sequences[0]!.length;
  const run = () => new ModelRun(ops, model.backbone, model.mixers, { sequences: sequences.length, maxTokens: T + 16 });
  const whole = run();
  const captures: [input: Float32Array, output: Float32Array][] = [];
  const feeds = sequences.map((ids, sequence) => ({ sequence, ids }));
  const logits = whole.forward(feeds, (_, input, output) =>
    captures.push([ops.toFloat32(input), ops.toFloat32(output)]),
  );
  compare(concat(logits), golden, "output.logits", FORWARD);
  captures.forEach(([input, output], i) => {
    compare(input, golden, `capture.layers.${i}.attn_input`, FORWARD);
    compare(output, golden, `capture.layers.${i}.attn_output`, FORWARD);
  });
  for (const step of [1, 5]) {
    const parts = run();
    sequences.forEach((ids, sequence) => {
      for (let t = 0; t < T; t += step) {
        const rows = parts.forward([{ sequence, ids: ids.slice(t, t + step) }]);
        rows.forEach((row, i) => void expect(row).toEqual(logits[sequence * T + t + i]!));
      }
    });
    parts.close();
  }
  const greedy = run();
  const expected = [...golden.i32("expected.greedy_tokens")];
  const count = expected.length / sequences.length;
  expect(sequences.flatMap((ids, sequence) => greedy.greedy(sequence, ids, count))).toEqual(expected);
  for (const r of [whole, greedy]) r.close();
  model.free();
}

/** bf16 weights and cache: close to the golden logits, and whole = token by token as bytes all the same. */
function rounded(ops: Ops, golden: Golden): void {
  const model = loadModel(ops, directoryOf(golden), { dtype: "bf16" });
  const sequences = prompts(golden);
  const options = { sequences: sequences.length, maxTokens: sequences[0]!.length, kvDtype: "bf16" } as const;
  const [whole, single] = [0, 1].map(() => new ModelRun(ops, model.backbone, model.mixers, options)) as [
    ModelRun,
    ModelRun,
  ];
  const logits = whole.forward(sequences.map((ids, sequence) => ({ sequence, ids })));
  compare(concat(logits), golden, "output.logits", BF16);
  const T = sequences[0]!.length;
  for (let t = 0; t < T; t++) {
    const rows = single.forward(sequences.map((ids, sequence) => ({ sequence, ids: [ids[t]!] })));
    rows.forEach((row, sequence) => {
      expect(row).toEqual(logits[sequence * T + t]!);
    });
  }
  for (const run of [whole, single]) run.close();
  model.free();
}

/** The pass that conversion feeds its students from. */
function dense(ops: Ops, golden: Golden): void {
  const model = loadModel(ops, directoryOf(golden));
  const rows = makeRowSet(prompts(golden));
  const ctx = { ops, arena: new Arena(ops) };
  const batcher = new RowBatcher(ops, rows.ids.length, numRows(rows));
  const [batch] = batchesInOrder(rows, rows.ids.length, numRows(rows));
  let layers = 0;
  runParent(ctx, model.backbone, batcher.load(rows, batch!), (layer, input, output) => {
    layers++;
    compare(ops.toFloat32(input), golden, `capture.layers.${layer}.attn_input`, FORWARD);
    compare(ops.toFloat32(output), golden, `capture.layers.${layer}.attn_output`, FORWARD);
  });
  expect(layers).toBe(model.config.numLayers);
  ctx.arena.close();
  batcher.free();
  model.free();
}

function training(ops: Ops, golden: Golden): void {
  const model = loadTrainable(ops, directoryOf(golden));
  const sequences = prompts(golden);
  const T = sequences[0]!.length;
  const starts = sequences.map((_, s) => s * T).concat(sequences.length * T);
  const ctx = { ops, arena: new Arena(ops) };
  const rows = createRows(ops, starts);
  const ids = ops.fromArray([rows.numRows], golden.i32("input.token_ids"));
  const saved = model.forward(ctx, ids, rows);
  compare(ops.toFloat32(saved.logits), golden, "output.logits", FORWARD);
  const { loss } = crossEntropyInPlace(ctx, saved.logits, shiftLabels(golden.i32("input.labels"), starts));
  compare(Float32Array.of(loss), golden, "output.loss", FORWARD);
  model.backward(ctx, saved, saved.logits);
  const grads = golden.names("grad.param.").map((name) => name.slice("grad.param.".length));
  expect([...model.params.names()].sort()).toEqual(grads.sort());
  for (const name of grads) compare(model.params.readGrad(name), golden, `grad.param.${name}`, GRADS);
  ctx.arena.close();
  for (const t of [ids, rows.seqStart, rows.positions]) ops.free(t);
  model.free();
}

const files = goldenFiles("model");
if (files.length === 0) console.log(`skipped: no golden models in ${goldenDir}`);

for (const library of forwardLibraries) {
  describe(`golden models on ${library}`, () => {
    for (const golden of files) {
      test(`${golden.name} serving form on ${library}`, async () => serving(await opsOf(library), golden));
      test(`${golden.name} in bf16 on ${library}`, async () => rounded(await opsOf(library), golden));
    }
  });
}

for (const isa of isas) {
  describe(`golden models on ${isa}`, () => {
    for (const golden of files) {
      test(`${golden.name} training form on ${isa}`, async () => training(await opsOf(isa), golden));
      const layerTypes = golden.hyperparameters.layer_types as string[] | undefined;
      if (layerTypes?.includes("linear_attention")) continue;
      test(`${golden.name} dense form on ${isa}`, async () => dense(await opsOf(isa), golden));
    }
  });
}
