// Self-test cases at the sizes of real models: what a device does with whole tiles, many blocks and long contexts. The
// numbers are made where they lie. Take some seconds each on the reference library.
import type { PackedLinear } from "../ops/ops.ts";
import { LIMITS, range, type SelftestCase } from "./case.ts";
import { samplingRecord } from "./sampling_cases.ts";
import { largeLinearCases } from "./step_cases.ts";
import type { Workbench } from "./workbench.ts";

const MODEL = { width: 3072, hidden: 8192, vocab: 128_256 } as const;

function packed(b: Workbench, seed: number, out: number, inputs: number): PackedLinear {
  return b.pack(b.filled(seed, [out, inputs], 1, "bf16"));
}

function linear(N: number, out: number, inputs: number): SelftestCase {
  return {
    name: `linear bf16, ${N} × [${out}, ${inputs}]`,
    limit: LIMITS.forward,
    large: true,
    run(b) {
      const y = b.output("y", [N, out]);
      b.ops.linear(y, b.filled(2, [N, inputs]), packed(b, 1, out, inputs), null, b.filled(3, [N, out]));
    },
  };
}

function gated(N: number): SelftestCase {
  const { width, hidden } = MODEL;
  return {
    name: `gated_linear bf16, ${N} × [${hidden}, ${width}]`,
    limit: LIMITS.bf16Input,
    large: true,
    run(b) {
      const norm = { weight: b.filled(3, [width]), bias: null, eps: 1e-5 };
      const [gate, up] = [packed(b, 1, hidden, width), packed(b, 2, hidden, width)];
      b.ops.gatedLinear(b.output("h", [N, hidden]), b.filled(4, [N, width]), norm, gate, up);
    },
  };
}

/** `fresh` rows of each sequence behind `before` tokens, whose keys and values are random numbers. */
function attention(fresh: number, before: number, numSeqs: number): SelftestCase {
  const [Hq, Hkv, D, pageSize] = [24, 8, 128, 32];
  return {
    name: `attention_step bf16, ${numSeqs} × ${fresh} rows behind ${before} tokens, ${Hq} over ${Hkv} heads of ${D}`,
    limit: LIMITS.bf16Weights,
    large: true,
    run(b) {
      const longest = before + fresh;
      const stride = Math.ceil(longest / pageSize);
      const numSlots = numSeqs * stride * pageSize;
      const cache = () => b.zeros([numSlots, Hkv, D], "bf16");
      const kv = {
        ...{ kCache: cache(), vCache: cache(), tableStride: stride, pageSize },
        tableRows: b.ints(range(numSeqs)),
        pageTable: b.ints(range(numSeqs * stride).reverse()),
      };
      const sizes = { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D };
      // Which of them is whose does not matter.
      const everySlot = b.ints(range(numSlots));
      b.ops.kvWrite(kv, b.filled(1, [numSlots, Hkv, D]), b.filled(2, [numSlots, Hkv, D]), everySlot, sizes);
      const N = numSeqs * fresh;
      const batch = {
        seqStart: b.ints(range(numSeqs + 1).map((s) => s * fresh)),
        startPos: b.ints(new Array<number>(numSeqs).fill(before)),
        longest,
      };
      const projected = {
        q: b.filled(3, [N, Hq * D], 2),
        k: b.filled(4, [N, Hkv * D], 2),
        v: b.filled(5, [N, Hkv * D]),
      };
      const weights = { norms: null, ropeTable: b.filled(6, [longest, D]) };
      b.ops.attentionStep(b.output("o", [N, Hq * D]), projected, kv, batch, weights, sizes);
    },
  };
}

const sampling: SelftestCase = {
  name: `sample and log_prob, 4 × ${MODEL.vocab}`,
  limit: LIMITS.forward,
  large: true,
  run(b) {
    const [N, V] = [4, MODEL.vocab];
    const logits = b.filled(1, [N, V], 8);
    b.ops.logProb(b.output("logprob", [N]), b.output("argmax", [N], "i32"), logits, b.ints(range(N)));
    b.ops.sample(
      b.output("ids", [N], "i32"),
      null,
      logits,
      b.words([8 * N], Int32Array.from(range(N).flatMap(samplingRecord))),
    );
  },
};

/** Cases for devices alone. */
export const largeCases: readonly SelftestCase[] = [
  linear(1, MODEL.width, MODEL.width),
  linear(8, MODEL.width, MODEL.hidden),
  linear(64, MODEL.width, MODEL.width),
  linear(256, 1024, MODEL.width),
  gated(1),
  gated(16),
  attention(1, 4095, 3),
  attention(1, 33_000, 1),
  attention(129, 1500, 2),
  ...largeLinearCases,
  sampling,
];
