// Self-test cases of losses, the optimiser and sampling.
import { LIMITS, range, type SelftestCase, startsOf } from "./case.ts";

const losses: SelftestCase = {
  name: "cross_entropy, log_prob, mse, sum_squares, 33 × 1001",
  limit: LIMITS.forward,
  run(b) {
    const [N, V] = [33, 1001];
    const [logits, target] = [b.random("logits", [N, V], 6), b.random("target", [N, V])];
    const labels = b.ints(range(N).map((i) => (i % 5 === 4 ? -100 : (i * 31) % V)));
    b.ops.crossEntropy(b.output("loss", [N]), b.output("dlogits", [N, V]), logits, labels, 0.5);
    const ids = b.ints(range(N).map((i) => (i * 31) % V));
    b.ops.logProb(b.output("logprob", [N]), b.output("argmax", [N], "i32"), logits, ids);
    b.ops.mse(b.output("stats", [2], "f64"), b.output("dy", [N, V]), logits, target, true);
    b.ops.sumSquares(b.output("squares", [1], "f64"), logits);
  },
};

const adamw: SelftestCase = {
  name: "adamw with clipping, 1001",
  limit: LIMITS.forward,
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

/** One graft_sampling record: temperature, top_p, min_p, top_k, seed, choice, position. */
function record(i: number): number[] {
  const floats = new Float32Array([i % 4 === 0 ? 0 : 0.8, i % 3 === 0 ? 0.9 : 1, i % 5 === 0 ? 0.02 : 0]);
  return [...new Int32Array(floats.buffer), i % 2 === 0 ? 40 : 0, 1234, 5, i % 3, i];
}

const sampling: SelftestCase = {
  name: "sample, 33 × 1001: greedy, top-k, top-p, min-p",
  limit: LIMITS.exact,
  run(b) {
    const [N, V] = [33, 1001];
    const params = b.words([N * 8], Int32Array.from(range(N).flatMap(record)));
    b.ops.sample(b.output("ids", [N], "i32"), null, b.random("logits", [N, V], 6), params);
  },
};

const adjustments: SelftestCase = {
  name: "adjust_logits, top_k, 9 × 1001: penalties, biases, masks",
  limit: LIMITS.forward,
  run(b) {
    const [N, V, K] = [9, 1001, 20];
    const ids = range(N).map((i) => range(V).filter((id) => (id * 7 + i) % (i + 2) === 0));
    const floats = Float32Array.from(ids.flatMap((row) => row.flatMap((id) => [0, 1 + (id % 5) / 10, (id % 9) - 4])));
    const entries = new Int32Array(floats.buffer);
    ids.flat().forEach((id, i) => {
      entries[3 * i] = id;
    });
    const words = Math.ceil(V / 32);
    const masks = Int32Array.from({ length: 3 * words }, (_, i) => Math.imul(i + 1, 0x9e3779b1) | 1);
    const logits = b.random("logits", [N, V], 6);
    b.ops.adjustLogits(logits, {
      entries: b.words([entries.length], entries),
      entryStart: b.ints(startsOf(ids.map((row) => row.length))),
      masks: b.words([3, words], masks),
      maskRows: b.ints(range(N).map((i) => (i % 4) - 1)),
    });
    // Of every id its probability, which is finite where the logit is not.
    b.ops.crossEntropy(b.output("loss", [N]), b.output("softmax", [N, V]), logits, b.ints(Array(N).fill(0)), 1);
    b.ops.topK(b.output("ids", [N, K], "i32"), b.output("logprob", [N, K]), logits, b.ints(Array(N).fill(K)));
  },
};

/** Cases of losses, the optimiser and sampling. */
export const trainingCases: readonly SelftestCase[] = [losses, adamw, sampling, adjustments];
