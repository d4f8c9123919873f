// Activations: the MLPs of the golden files, the reference at odd lengths and extreme values.
import { describe, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import type { Golden } from "../support/golden.ts";
import { opsOf, randomFloats } from "../support/kernels.ts";
import { eachGolden, expectClose, expectGolden, expectSameBits, fastIsas, outputs, zeros } from "../support/op_case.ts";

const load = (ops: Ops, golden: Golden, name: string, shape = golden.shape(name)) =>
  ops.fromArray(shape, golden.f32(name));

describe("golden files", () => {
  eachGolden(["swiglu_mlp"], (ops, golden) => {
    const [C, F] = [golden.hyperparameters.hidden_size as number, golden.hyperparameters.intermediate_size as number];
    const N = golden.f32("input.x").length / C;
    const [x, dy] = [load(ops, golden, "input.x", [N, C]), load(ops, golden, "upstream.y", [N, C])];
    const gateW = load(ops, golden, "param.gate_proj.weight");
    const upW = load(ops, golden, "param.up_proj.weight");
    const downW = load(ops, golden, "param.down_proj.weight");
    const t = outputs(ops, { gate: [N, F], up: [N, F], h: [N, F], y: [N, C], dh: [N, F], dgate: [N, F], dup: [N, F] });
    ops.matmulNt(t.gate, x, gateW);
    ops.matmulNt(t.up, x, upW);
    ops.siluMul(t.h, t.gate, t.up);
    ops.matmulNt(t.y, t.h, downW);
    expectGolden(ops, t.y, golden, "output.y", 2e-5);
    const grads = { gate: zeros(ops, [F, C]), up: zeros(ops, [F, C]), down: zeros(ops, [C, F]), x: zeros(ops, [N, C]) };
    ops.matmulNn(t.dh, dy, downW);
    ops.siluMulBackward(t.dgate, t.dup, t.dh, t.gate, t.up);
    ops.matmulTn(grads.down, dy, t.h);
    ops.matmulTn(grads.gate, t.dgate, x);
    ops.matmulTn(grads.up, t.dup, x);
    ops.matmulNn(grads.x, t.dgate, gateW);
    ops.matmulNn(grads.x, t.dup, upW, true);
    t.read();
    expectGolden(ops, grads.x, golden, "grad.input.x", 5e-5);
    expectGolden(ops, grads.gate, golden, "grad.param.gate_proj.weight", 5e-5);
    expectGolden(ops, grads.up, golden, "grad.param.up_proj.weight", 5e-5);
    expectGolden(ops, grads.down, golden, "grad.param.down_proj.weight", 5e-5);
  });

  eachGolden(["gpt2_mlp"], (ops, golden) => {
    const [C, F] = [golden.hyperparameters.hidden_size as number, golden.hyperparameters.intermediate_size as number];
    const N = golden.f32("input.x").length / C;
    const [x, dy] = [load(ops, golden, "input.x", [N, C]), load(ops, golden, "upstream.y", [N, C])];
    // Conv1D weights are [in, out]: y = x W, so products with W and Wᵀ swap their kernels.
    const [fcW, projW] = [load(ops, golden, "param.c_fc.weight"), load(ops, golden, "param.c_proj.weight")];
    const [fcB, projB] = [load(ops, golden, "param.c_fc.bias"), load(ops, golden, "param.c_proj.bias")];
    const t = outputs(ops, { z: [N, F], h: [N, F], y: [N, C], dh: [N, F], dz: [N, F] });
    const ones = ops.fromArray([N, 1], new Float32Array(N).fill(1));
    const addBias = (y: typeof t.z, bias: typeof fcB) =>
      ops.matmulNn(y, ones, { ...bias, shape: [1, bias.shape[0]!] }, true);
    ops.matmulNn(t.z, x, fcW);
    addBias(t.z, fcB);
    ops.geluTanh(t.h, t.z);
    ops.matmulNn(t.y, t.h, projW);
    addBias(t.y, projB);
    expectGolden(ops, t.y, golden, "output.y", 2e-5);
    const grads = outputs(ops, { x: [N, C], fcW: [C, F], fcB: [F], projW: [F, C], projB: [C] });
    ops.matmulNt(t.dh, dy, projW);
    ops.geluTanhBackward(t.dz, t.dh, t.z);
    ops.matmulTn(grads.projW, t.h, dy);
    ops.matmulTn(grads.fcW, x, t.dz);
    ops.sumRows(grads.projB, dy);
    ops.sumRows(grads.fcB, t.dz);
    ops.matmulNt(grads.x, t.dz, fcW);
    t.read();
    expectGolden(ops, grads.x, golden, "grad.input.x", 5e-5);
    expectGolden(ops, grads.fcW, golden, "grad.param.c_fc.weight", 5e-5);
    expectGolden(ops, grads.fcB, golden, "grad.param.c_fc.bias", 5e-5);
    expectGolden(ops, grads.projW, golden, "grad.param.c_proj.weight", 5e-5);
    expectGolden(ops, grads.projB, golden, "grad.param.c_proj.bias", 5e-5);
  });
});

function everything(ops: Ops, values: Float32Array) {
  const n = values.length;
  const [x, up] = [ops.fromArray([n], values), ops.fromArray([n], randomFloats(n, 7))];
  const dy = ops.fromArray([n], randomFloats(n, 8));
  const out = outputs(ops, {
    silu: [n],
    siluMul: [n],
    gelu: [n],
    dSilu: [n],
    dGate: [n],
    dUp: [n],
    dGelu: [n],
  });
  ops.silu(out.silu, x);
  ops.siluMul(out.siluMul, x, up);
  ops.geluTanh(out.gelu, x);
  ops.siluBackward(out.dSilu, dy, x);
  ops.siluMulBackward(out.dGate, out.dUp, dy, x, up);
  ops.geluTanhBackward(out.dGelu, dy, x);
  return out.read() as Record<string, Float32Array>;
}

for (const isa of fastIsas) {
  describe(isa, () => {
    test.each([1, 7, 63, 1000, 40001])("activations match the reference at %d elements", async (n) => {
      const values = randomFloats(n, 6).map((x) => x * 6);
      const [actual, expected] = [everything(await opsOf(isa), values), everything(await opsOf("reference"), values)];
      for (const name in expected) expectClose(actual[name]!, expected[name]!, 3e-6, name);
    });

    test("activations are accurate relative to each value, far out and near zero", async () => {
      for (const x of [-90, -30, -10, -1, -1e-3, -1e-20, 0, 1e-20, 1e-3, 1, 10, 30, 90, 3e38]) {
        const values = new Float32Array([x]);
        const [actual, expected] = [everything(await opsOf(isa), values), everything(await opsOf("reference"), values)];
        for (const name of ["silu", "siluMul", "dUp"]) {
          const [got, want] = [actual[name]![0]!, expected[name]![0]!];
          if (!(Math.abs(got - want) <= 3e-6 * Math.abs(want) + 1e-37))
            throw new Error(`${name}(${x}): ${got}, ${want}`);
        }
      }
    });

    test("activations give the same bits with 1 and 2 threads and in any cut", async () => {
      const ops = await opsOf(isa);
      const values = randomFloats(50001, 9).map((x) => x * 5);
      const whole = everything(ops, values);
      ops.setThreads(1);
      const alone = everything(ops, values);
      ops.setThreads(2);
      for (const name in whole) expectSameBits(alone[name]!, whole[name]!, name);
      expectSameBits(everything(ops, values.slice(0, 333)).silu!, whole.silu!.slice(0, 333), "first 333");
    });
  });
}
