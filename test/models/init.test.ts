// First values of linear layers beyond the golden conversions: what is drawn, options, and sizes that have no source.
import { describe, expect, test } from "bun:test";
import { type AttentionSource, initLinearLayer, repeatHeads } from "../../models/attention/init.ts";
import { linearShapeFor, linearTensors } from "../../models/attention/shape.ts";
import { parseModelConfig } from "../../models/parse_config.ts";
import { CounterRandom } from "../../src/tensor/random.ts";
import { tinyGpt2, tinyLlama } from "../support/checkpoints.ts";

const config = parseModelConfig(tinyLlama);

function source(): AttentionSource {
  const draw = (rows: number, columns: number, stream: number) => ({
    weight: new CounterRandom(1, stream).normals(rows * columns, 1),
    bias: null,
  });
  const { hiddenSize: C, numHeads, numKvHeads, headDim } = config;
  const [q, k, v, o] = [numHeads, numKvHeads, numKvHeads, numHeads].map((heads, i) =>
    i === 3 ? draw(C, heads * headDim, i) : draw(heads * headDim, C, i),
  ) as [never, never, never, never];
  return { hiddenSize: C, numHeads, numKvHeads, headDim, q, k, v, o, qNorm: null, kNorm: null };
}

describe("repeatHeads()", () => {
  test("repeats blocks of a head's rows, not rows", () => {
    const values = Float32Array.of(1, 2, 3, 4);
    expect([...repeatHeads(values, 2, 2)]).toEqual([1, 2, 1, 2, 3, 4, 3, 4]);
  });
});

describe("initLinearLayer()", () => {
  test("draws decays and steps in their ranges", () => {
    const shape = linearShapeFor(config, "gdn");
    const layers = Array.from({ length: 200 }, (_, layer) => initLinearLayer(shape, source(), { seed: 3, layer }));
    const all = (name: string) => layers.flatMap((t) => [...t.get(name)!]);
    const decays = all("A_log").map(Math.exp);
    expect(Math.min(...decays)).toBeGreaterThan(0);
    expect(Math.max(...decays)).toBeLessThanOrEqual(16.001);
    expect(decays.reduce((a, b) => a + b, 0) / decays.length).toBeCloseTo(8, 0);
    const steps = all("dt_bias").map((x) => Math.log1p(Math.exp(x)));
    expect(Math.min(...steps)).toBeGreaterThan(0.00099);
    expect(Math.max(...steps)).toBeLessThan(0.101);
    const middle = Math.exp(steps.reduce((a, b) => a + Math.log(b), 0) / steps.length);
    expect(Math.abs(Math.log(middle / 0.01))).toBeLessThan(0.2);
  });

  test("gives jet an identity kernel that can learn", () => {
    const tensors = initLinearLayer(linearShapeFor(config, "jet"), source(), { seed: 3, layer: 0 });
    const prefix = "dynamic_conv1d.kernel_generator.";
    expect(tensors.get(`${prefix}w1.weight`)!.some((x) => x !== 0)).toBe(true);
    expect(tensors.get(`${prefix}w2.weight`)!.every((x) => x === 0)).toBe(true);
    expect([...tensors.get(`${prefix}w2.bias`)!.subarray(0, 8)]).toEqual([0, 0, 0, 1, 0, 0, 0, 1]);
  });

  test("repeats with the seed and differs between layers", () => {
    const shape = linearShapeFor(config, "gla");
    const gate = (seed: number, layer: number) =>
      initLinearLayer(shape, source(), { seed, layer }).get("g_proj.weight")!;
    expect(gate(3, 1)).toEqual(gate(3, 1));
    expect(gate(3, 1)).not.toEqual(gate(3, 2));
    expect(gate(3, 1)).not.toEqual(gate(4, 1));
  });

  test("draws every tensor where sizes have no source and none is asked for", () => {
    const shape = linearShapeFor(config, "gdn", { keyHeadDim: 16, valueHeadDim: 32, numQueryHeads: 2, numKeyHeads: 2 });
    const tensors = initLinearLayer(shape, null, { seed: 1, layer: 0, from: "random" });
    expect([...tensors.keys()]).toEqual(linearTensors(shape).map((t) => t.name));
    expect(() => initLinearLayer(shape, source(), { seed: 1, layer: 0 })).toThrow("key head size is 16, expected 8");
  });

  test("gives a biased output projection a home where the shape has one", () => {
    const shape = linearShapeFor(parseModelConfig(tinyGpt2), "gla");
    expect(linearTensors(shape).some((t) => t.name === "o_proj.bias")).toBe(true);
    expect(linearTensors({ ...shape, oBias: false }).some((t) => t.name === "o_proj.bias")).toBe(false);
  });
});
