// GPT-2, training form: every parameter has a gradient. The serving form, with the formulas, is gpt2.ts.
import type { Tensor } from "../src/tensor/tensor.ts";
import type { Context, RaggedRows, Saved, TrainableMixer } from "./attention/mixer.ts";
import type { ModelConfig } from "./config.ts";
import { linearBackwardNew, linearForward } from "./linear.ts";
import type { ModelSaved, TrainableModel } from "./model.ts";
import { type Parameter, type ParameterSet, parameter } from "./parameters.ts";
import { sum, trainableMixer, zerosLike } from "./train_layers.ts";

/** Weight and bias of a layer norm or a linear layer. */
interface Pair {
  readonly weight: Parameter;
  readonly bias: Parameter;
}

interface Layer {
  readonly norm1: Pair;
  readonly mixer: TrainableMixer;
  readonly norm2: Pair;
  readonly expand: Pair;
  readonly contract: Pair;
}

interface SavedLayer {
  readonly x: Tensor;
  readonly mixer: Saved;
  readonly h: Tensor;
  readonly n: Tensor;
  readonly expanded: Tensor;
  readonly act: Tensor;
}

interface SavedGpt2 extends ModelSaved {
  readonly ids: Tensor;
  readonly rows: RaggedRows;
  readonly layers: readonly SavedLayer[];
  readonly last: Tensor;
  readonly normed: Tensor;
}

/** Training form of GPT-2, linear token mixers included. */
export class TrainableGpt2 implements TrainableModel {
  readonly config: ModelConfig;
  readonly params: ParameterSet;
  readonly #tokens: Parameter;
  readonly #positions: Parameter;
  readonly #layers: readonly Layer[];
  readonly #norm: Pair;
  readonly #head: Parameter;

  /** Owns `params`. */
  constructor(params: ParameterSet, config: ModelConfig) {
    const pair = (name: string): Pair => ({
      weight: parameter(params, `${name}.weight`),
      bias: parameter(params, `${name}.bias`),
    });
    this.config = config;
    this.params = params;
    this.#tokens = parameter(params, "transformer.wte.weight");
    this.#positions = parameter(params, "transformer.wpe.weight");
    this.#norm = pair("transformer.ln_f");
    this.#head = config.tieWordEmbeddings ? this.#tokens : parameter(params, "lm_head.weight");
    this.#layers = config.linearLayers.map((_, i) => {
      const prefix = `transformer.h.${i}.`;
      return {
        norm1: pair(`${prefix}ln_1`),
        mixer: trainableMixer(params, config, i, { layer: prefix, attention: "attn." }, null),
        norm2: pair(`${prefix}ln_2`),
        expand: pair(`${prefix}mlp.c_fc`),
        contract: pair(`${prefix}mlp.c_proj`),
      };
    });
  }

  forward(ctx: Context, ids: Tensor, rows: RaggedRows): SavedGpt2 {
    let x = ctx.arena.alloc([rows.numRows, this.config.hiddenSize]);
    const p = ctx.arena.alloc(x.shape);
    ctx.ops.embedding(x, ids, this.#tokens.value);
    ctx.ops.embedding(p, rows.positions, this.#positions.value);
    ctx.ops.add(x, x, p);
    const layers: SavedLayer[] = [];
    for (const layer of this.#layers) {
      const saved = this.#layerForward(ctx, layer, x, rows);
      layers.push(saved);
      x = sum(ctx, saved.h, linearForward(ctx, saved.act, layer.contract.weight, layer.contract.bias));
    }
    const normed = this.#normalise(ctx, this.#norm, x);
    return { ids, rows, layers, last: x, normed, logits: linearForward(ctx, normed, this.#head, null) };
  }

  #layerForward(ctx: Context, layer: Layer, x: Tensor, rows: RaggedRows): SavedLayer {
    const mixer = layer.mixer.forward(ctx, this.#normalise(ctx, layer.norm1, x), rows);
    const h = sum(ctx, x, mixer.y);
    const n = this.#normalise(ctx, layer.norm2, h);
    const expanded = linearForward(ctx, n, layer.expand.weight, layer.expand.bias);
    const act = ctx.arena.alloc(expanded.shape);
    ctx.ops.geluTanh(act, expanded);
    return { x, mixer, h, n, expanded, act };
  }

  backward(ctx: Context, saved: ModelSaved, dlogits: Tensor): void {
    const { ids, rows, layers, last, normed } = saved as SavedGpt2;
    ctx.arena.scope(() => {
      const dnormed = linearBackwardNew(ctx, dlogits, normed, this.#head, null);
      const dx = zerosLike(ctx, last);
      this.#normBackward(ctx, this.#norm, dnormed, last, dx);
      for (let i = layers.length - 1; i >= 0; i--) this.#layerBackward(ctx, this.#layers[i]!, layers[i]!, dx);
      ctx.ops.embeddingBackward(this.#tokens.grad, ids, dx);
      ctx.ops.embeddingBackward(this.#positions.grad, rows.positions, dx);
    });
  }

  /** Turns the gradient of the layer's output in `dx` into that of its input. */
  #layerBackward(ctx: Context, layer: Layer, saved: SavedLayer, dx: Tensor): void {
    ctx.arena.scope(() => {
      const dact = linearBackwardNew(ctx, dx, saved.act, layer.contract.weight, layer.contract.bias);
      const dexpanded = ctx.arena.alloc(dact.shape);
      ctx.ops.geluTanhBackward(dexpanded, dact, saved.expanded);
      const dn = linearBackwardNew(ctx, dexpanded, saved.n, layer.expand.weight, layer.expand.bias);
      this.#normBackward(ctx, layer.norm2, dn, saved.h, dx);
      const dinput = zerosLike(ctx, dx);
      layer.mixer.backward(ctx, dx, saved.mixer, dinput);
      this.#normBackward(ctx, layer.norm1, dinput, saved.x, dx);
    });
  }

  #normalise(ctx: Context, { weight, bias }: Pair, x: Tensor): Tensor {
    const y = ctx.arena.alloc(x.shape);
    ctx.ops.layerNorm(y, x, weight.value, bias.value, this.config.normEps);
    return y;
  }

  /** dx += the gradient of the norm's input x. */
  #normBackward(ctx: Context, { weight, bias }: Pair, dy: Tensor, x: Tensor, dx: Tensor): void {
    ctx.ops.layerNormBackward(dx, weight.grad, bias.grad, dy, x, weight.value, this.config.normEps, true);
  }

  free(): void {
    this.params.free();
  }
}
