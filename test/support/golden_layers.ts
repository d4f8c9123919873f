// Golden files of layers and models as this program's own objects: shapes, parameters, mixers.
import { createLinearMixer, createTrainableLinear } from "../../models/attention/create.ts";
import { FullAttention } from "../../models/attention/full.ts";
import type { LinearShape, TokenMixer, TrainableMixer, Variant } from "../../models/attention/mixer.ts";
import { DEFAULT_BLOCK } from "../../models/attention/shape.ts";
import { TrainableFullAttention } from "../../models/attention/train_full.ts";
import type { RopeConfig } from "../../models/config.ts";
import { loadGpt2Attention } from "../../models/gpt2.ts";
import { ParameterBlock, type ParameterSpec } from "../../models/parameters.ts";
import { createRopeTable } from "../../models/rope.ts";
import { WeightLoader } from "../../models/weights.ts";
import type { Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import type { Golden } from "./golden.ts";
import { MemoryTensors } from "./memory_tensors.ts";

/** Number among a file's hyperparameters. */
export function hp(golden: Golden, name: string, fallback?: number): number {
  const value = golden.hyperparameters[name] ?? fallback;
  if (typeof value !== "number") throw new Error(`${golden.name}: hyperparameter ${name} is ${String(value)}`);
  return value;
}

/** Shape of a linear layer from a golden file's hyperparameters. */
export function goldenShape(golden: Golden, variant: Variant): LinearShape {
  const is = (name: string) => golden.hyperparameters[name] === true;
  const keyHeads = hp(golden, "linear_num_key_heads");
  return {
    variant,
    hiddenSize: hp(golden, "hidden_size"),
    numQueryHeads: hp(golden, "linear_num_query_heads", keyHeads),
    numKeyHeads: keyHeads,
    numValueHeads: hp(golden, "linear_num_value_heads"),
    keyHeadDim: hp(golden, "linear_key_head_dim"),
    valueHeadDim: hp(golden, "linear_value_head_dim"),
    convKernel: hp(golden, "linear_conv_kernel_dim"),
    convBias: is("linear_conv_bias"),
    outputGate: is("linear_use_output_gate"),
    qkvBias: is("linear_qkv_bias"),
    oBias: false,
    normEps: hp(golden, "linear_norm_eps"),
    gateLowRank: hp(golden, "linear_gate_low_rank_dim", 16),
    gateNormalizer: hp(golden, "linear_gate_logit_normalizer", 16),
    allowNegEigval: is("linear_allow_neg_eigval"),
    dconvReduction: hp(golden, "linear_dconv_generator_reduction", 8),
    block: DEFAULT_BLOCK,
  };
}

/** The tensors below `prefix`, in memory. */
export function goldenTensors(golden: Golden, prefix: string): MemoryTensors {
  const names = golden.names(prefix);
  return new MemoryTensors(
    new Map(
      names.map(
        (name) => [name.slice(prefix.length), { shape: golden.shape(name), values: golden.f32(name) }] as const,
      ),
    ),
  );
}

/** Parameters below `prefix` with gradients. */
export function goldenParameters(ops: Ops, golden: Golden, prefix: string): ParameterBlock {
  const specs = golden.names(prefix).map((name): ParameterSpec => {
    const conv1d = /(^|\.)(c_attn|c_proj|c_fc)\.weight$/.test(name);
    return { name: name.slice(prefix.length), shape: golden.shape(name), ...(conv1d ? { conv1d } : {}) };
  });
  const params = new ParameterBlock(ops, specs);
  for (const { name } of specs) params.write(name, golden.f32(prefix + name));
  return params;
}

function ropeOf(golden: Golden): RopeConfig {
  const scaling = golden.hyperparameters.rope_scaling as Record<string, number> | undefined;
  return {
    theta: hp(golden, "rope_theta"),
    scaling: scaling
      ? {
          factor: scaling.factor!,
          lowFreqFactor: scaling.low_freq_factor!,
          highFreqFactor: scaling.high_freq_factor!,
          originalMaxPositions: scaling.original_max_position_embeddings!,
        }
      : null,
  };
}

/** More than any golden layer has. */
const POSITIONS = 4096;

/** Softmax attention of a golden file, in both forms. */
export class GoldenAttention {
  readonly sizes;
  readonly normEps: number;
  readonly ropeTable: Tensor | null;
  readonly #ops: Ops;
  readonly #golden: Golden;
  readonly #prefix: string;

  constructor(ops: Ops, golden: Golden, prefix = "param.") {
    const heads = hp(golden, "num_attention_heads");
    const headDim = hp(golden, "head_dim", hp(golden, "hidden_size") / heads);
    const gpt2 = golden.has(`${prefix}c_attn.weight`);
    this.sizes = { numQueryHeads: heads, numKvHeads: hp(golden, "num_key_value_heads", heads), headDim };
    this.normEps = hp(golden, "rms_norm_eps", 1e-6);
    this.ropeTable = gpt2 ? null : createRopeTable(ops, ropeOf(golden), headDim, POSITIONS);
    this.#ops = ops;
    this.#golden = golden;
    this.#prefix = prefix;
  }

  serving(): FullAttention {
    const { sizes, ropeTable } = this;
    const weights = new WeightLoader(this.#ops, goldenTensors(this.#golden, this.#prefix));
    if (!ropeTable) return loadGpt2Attention(weights, { numHeads: sizes.numQueryHeads, headDim: sizes.headDim });
    return new FullAttention(this.#ops, sizes, {
      q: weights.linear("q_proj"),
      k: weights.linear("k_proj"),
      v: weights.linear("v_proj"),
      o: weights.linear("o_proj"),
      headNorms: weights.has("q_norm.weight")
        ? { q: weights.vector("q_norm.weight"), k: weights.vector("k_norm.weight"), eps: this.normEps }
        : null,
      ropeTable,
    });
  }

  training(): TrainableMixer {
    const params = goldenParameters(this.#ops, this.#golden, this.#prefix);
    return new TrainableFullAttention(params, { sizes: this.sizes, ropeTable: this.ropeTable, normEps: this.normEps });
  }
}

/** A linear layer of a golden file, serving form. */
export function goldenLinear(ops: Ops, golden: Golden, variant: Variant): TokenMixer {
  return createLinearMixer(new WeightLoader(ops, goldenTensors(golden, "param.")), goldenShape(golden, variant));
}

/** A linear layer of a golden file, training form. */
export function goldenTrainableLinear(ops: Ops, golden: Golden, variant: Variant, prefix = "param."): TrainableMixer {
  return createTrainableLinear(goldenParameters(ops, golden, prefix), goldenShape(golden, variant));
}
