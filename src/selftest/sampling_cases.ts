// Self-test cases of what is done with logits: drawing, scoring, adjusting.
import type { Tensor } from "../tensor/tensor.ts";
import { LIMITS, range, type SelftestCase, startsOf } from "./case.ts";
import type { Workbench } from "./workbench.ts";

/** One graft_sampling record: temperature, top_p, min_p, top_k, seed, choice, position. */
export function samplingRecord(i: number): number[] {
  const floats = new Float32Array([i % 4 === 0 ? 0 : 0.8, i % 3 === 0 ? 0.9 : 1, i % 5 === 0 ? 0.02 : 0]);
  return [...new Int32Array(floats.buffer), i % 2 === 0 ? 40 : 0, 1234, 5, i % 3, i];
}

const sampling: SelftestCase = {
  name: "sample, 33 × 1001: greedy, top-k, top-p, min-p",
  limit: LIMITS.exact,
  run(b) {
    const [N, V] = [33, 1001];
    const params = b.words([N * 8], Int32Array.from(range(N).flatMap(samplingRecord)));
    b.ops.sample(b.output("ids", [N], "i32"), null, b.random("logits", [N, V], 6), params);
  },
};

const scores: SelftestCase = {
  name: "log_prob, 33 × 1001",
  limit: LIMITS.forward,
  run(b) {
    const [N, V] = [33, 1001];
    const ids = b.ints(range(N).map((i) => (i * 31) % V));
    b.ops.logProb(b.output("logprob", [N]), b.output("argmax", [N], "i32"), b.random("logits", [N, V], 6), ids);
  },
};

const SIZES = { N: 9, V: 1001, K: 20 } as const;

/** Logits after penalties, biases and masks. */
function adjusted(b: Workbench): Tensor {
  const { N, V } = SIZES;
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
  return logits;
}

const adjustments: SelftestCase = {
  name: "adjust_logits, top_k, 9 × 1001: penalties, biases, masks",
  limit: LIMITS.forward,
  run(b) {
    const { N, K } = SIZES;
    b.ops.topK(b.output("ids", [N, K], "i32"), b.output("logprob", [N, K]), adjusted(b), b.ints(Array(N).fill(K)));
  },
};

const everyAdjustment: SelftestCase = {
  name: "adjust_logits of every id, 9 × 1001",
  limit: LIMITS.forward,
  training: true,
  run(b) {
    const { N, V } = SIZES;
    // Of every id its probability, which is finite where the logit is not.
    b.ops.crossEntropy(b.output("loss", [N]), b.output("softmax", [N, V]), adjusted(b), b.ints(Array(N).fill(0)), 1);
  },
};

/** Cases of sampling and scoring. */
export const samplingCases: readonly SelftestCase[] = [sampling, scores, adjustments, everyAdjustment];
