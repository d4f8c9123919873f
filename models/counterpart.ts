// One layer's counterpart of an opened pool: what it is and what state it needs is known from the pool's shape, its weights
// are in memory only while they are wanted. Knows no engine and no reason to load.
import { createHash } from "node:crypto";
import type { SafetensorsFile } from "../src/checkpoint/safetensors.ts";
import type { TensorReader } from "../src/checkpoint/tensors.ts";
import { CheckpointError } from "../src/errors.ts";
import type { Ops } from "../src/ops/ops.ts";
import { createLinearMixer } from "./attention/create.ts";
import type {
  Context,
  LinearShape,
  LoadableMixer,
  MixerBatch,
  MixerIo,
  StateSpec,
  TokenMixer,
} from "./attention/mixer.ts";
import { linearTensors } from "./attention/shape.ts";
import { linearStateSpec } from "./attention/state.ts";
import { type WeightDType, WeightLoader } from "./weights.ts";

/** An opened pool, as its counterparts read it. */
export interface PoolSource {
  readonly ops: Ops;
  readonly directory: string;
  readonly shape: LinearShape;
  readonly file: SafetensorsFile;
  /** The same file, checked. */
  readonly tensors: TensorReader;
  readonly dtype: WeightDType | undefined;
}

/** A linear layer that is read from its pool when it is needed. */
export class Counterpart implements LoadableMixer {
  readonly kind;
  readonly layer: number;
  readonly bytes: number;
  readonly #source: PoolSource;
  readonly #prefix: string;
  readonly #spec: StateSpec;
  #mixer: TokenMixer | null = null;
  #content: string | null = null;

  constructor(source: PoolSource, layer: number) {
    this.kind = source.shape.variant;
    this.layer = layer;
    this.#source = source;
    this.#prefix = `linear.${layer}.`;
    this.#spec = linearStateSpec(source.ops, source.shape);
    const weights = this.#loader();
    this.bytes = linearTensors(source.shape).reduce((sum, spec) => sum + weights.bytesInMemory(spec), 0);
  }

  get loaded(): boolean {
    return this.#mixer !== null;
  }

  get content(): string | null {
    return this.#content;
  }

  async load(turn: () => Promise<void>): Promise<void> {
    if (this.#mixer !== null) return;
    const { shape, file } = this.#source;
    const hash = createHash("sha256").update(JSON.stringify(shape));
    const weights = this.#loader();
    await weights.prepare(linearTensors(shape), {
      read: (name, offset, out) => file.read(name, offset, out),
      turn,
      see: (bytes) => void hash.update(bytes),
    });
    try {
      this.#requireSame(hash.digest("hex"));
      this.#mixer = createLinearMixer(weights, shape);
    } finally {
      weights.discard();
    }
  }

  unload(): void {
    this.#mixer?.free();
    this.#mixer = null;
  }

  forward(ctx: Context, io: MixerIo, batch: MixerBatch): void {
    if (this.#mixer === null) throw new Error(`Layer ${this.layer} of pool "${this.#source.directory}" is not loaded`);
    this.#mixer.forward(ctx, io, batch);
  }

  stateSpec(): StateSpec {
    return this.#spec;
  }

  weightBytes(): number {
    return this.#mixer === null ? 0 : this.bytes;
  }

  free(): void {
    this.unload();
  }

  /** Prefixes computed with these weights may still be kept: other weights must not come in their place. */
  #requireSame(content: string): void {
    if (this.#content !== null && this.#content !== content) {
      throw new CheckpointError(
        `Cannot load pool "${this.#source.directory}": its weights have changed since it was opened`,
      );
    }
    this.#content = content;
  }

  #loader(): WeightLoader {
    const { ops, tensors, dtype } = this.#source;
    return new WeightLoader(ops, tensors, dtype).scope(this.#prefix);
  }
}
