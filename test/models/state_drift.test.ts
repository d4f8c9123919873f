// What becomes of a bf16 state over a long text: one linear layer of each variant against the same layer with a state in
// double precision. The error must stay where it is after the first few thousand tokens, however long the text.
import { afterAll, expect, test } from "bun:test";
import { createLinearMixer } from "../../models/attention/create.ts";
import type { Variant } from "../../models/attention/mixer.ts";
import { linearShapeFor, VARIANTS } from "../../models/attention/shape.ts";
import { randomCounterparts } from "../../models/random_tensors.ts";
import { shapeConfig } from "../../models/shapes.ts";
import { WeightLoader } from "../../models/weights.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { bestOps, forwardLibraries, opsOf, randomFloats } from "../support/kernels.ts";
import { MixerHost } from "../support/run_mixer.ts";

const TOKENS = Number(process.env.GRAFT_DRIFT_TOKENS ?? 65_536);
const CHUNK = 1024;
/** On the CUDA kernels in the emulator, a thousand times slower. */
const EMULATED_TOKENS = Number(process.env.GRAFT_EMULATED_DRIFT_TOKENS ?? 1024);
/** Errors are taken over so many windows. */
const WINDOWS = 8;
const config = { ...shapeConfig("tiny"), hiddenSize: 32, numHeads: 2, numKvHeads: 2, headDim: 16 };
const C = config.hiddenSize;
const input = randomFloats(TOKENS * C, 3);

/** [tokens, C]: the layer's output for one long sequence. */
function outputs(ops: Ops, variant: Variant, stateDtype: "f32" | "bf16", tokens = TOKENS): Float32Array {
  const shape = linearShapeFor(config, variant);
  const weights = new WeightLoader(ops, randomCounterparts(shape, 1, 7), "f32");
  const mixer = createLinearMixer(weights.scope("linear.0."), shape);
  const host = new MixerHost(ops, mixer, { sequences: 1, maxTokens: tokens, stateDtype });
  const y = new Float32Array(tokens * C);
  for (let start = 0; start < tokens; start += CHUNK) {
    const rows = input.slice(start * C, (start + CHUNK) * C);
    y.set(host.run(rows, C, [{ sequence: 0, start, count: CHUNK }]), start * C);
  }
  host.close();
  mixer.free();
  return y;
}

/** Norm of the difference over that of the expected values, window by window. */
function errors(actual: Float32Array, expected: Float32Array): number[] {
  const size = actual.length / WINDOWS;
  return Array.from({ length: WINDOWS }, (_, w) => {
    let [difference, norm] = [0, 0];
    for (let i = w * size; i < (w + 1) * size; i++) {
      difference += (actual[i]! - expected[i]!) ** 2;
      norm += expected[i]! ** 2;
    }
    return Math.sqrt(difference / norm);
  });
}

const figures: string[] = [];
afterAll(() => console.error(figures.join("\n")));

for (const variant of VARIANTS)
  test(`${variant} with a bf16 state stays beside the double recurrence over ${TOKENS} tokens`, async () => {
    const expected = outputs(await opsOf("reference"), variant, "f32");
    const [narrow, wide] = (["bf16", "f32"] as const).map((dtype) => outputs(ops, variant, dtype));
    const [ofNarrow, ofWide] = [errors(narrow!, expected), errors(wide!, expected)];
    figures.push(
      `${variant} bf16 ${ofNarrow.map((e) => e.toExponential(1)).join(" ")}, f32 ${ofWide[0]!.toExponential(1)}`,
    );
    expect(Math.max(...ofWide)).toBeLessThan(1e-5);
    expect(Math.max(...ofNarrow)).toBeLessThan(1e-2);
    expect(ofNarrow.at(-1)!).toBeLessThan(1.25 * ofNarrow[1]!);
  }, 60_000);

for (const variant of VARIANTS)
  test.skipIf(!forwardLibraries.includes("simt"))(
    `${variant} stays beside the double recurrence on CUDA kernels over ${EMULATED_TOKENS} tokens`,
    async () => {
      const [reference, simt] = [await opsOf("reference"), await opsOf("simt")];
      const expected = outputs(reference, variant, "f32", EMULATED_TOKENS);
      const [narrow, wide] = (["bf16", "f32"] as const).map((dtype) =>
        errors(outputs(simt, variant, dtype, EMULATED_TOKENS), expected),
      );
      figures.push(`${variant} emulated bf16 ${narrow!.map((e) => e.toExponential(1)).join(" ")}, f32 ${wide![0]}`);
      expect(Math.max(...wide!)).toBeLessThan(1e-5);
      expect(Math.max(...narrow!)).toBeLessThan(1e-2);
    },
    120_000,
  );

const ops = await bestOps();
