// Tiny golden checkpoints through the whole engine: their logits and greedy tokens, on every path, to the same bytes.
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { EngineOptions } from "../../src/engine/types.ts";
import { type Golden, goldenDir, goldenFiles, relativeError } from "../support/golden.ts";
import { isas, opsOf } from "../support/kernels.ts";

const LOGITS_LIMIT = 1e-4;
/** With bf16 states, of hybrids: they differ from the golden ones by rounding alone. */
const BF16_STATE_LIMIT = 2e-2;

/** Logits by sequence and predicted position, as the engine computes them under these settings. */
async function logitsOf(
  isa: (typeof isas)[number],
  directory: string,
  sequences: number[][],
  options: EngineOptions,
  together: boolean,
): Promise<Map<string, Float32Array>> {
  const ops = await opsOf(isa);
  const model = loadModel(ops, directory);
  const seen = new Map<string, Float32Array>();
  // A new engine counts its sequences from 1.
  const tap = (id: number, position: number, logits: Float32Array) => void seen.set(`${id - 1}:${position}`, logits);
  const engine = createEngine(ops, model, { stateBytes: 1 << 24, ...options }, { tap });
  const requests = sequences.map((ids) => ({ contextIds: ids.slice(0, 1), continuationIds: [...ids.slice(1), 0] }));
  if (together) engine.score(requests);
  else for (const request of requests) engine.score([request]);
  engine.close();
  model.free();
  return seen;
}

function rowsOf(golden: Golden): { sequences: number[][]; expected: Map<string, Float32Array>; greedy: number[][] } {
  const [B, T] = golden.shape("input.token_ids") as [number, number];
  const V = golden.shape("output.logits")[2]!;
  const ids = golden.i32("input.token_ids");
  const logits = golden.f32("output.logits");
  const greedy = golden.i32("expected.greedy_tokens");
  const G = golden.shape("expected.greedy_tokens")[1]!;
  const expected = new Map<string, Float32Array>();
  for (let b = 0; b < B; b++) {
    for (let t = 0; t < T; t++) expected.set(`${b}:${t + 1}`, logits.slice((b * T + t) * V, (b * T + t + 1) * V));
  }
  const split = (list: Int32Array, n: number) =>
    Array.from({ length: B }, (_, b) => [...list.slice(b * n, (b + 1) * n)]);
  return { sequences: split(ids, T), expected, greedy: split(greedy, G) };
}

for (const golden of goldenFiles("model")) {
  const name = golden.name.replace(/^model_/, "");
  const directory = join(goldenDir, "models", name);
  describe.skipIf(!existsSync(directory))(golden.name, () => {
    const { sequences, expected, greedy } = rowsOf(golden);
    for (const isa of isas) {
      test(`${isa}: logits are the golden ones, and the same bytes on every path`, async () => {
        const whole = await logitsOf(isa, directory, sequences, {}, true);
        expect(whole.size).toBe(expected.size);
        for (const [key, logits] of expected) expect(relativeError(whole.get(key)!, logits)).toBeLessThan(LOGITS_LIMIT);
        const paths: [EngineOptions, boolean][] = [
          [{}, false],
          [{ maxBatchTokens: 1 }, false],
          [{ maxBatchTokens: 5, pageSize: 4 }, true],
          [{ maxBatchTokens: 3, maxSequences: 1 }, true],
        ];
        for (const [options, together] of paths) {
          const other = await logitsOf(isa, directory, sequences, options, together);
          for (const [key, logits] of whole) expect(other.get(key)).toEqual(logits);
        }
      });

      test(`${isa}: bf16 states give logits beside the golden ones, and the same bytes on every path`, async () => {
        const stateDtype = "bf16";
        const whole = await logitsOf(isa, directory, sequences, { stateDtype }, true);
        for (const [key, logits] of expected)
          expect(relativeError(whole.get(key)!, logits)).toBeLessThan(BF16_STATE_LIMIT);
        const single = await logitsOf(isa, directory, sequences, { stateDtype, maxBatchTokens: 1 }, false);
        for (const [key, logits] of whole) expect(single.get(key)).toEqual(logits);
      });

      test(`${isa}: greedy tokens are the expected ones, with and without preemption`, async () => {
        const ops = await opsOf(isa);
        const model = loadModel(ops, directory);
        const requests = sequences.map((promptIds, i) => ({ promptIds, maxTokens: greedy[i]!.length }));
        const { numKvHeads, headDim, numLayers } = model.config;
        const tight = 4 * 2 * numKvHeads * headDim * 4 * numLayers * 8;
        for (const options of [{}, { pageSize: 4, kvBytes: tight }] satisfies EngineOptions[]) {
          const engine = createEngine(ops, model, { stateBytes: 1 << 24, ...options });
          expect(engine.generate(requests).map((result) => result.tokenIds)).toEqual(greedy);
          const fullLayers = engine.info.layerTypes.filter((kind) => kind === "full_attention").length;
          if ("kvBytes" in options && fullLayers === numLayers) expect(engine.stats().preemptions).toBeGreaterThan(0);
          engine.close();
        }
        model.free();
      });
    }
  });
}

test.skipIf(!existsSync(join(goldenDir, "models", "tiny_llama_hybrid_gdn")))("a bf16 state is smaller", async () => {
  const ops = await opsOf(isas.at(-1)!);
  for (const variant of ["gla", "gdn", "jet"] as const) {
    const model = loadModel(ops, join(goldenDir, "models", `tiny_llama_hybrid_${variant}`));
    const [wide, narrow] = (["f32", "bf16"] as const).map((stateDtype) => {
      const engine = createEngine(ops, model, { stateBytes: 1 << 22, stateDtype });
      const { stateBytes } = engine.hybrids()[0]!;
      engine.close();
      return stateBytes;
    });
    expect(narrow!).toBeGreaterThan(0.5 * wide!); // positions, windows and decays stay what they are
    expect(narrow!).toBeLessThan(0.7 * wide!);
    model.free();
  }
});

afterAll(() => {
  if (goldenFiles("model").length === 0) console.error(`skipped: no golden models in ${goldenDir} (set GRAFT_GOLDEN)`);
});
