// The decoder block of Llama, Qwen2 and Qwen3, training form: every parameter has a gradient. The serving form, with the
// formulas, is decoder.ts.
import type { Ops } from "../src/ops/ops.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import type { Context, RaggedRows, Saved, TrainableMixer } from "./attention/mixer.ts";
import type { ModelConfig } from "./config.ts";
import { decoderLayerPrefix } from "./decoder.ts";
import { linearBackward, linearBackwardNew, linearForward } from "./linear.ts";
import type { ModelSaved, TrainableModel } from "./model.ts";
import { optionalParameter, type Parameter, type ParameterSet, parameter } from "./parameters.ts";
import { createRopeTable } from "./rope.ts";
import { sum, trainableMixer, zerosLike } from "./train_layers.ts";

interface Projection {
  readonly weight: Parameter;
  readonly bias: Parameter | null;
}

interface Layer {
  readonly inputNorm: Parameter;
  readonly mixer: TrainableMixer;
  readonly postNorm: Parameter;
  readonly gate: Projection;
  readonly up: Projection;
  readonly down: Projection;
}

interface SavedLayer {
  readonly x: Tensor;
  readonly mixer: Saved;
  readonly h: Tensor;
  readonly n: Tensor;
  readonly gate: Tensor;
  readonly up: Tensor;
  readonly act: Tensor;
}

interface SavedDecoder extends ModelSaved {
  readonly ids: Tensor;
  readonly layers: readonly SavedLayer[];
  readonly last: Tensor;
  readonly normed: Tensor;
}

/** Training form of the whole model, linear token mixers included. */
export class TrainableDecoder implements TrainableModel {
  readonly config: ModelConfig;
  readonly params: ParameterSet;
  readonly #ops: Ops;
  readonly #ropeTable: Tensor;
  readonly #embedding: Parameter;
  readonly #layers: readonly Layer[];
  readonly #norm: Parameter;
  readonly #head: Parameter;

  /** Owns `params`. */
  constructor(ops: Ops, params: ParameterSet, config: ModelConfig) {
    this.config = config;
    this.params = params;
    this.#ops = ops;
    this.#ropeTable = createRopeTable(ops, config.rope!, config.headDim, config.maxPositions);
    this.#embedding = parameter(params, "model.embed_tokens.weight");
    this.#norm = parameter(params, "model.norm.weight");
    this.#head = config.tieWordEmbeddings ? this.#embedding : parameter(params, "lm_head.weight");
    this.#layers = config.linearLayers.map((_, i) => this.#layer(i));
  }

  #layer(i: number): Layer {
    const prefix = decoderLayerPrefix(i);
    const projection = (name: string): Projection => ({
      weight: parameter(this.params, `${prefix}mlp.${name}.weight`),
      bias: optionalParameter(this.params, `${prefix}mlp.${name}.bias`),
    });
    const names = { layer: prefix, attention: "self_attn." };
    return {
      inputNorm: parameter(this.params, `${prefix}input_layernorm.weight`),
      mixer: trainableMixer(this.params, this.config, i, names, this.#ropeTable),
      postNorm: parameter(this.params, `${prefix}post_attention_layernorm.weight`),
      gate: projection("gate_proj"),
      up: projection("up_proj"),
      down: projection("down_proj"),
    };
  }

  forward(ctx: Context, ids: Tensor, rows: RaggedRows): SavedDecoder {
    const { hiddenSize: C, normEps } = this.config;
    let x = ctx.arena.alloc([rows.numRows, C]);
    ctx.ops.embedding(x, ids, this.#embedding.value);
    const layers: SavedLayer[] = [];
    for (const layer of this.#layers) {
      const saved = this.#layerForward(ctx, layer, x, rows);
      layers.push(saved);
      x = sum(ctx, saved.h, linearForward(ctx, saved.act, layer.down.weight, layer.down.bias));
    }
    const normed = ctx.arena.alloc(x.shape);
    ctx.ops.rmsNorm(normed, x, this.#norm.value, normEps);
    return { ids, layers, last: x, normed, logits: linearForward(ctx, normed, this.#head, null) };
  }

  #layerForward(ctx: Context, layer: Layer, x: Tensor, rows: RaggedRows): SavedLayer {
    const { normEps } = this.config;
    const input = ctx.arena.alloc(x.shape);
    ctx.ops.rmsNorm(input, x, layer.inputNorm.value, normEps);
    const mixer = layer.mixer.forward(ctx, input, rows);
    const h = sum(ctx, x, mixer.y);
    const n = ctx.arena.alloc(x.shape);
    ctx.ops.rmsNorm(n, h, layer.postNorm.value, normEps);
    const gate = linearForward(ctx, n, layer.gate.weight, layer.gate.bias);
    const up = linearForward(ctx, n, layer.up.weight, layer.up.bias);
    const act = ctx.arena.alloc(gate.shape);
    ctx.ops.siluMul(act, gate, up);
    return { x, mixer, h, n, gate, up, act };
  }

  backward(ctx: Context, saved: ModelSaved, dlogits: Tensor): void {
    const { ids, layers, last, normed } = saved as SavedDecoder;
    ctx.arena.scope(() => {
      const dnormed = linearBackwardNew(ctx, dlogits, normed, this.#head, null);
      const dx = ctx.arena.alloc(last.shape);
      ctx.ops.rmsNormBackward(dx, this.#norm.grad, dnormed, last, this.#norm.value, this.config.normEps);
      for (let i = layers.length - 1; i >= 0; i--) this.#layerBackward(ctx, this.#layers[i]!, layers[i]!, dx);
      ctx.ops.embeddingBackward(this.#embedding.grad, ids, dx);
    });
  }

  /** Turns the gradient of the layer's output in `dx` into that of its input. */
  #layerBackward(ctx: Context, layer: Layer, saved: SavedLayer, dx: Tensor): void {
    const { normEps } = this.config;
    ctx.arena.scope(() => {
      const dact = linearBackwardNew(ctx, dx, saved.act, layer.down.weight, layer.down.bias);
      const [dgate, dup] = [ctx.arena.alloc(dact.shape), ctx.arena.alloc(dact.shape)];
      ctx.ops.siluMulBackward(dgate, dup, dact, saved.gate, saved.up);
      const dn = linearBackwardNew(ctx, dgate, saved.n, layer.gate.weight, layer.gate.bias);
      linearBackward(ctx, dup, saved.n, layer.up.weight, layer.up.bias, dn);
      ctx.ops.rmsNormBackward(dx, layer.postNorm.grad, dn, saved.h, layer.postNorm.value, normEps, true);
      const dinput = zerosLike(ctx, dx);
      layer.mixer.backward(ctx, dx, saved.mixer, dinput);
      ctx.ops.rmsNormBackward(dx, layer.inputNorm.grad, dinput, saved.x, layer.inputNorm.value, normEps, true);
    });
  }

  free(): void {
    this.#ops.free(this.#ropeTable);
    this.params.free();
  }
}
