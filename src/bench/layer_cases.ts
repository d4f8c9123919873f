// The steps of a model's layers at its own sizes, as serving calls them: for a few rows (decoding) and for many (prefill).
// Each says what it moves and multiplies, and makes rounds of itself. Times nothing.
import type { ModelConfig } from "../../models/config.ts";
import { type PackedLinear, ProjectionSet, type RowNorm } from "../ops/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { LayerOperands } from "./layer_operands.ts";
import { decodeCase, promptCase } from "./linear_attention_cases.ts";
import type { LayerCase, Round } from "./rounds.ts";

/** Decoding: sequences with one row each. */
const BATCHES = [1, 16, 128];
/** Prefill: rows of one sequence. */
const MANY = 4096;
const CONTEXT = 2048;
const LONG = 65_536;
/** Keys and values that one case may hold; longer contexts are for fewer sequences. */
const MOST_KV_BYTES = 8 * 2 ** 30;
const PAGE = 32;

/** All cases of a shape. @param sizes smaller ones for tests */
export function layerCases(
  shape: string,
  config: ModelConfig,
  sizes: { readonly batches: readonly number[]; readonly many: number; readonly contexts: readonly number[] } = {
    batches: BATCHES,
    many: MANY,
    contexts: [CONTEXT, LONG],
  },
): LayerCase[] {
  const layer = new Layer(shape, config);
  const few = sizes.batches.flatMap((rows) => [
    ...layer.linears(rows),
    ...sizes.contexts.flatMap((context) => layer.attention(rows, 1, context)),
    ...(["f32", "bf16"] as const).flatMap((dtype) =>
      (["gla", "gdn"] as const).map((kind) => decodeCase(shape, config, kind, rows, dtype)),
    ),
    layer.head(rows),
    layer.sample(rows),
  ]);
  const { many } = sizes;
  const prefill = [...layer.linears(many), ...layer.attention(1, many, 0)];
  return [...few, ...prefill, ...(["gla", "gdn"] as const).map((kind) => promptCase(shape, config, kind, many))];
}

class Layer {
  readonly #shape: string;
  readonly #config: ModelConfig;

  constructor(shape: string, config: ModelConfig) {
    this.#shape = shape;
    this.#config = config;
  }

  /** The four products of a layer with full attention. */
  linears(rows: number): LayerCase[] {
    const { hiddenSize: C, intermediateSize: M, numHeads, numKvHeads, headDim } = this.#config;
    const [q, kv] = [numHeads * headDim, numKvHeads * headDim];
    return [
      this.#projections("projections q k v", rows, [q, kv, kv]),
      this.#linear("linear o", rows, C, q),
      this.#gated(rows),
      this.#linear("linear down", rows, C, M),
    ];
  }

  /** Last norm and head. */
  head(rows: number): LayerCase {
    return this.#projections("head", rows, [this.#config.vocabSize]);
  }

  /** @param count new rows of each sequence behind `context` earlier tokens */
  attention(sequences: number, count: number, context: number): LayerCase[] {
    const { numHeads: Hq, numKvHeads: Hkv, headDim: D } = this.#config;
    const kvBytes = 4 * sequences * (context + count) * Hkv * D;
    if (kvBytes > MOST_KV_BYTES) return [];
    const rows = sequences * count;
    const seen = sequences * count * (context + (count + 1) / 2);
    const name = count === 1 ? `attention ${sequences} rows at ${context}` : `attention ${count} rows of a prompt`;
    return [
      this.#case(name, {
        bytes: kvBytes + 4 * rows * (2 * Hq + 2 * Hkv) * D,
        flops: 4 * seen * Hq * D,
        round: (operands) => this.#attentionRound(operands, sequences, count, context, kvBytes),
      }),
    ];
  }

  /** The most likely id of every row. */
  sample(rows: number): LayerCase {
    const V = this.#config.vocabSize;
    return this.#case(`sample ${rows} rows`, {
      bytes: 4 * rows * V,
      flops: 0,
      round: (operands) => {
        const logits = Array.from({ length: operands.copies(4 * rows * V) }, () => operands.random([rows, V]));
        // graft_sampling: temperature 0, top_p 1, no other cut.
        const records = new Float32Array(8 * rows).map((_, i) => (i % 8 === 1 ? 1 : 0));
        const [ids, params] = [operands.zeros([rows], "i32"), operands.floats(records)];
        return inTurn(logits, (each) => operands.ops.sample(ids, null, each, params));
      },
    });
  }

  #case(what: string, rest: Omit<LayerCase, "name" | "variant">): LayerCase {
    return { name: `${this.#shape} ${what}`, variant: null, ...rest };
  }

  #projections(what: string, rows: number, outs: readonly number[]): LayerCase {
    const { hiddenSize: C, qkvBias } = this.#config;
    const total = outs.reduce((a, b) => a + b, 0);
    return this.#case(`${what} ${rows} rows`, {
      ...productCosts(rows, C, total),
      round: (operands) => {
        const [x, norm] = [operands.random([rows, C]), rowNorm(operands, C)];
        const ys = outs.map((out) => operands.zeros([rows, out]));
        const biases = outs.map((out) => (qkvBias && outs.length > 1 ? operands.random([out]) : null));
        const sets = Array.from({ length: operands.copies(2 * C * total) }, () =>
          operands.own(
            new ProjectionSet(
              operands.ops,
              outs.map((out, i) => ({ weight: operands.weight(out, C), bias: biases[i]!, activation: "identity" })),
            ),
          ),
        );
        return inTurn(sets, (set) => operands.ops.projections(ys, x, norm, set));
      },
    });
  }

  #gated(rows: number): LayerCase {
    const { hiddenSize: C, intermediateSize: M } = this.#config;
    return this.#case(`gated_linear ${rows} rows`, {
      ...productCosts(rows, C, 2 * M, M),
      round: (operands) => {
        const [x, norm, h] = [operands.random([rows, C]), rowNorm(operands, C), operands.zeros([rows, M])];
        const pairs = Array.from({ length: operands.copies(4 * C * M) }, (): [PackedLinear, PackedLinear] => [
          operands.weight(M, C),
          operands.weight(M, C),
        ]);
        return inTurn(pairs, ([gate, up]) => operands.ops.gatedLinear(h, x, norm, gate, up));
      },
    });
  }

  /** With its residual. */
  #linear(what: string, rows: number, out: number, inputs: number): LayerCase {
    const costs = productCosts(rows, inputs, out);
    return this.#case(`${what} ${rows} rows`, {
      ...costs,
      bytes: costs.bytes + 4 * rows * out,
      round: (operands) => {
        const [x, residual, y] = [
          operands.random([rows, inputs]),
          operands.random([rows, out]),
          operands.zeros([rows, out]),
        ];
        const weights = Array.from({ length: operands.copies(2 * inputs * out) }, () => operands.weight(out, inputs));
        return inTurn(weights, (weight) => operands.ops.linear(y, x, weight, null, residual));
      },
    });
  }

  /** Every copy has pages of its own. */
  #attentionRound(operands: LayerOperands, S: number, count: number, context: number, kvBytes: number): Round {
    const { numHeads: Hq, numKvHeads: Hkv, headDim: D } = this.#config;
    const rows = S * count;
    const longest = context + count;
    const stride = Math.ceil(longest / PAGE);
    const copies = operands.copies(kvBytes);
    const cache = [copies * S * stride, PAGE * Hkv * D];
    const kv = {
      kCache: operands.random(cache, 1, "bf16"),
      vCache: operands.random(cache, 1, "bf16"),
      pageTable: operands.ints(ascending(copies * S * stride)),
      tableStride: stride,
      pageSize: PAGE,
    };
    const [q, k, v] = [Hq, Hkv, Hkv].map((heads) => operands.random([rows, heads * D])) as [Tensor, Tensor, Tensor];
    const o = operands.zeros([rows, Hq * D]);
    const batch = {
      seqStart: operands.ints(ascending(S + 1).map((s) => s * count)),
      startPos: operands.ints(new Int32Array(S).fill(context)),
      longest,
    };
    const weights = { norms: null, ropeTable: operands.random([longest, D]) };
    const sizes = { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D };
    const tables = Array.from({ length: copies }, (_, c) => operands.ints(ascending(S).map((s) => c * S + s)));
    return inTurn(tables, (tableRows) => {
      operands.ops.attentionStep(o, { q, k, v }, { ...kv, tableRows }, batch, weights, sizes);
    });
  }
}

/** Weights in bfloat16, rows in float32. @param written outputs of a row, where they are fewer than the weight's rows */
function productCosts(rows: number, inputs: number, out: number, written = out): { bytes: number; flops: number } {
  return { bytes: 2 * inputs * out + 4 * rows * (inputs + written), flops: 2 * rows * inputs * out };
}

function rowNorm(operands: LayerOperands, count: number): RowNorm {
  return { weight: operands.ones(count), bias: null, eps: 1e-5 };
}

/** One call for each of `items`. */
function inTurn<T>(items: readonly T[], call: (item: T) => void): Round {
  return {
    calls: items.length,
    run: () => {
      for (const item of items) call(item);
    },
  };
}

function ascending(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}
