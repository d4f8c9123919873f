// Projections and gated linear layers: the reference at awkward sizes, the bits of their single ops, and one answer for
// any number of rows, in every library and in the emulator.
import { expect, test } from "bun:test";
import type { PackedLinear } from "../../src/ops/dense_ops.ts";
import { type Activation, ProjectionSet } from "../../src/ops/layer_structs.ts";
import type { Ops } from "../../src/ops/ops.ts";
import type { RowNorm } from "../../src/ops/step_ops.ts";
import { rows, type Tensor } from "../../src/tensor/tensor.ts";
import { forwardLibraries, opsOf } from "../support/kernels.ts";
import { expectClose, expectSameBits, outputs, random } from "../support/op_case.ts";

const libraries = forwardLibraries.filter((library) => library !== "reference");
type Weights = "f32" | "bf16";
type Norm = "none" | "rms" | "layer";

function packed(ops: Ops, out: number, inputs: number, dtype: Weights, seed: number): PackedLinear {
  const wide = random(ops, [out, inputs], seed);
  if (dtype === "f32") return ops.linearPack(wide);
  const narrow = ops.empty([out, inputs], "bf16");
  ops.convert(narrow, wide);
  return ops.linearPack(narrow);
}

function normOf(ops: Ops, kind: Norm, inputs: number): RowNorm | null {
  if (kind === "none") return null;
  return { weight: random(ops, [inputs], 91), bias: kind === "layer" ? random(ops, [inputs], 92) : null, eps: 1e-5 };
}

/** Inputs of one case: three projections with and without bias and activations, and a gated pair. */
function layerOf(ops: Ops, outs: readonly number[], inputs: number, dtype: Weights, norm: Norm) {
  const activations: readonly Activation[] = ["identity", "silu", "gelu_tanh"];
  const projections = outs.map((out, i) => ({
    weight: packed(ops, out, inputs, dtype, 10 + i),
    bias: i === 1 ? null : random(ops, [out], 20 + i),
    activation: activations[i % 3]!,
  }));
  const [gate, up] = [packed(ops, outs[0]!, inputs, dtype, 30), packed(ops, outs[0]!, inputs, dtype, 31)];
  return { projections, set: new ProjectionSet(ops, projections), norm: normOf(ops, norm, inputs), gate, up };
}
type Layer = ReturnType<typeof layerOf>;

function projected(ops: Ops, layer: Layer, x: Tensor): Float32Array[] {
  const N = x.shape[0]!;
  const ys = layer.projections.map(({ weight }) => outputs(ops, { y: [N, weight.out] }));
  const tensors = ys.map(({ y }) => y);
  ops.projections(tensors, x, layer.norm, layer.set);
  return ys.map((y) => y.read().y);
}

function gated(ops: Ops, layer: Layer, x: Tensor): Float32Array {
  const h = outputs(ops, { h: [x.shape[0]!, layer.gate.out] });
  ops.gatedLinear(h.h, x, layer.norm!, layer.gate, layer.up);
  return h.read().h;
}

const sizes = [
  [1, [16, 16, 16], 32, "rms"],
  [1, [7], 8, "none"],
  [2, [40, 33, 5], 100, "layer"],
  [3, [64, 16, 16], 300, "rms"],
  [7, [100, 20, 260], 333, "rms"],
  [8, [48, 80, 3, 17], 1024, "none"],
  [9, [33, 16], 270, "layer"],
  [16, [200, 70], 520, "rms"],
  [17, [40, 40, 40], 96, "rms"],
  [31, [130, 16], 577, "layer"],
  [33, [60, 33], 130, "rms"],
  [80, [20, 150], 200, "none"],
] as const;

for (const library of libraries) {
  for (const dtype of ["f32", "bf16"] as const) {
    test(`projections() and gatedLinear() match the reference in ${dtype} on ${library}`, async () => {
      const run = (ops: Ops, [N, outs, inputs, norm]: (typeof sizes)[number]) => {
        const layer = layerOf(ops, outs, inputs, dtype, norm);
        const x = random(ops, [N, inputs], 5, 2);
        const plain = projected(ops, layer, x);
        return norm === "rms" ? [...plain, gated(ops, layer, x)] : plain;
      };
      const [ops, reference] = [await opsOf(library), await opsOf("reference")];
      for (const size of sizes) {
        const [actual, expected] = [run(ops, size), run(reference, size)];
        // Rounding to bfloat16 may fall to the other side where the norm differs in its last bit.
        const limit = dtype === "f32" ? 1e-5 : 3e-3;
        expected.forEach((y, i) => {
          expectClose(actual[i]!, y, limit, `${i} of [${size.join(" ")}]`);
        });
      }
    });
  }

  test(`a row gets the bits of the single ops, whatever stands beside it, on ${library}`, async () => {
    const ops = await opsOf(library);
    for (const [outs, inputs, norm] of [
      [[40, 17, 64], 130, "rms"],
      [[100, 16], 520, "layer"],
      [[33, 200], 1100, "rms"],
    ] as const) {
      const N = 80;
      const layer = layerOf(ops, outs, inputs, "bf16", norm);
      const x = random(ops, [N, inputs], 1, 3);
      const normed = ops.empty([N, inputs]);
      ops.rowNorm(normed, x, layer.norm!);
      const single = layer.projections.map(({ weight, bias, activation }) => {
        const y = ops.empty([N, weight.out]);
        ops.linear(y, normed, weight, bias);
        if (activation === "silu") ops.silu(y, y);
        if (activation === "gelu_tanh") ops.geluTanh(y, y);
        return ops.toFloat32(y);
      });
      let at = 0;
      for (const count of [80, 1, 2, 8, 9, 20, 40]) {
        if (at + count > N) at = 0;
        projected(ops, layer, rows(x, at, count)).forEach((y, i) => {
          const out = layer.projections[i]!.weight.out;
          expectSameBits(y, single[i]!.slice(at * out, (at + count) * out), `${i}, ${count} rows of ${inputs}`);
        });
        if (count < 80) at += count;
      }
    }
  });

  test(`a gated row gets the bits of the single ops, whatever stands beside it, on ${library}`, async () => {
    const ops = await opsOf(library);
    const [N, out, inputs] = [80, 90, 400];
    const layer = layerOf(ops, [out], inputs, "bf16", "rms");
    const x = random(ops, [N, inputs], 1, 3);
    const [normed, gate, up] = [ops.empty([N, inputs]), ops.empty([N, out]), ops.empty([N, out])];
    ops.rowNorm(normed, x, layer.norm!);
    ops.linear(gate, normed, layer.gate);
    ops.linear(up, normed, layer.up);
    ops.siluMul(gate, gate, up);
    const single = ops.toFloat32(gate);
    for (const [at, count] of [
      [0, 80],
      [3, 1],
      [5, 8],
      [9, 14],
      [30, 32],
      [20, 45],
    ] as const) {
      const y = gated(ops, layer, rows(x, at, count));
      expectSameBits(y, single.slice(at * out, (at + count) * out), `${count} rows from ${at}`);
    }
  });

  test(`projections() and gatedLinear() refuse what they cannot run on ${library}`, async () => {
    const ops = await opsOf(library);
    const layer = layerOf(ops, [16], 32, "bf16", "rms");
    const x = random(ops, [2, 32], 1);
    expect(() => ops.projections([ops.empty([2, 17])], x, layer.norm, layer.set)).toThrow("y");
    expect(() => ops.projections([ops.empty([2, 16])], random(ops, [2, 31], 1), layer.norm, layer.set)).toThrow("x");
    const mixed = new ProjectionSet(ops, [
      { weight: packed(ops, 32, 32, "bf16", 1), bias: null, activation: "identity" },
    ]);
    expect(() => ops.projections([x], x, layer.norm, mixed)).toThrow("would overwrite its input");
    const square = layerOf(ops, [32], 32, "bf16", "rms");
    expect(() => ops.gatedLinear(x, x, square.norm!, square.gate, square.up)).toThrow("would overwrite the input");
  });
}
