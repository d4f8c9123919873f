// Self-test cases of losses and the optimiser.
import { LIMITS, range, type SelftestCase } from "./case.ts";

const losses: SelftestCase = {
  name: "cross_entropy, mse, sum_squares, 33 × 1001",
  limit: LIMITS.forward,
  training: true,
  run(b) {
    const [N, V] = [33, 1001];
    const [logits, target] = [b.random("logits", [N, V], 6), b.random("target", [N, V])];
    const labels = b.ints(range(N).map((i) => (i % 5 === 4 ? -100 : (i * 31) % V)));
    b.ops.crossEntropy(b.output("loss", [N]), b.output("dlogits", [N, V]), logits, labels, 0.5);
    b.ops.mse(b.output("stats", [2], "f64"), b.output("dy", [N, V]), logits, target, true);
    b.ops.sumSquares(b.output("squares", [1], "f64"), logits);
  },
};

const adamw: SelftestCase = {
  name: "adamw with clipping, 1001",
  limit: LIMITS.forward,
  training: true,
  run(b) {
    const [p, m, v, g] = [b.sum("p", [1001]), b.sum("m", [1001]), b.output("v", [1001]), b.random("g", [1001], 3)];
    b.ops.zero(v);
    const norm = b.output("norm", [1], "f64");
    b.ops.sumSquares(norm, g);
    for (const step of [1, 2]) {
      b.ops.adamw(p, m, v, g, norm, {
        step,
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weightDecay: 0.1,
        maxNorm: 1,
      });
    }
  },
};

/** Cases of losses and the optimiser. */
export const trainingCases: readonly SelftestCase[] = [losses, adamw];
