// Self-test cases of norms, activations, rotary embedding and gates, forward and backward.
import { LIMITS, range, type SelftestCase } from "./case.ts";
import type { Workbench } from "./workbench.ts";

const EPS = 1e-5;

const norms: SelftestCase = {
  name: "rms_norm, layer_norm, gated_rms_norm, l2_norm, 63 × 100",
  limit: LIMITS.forward,
  run(b) {
    const shape = [63, 100];
    const [x, gate, w, bias] = [
      b.random("x", shape),
      b.random("gate", shape, 3),
      b.random("w", [100]),
      b.random("b", [100]),
    ];
    b.ops.rmsNorm(b.output("rms", shape), x, w, EPS);
    b.ops.layerNorm(b.output("layer", shape), x, w, bias, EPS);
    b.ops.gatedRmsNorm(b.output("gated", shape), x, gate, w, EPS);
    b.ops.l2Norm(b.output("l2", shape), x, 100);
  },
};

const normGradients: SelftestCase = {
  name: "gradients of the norms, 63 × 100",
  limit: LIMITS.gradient,
  training: true,
  run(b) {
    const shape = [63, 100];
    const [x, gate, dy, w] = [
      b.random("x", shape),
      b.random("gate", shape, 3),
      b.random("dy", shape),
      b.random("w", [100]),
    ];
    b.ops.rmsNormBackward(b.sum("rms dx", shape), b.sum("rms dw", [100]), dy, x, w, EPS, true);
    b.ops.layerNormBackward(
      b.output("layer dx", shape),
      b.sum("layer dw", [100]),
      b.sum("layer db", [100]),
      dy,
      x,
      w,
      EPS,
    );
    b.ops.gatedRmsNormBackward(
      b.output("dx", shape),
      b.output("dgate", shape),
      b.sum("dw", [100]),
      dy,
      x,
      gate,
      w,
      EPS,
    );
    b.ops.l2NormBackward(b.output("l2 dx", shape), dy, x, 100);
  },
};

const activations: SelftestCase = {
  name: "silu, silu_mul, gelu_tanh, 1001",
  limit: LIMITS.forward,
  run(b) {
    const shape = [1001];
    const [x, up] = [b.random("x", shape, 8), b.random("up", shape)];
    b.ops.silu(b.output("silu", shape), x);
    b.ops.siluMul(b.output("mul", shape), x, up);
    b.ops.geluTanh(b.output("gelu", shape), x);
  },
};

const activationGradients: SelftestCase = {
  name: "gradients of silu, silu_mul, gelu_tanh, 1001",
  limit: LIMITS.forward,
  training: true,
  run(b) {
    const shape = [1001];
    const [x, up, dy] = [b.random("x", shape, 8), b.random("up", shape), b.random("dy", shape)];
    b.ops.siluBackward(b.output("silu dx", shape), dy, x);
    b.ops.siluMulBackward(b.output("dgate", shape), b.output("dup", shape), dy, x, up);
    b.ops.geluTanhBackward(b.output("gelu dx", shape), dy, x);
  },
};

const rope: SelftestCase = {
  name: "rope_table, rope both ways, 33 × 3 heads of 20",
  limit: LIMITS.forward,
  run(b) {
    const [N, H, D, P] = [33, 3, 20, 64];
    const frequencies = Float32Array.from({ length: D / 2 }, (_, i) => 10000 ** ((-2 * i) / D));
    const table = b.output("table", [P, D]);
    b.ops.ropeTable(table, b.words([D / 2], frequencies));
    const [x, positions] = [b.random("x", [N, H, D]), b.ints(range(N).map((i) => (i * 5) % P))];
    b.ops.rope(b.output("forward", [N, H, D]), x, positions, table);
    b.ops.rope(b.output("back", [N, H, D]), x, positions, table, -1);
  },
};

const GATES = [63, 5] as const;

function gateInputs(b: Workbench) {
  const [z, za, zb] = [b.random("z", GATES, 6), b.random("za", GATES, 6), b.random("zb", GATES, 6)];
  return { z, za, zb, aLog: b.random("A", [GATES[1]]), dtBias: b.random("dt", [GATES[1]]) };
}

const gates: SelftestCase = {
  name: "gla_gate, gdn_gate, 63 × 5",
  limit: LIMITS.forward,
  run(b) {
    const { z, za, zb, aLog, dtBias } = gateInputs(b);
    b.ops.glaGate(b.output("a", GATES), z, 16);
    b.ops.gdnGate(b.output("g", GATES), b.output("beta", GATES), za, zb, aLog, dtBias, 2);
  },
};

const gateGradients: SelftestCase = {
  name: "gradients of gla_gate and gdn_gate, 63 × 5",
  limit: LIMITS.gradient,
  training: true,
  run(b) {
    const { z, za, zb, aLog, dtBias } = gateInputs(b);
    const [shape, H] = [GATES, GATES[1]];
    const [da, dg, dbeta] = [b.random("da", shape), b.random("dg", shape), b.random("dbeta", shape)];
    b.ops.glaGateBackward(b.output("dz", shape), da, z, 16);
    const grads = {
      dza: b.output("dza", shape),
      dzb: b.output("dzb", shape),
      dALog: b.sum("dA", [H]),
      dDtBias: b.sum("ddt", [H]),
    };
    b.ops.gdnGateBackward(grads, { dg, dbeta }, { za, zb, aLog, dtBias }, 2);
  },
};

/** Cases of norms, activations, rope and gates. */
export const pointwiseCases: readonly SelftestCase[] = [
  norms,
  normGradients,
  activations,
  activationGradients,
  rope,
  gates,
  gateGradients,
];
