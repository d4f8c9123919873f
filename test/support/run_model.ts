// Runs a loaded model synchronously: whole prompts, chunks, single tokens, several sequences at once. What the engine does,
// without scheduling.
import type { Context, TokenMixer } from "../../models/attention/mixer.ts";
import type { Backbone } from "../../models/model.ts";
import type { LayerCapture } from "../../src/convert/parent.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { Arena } from "../../src/tensor/arena.ts";
import { createBatch, freeBatch, type HostOptions, MixerHost } from "./run_mixer.ts";

/** New tokens of one sequence. */
export interface Feed {
  readonly sequence: number;
  readonly ids: readonly number[];
}

export class ModelRun {
  readonly #ctx: Context;
  readonly #backbone: Backbone;
  readonly #hosts: MixerHost[];
  readonly #positions: number[];

  /** @param mixers one per layer; null = the backbone's full attention. */
  constructor(ops: Ops, backbone: Backbone, mixers: readonly (TokenMixer | null)[], options: HostOptions) {
    this.#ctx = { ops, arena: new Arena(ops) };
    this.#backbone = backbone;
    this.#hosts = mixers.map(
      (mixer, i) => new MixerHost(ops, mixer ?? backbone.fullAttention(i), options, this.#ctx.arena),
    );
    this.#positions = new Array<number>(options.sequences).fill(0);
  }

  /** Logits of every fed row, in order; `onLayer` sees the token mixer's input and output of each layer. */
  forward(feeds: readonly Feed[], onLayer: LayerCapture = () => {}): Float32Array[] {
    const { ops, arena } = this.#ctx;
    const { hiddenSize: C, vocabSize: V } = this.#backbone.config;
    const segments = feeds.map(({ sequence, ids }) => {
      const start = this.#positions[sequence]!;
      this.#positions[sequence] = start + ids.length;
      return { sequence, start, count: ids.length };
    });
    const batch = createBatch(ops, segments);
    const ids = ops.fromArray([batch.numRows], Int32Array.from(feeds.flatMap((f) => [...f.ids])));
    const all = arena.scope(() => {
      const [x, n, y] = [0, 1, 2].map(() => arena.alloc([batch.numRows, C])) as [never, never, never];
      const logits = arena.alloc([batch.numRows, V]);
      this.#backbone.embed(this.#ctx, ids, batch.positions, x);
      this.#hosts.forEach((host, i) => {
        ops.rowNorm(n, x, this.#backbone.inputNorm(i));
        host.forward(n, y, batch);
        onLayer(i, n, y);
        ops.add(x, x, y);
        this.#backbone.mlpBlock(this.#ctx, i, x);
      });
      this.#backbone.head(this.#ctx, x, logits);
      return ops.toFloat32(logits);
    });
    ops.free(ids);
    freeBatch(ops, batch);
    return Array.from({ length: batch.numRows }, (_, row) => all.slice(row * V, (row + 1) * V));
  }

  /** Greedy continuation of one sequence, whose prompt must not have been fed. */
  greedy(sequence: number, prompt: readonly number[], count: number): number[] {
    const out: number[] = [];
    let logits = this.forward([{ sequence, ids: prompt }]).at(-1)!;
    while (out.length < count) {
      const next = argmax(logits);
      out.push(next);
      if (out.length < count) logits = this.forward([{ sequence, ids: [next] }])[0]!;
    }
    return out;
  }

  close(): void {
    for (const host of this.#hosts) host.close();
    this.#ctx.arena.close();
  }
}

/** Index of the largest value; the lowest on a tie. */
export function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** Natural log-probability of `id` under softmax(logits), in double precision. */
export function logProbability(logits: Float32Array, id: number): number {
  const top = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const sum = logits.reduce((total, x) => total + Math.exp(x - top), 0);
  return logits[id]! - top - Math.log(sum);
}
