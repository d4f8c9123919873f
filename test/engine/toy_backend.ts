// A stand-in for a model: the next token is a hash of (hybrid, whole token history), and that history is read back from
// the very pages and state slots the scheduler gave out. A stale, crossed or leaked place shows as a wrong token at once.
import type { TokenMixer, Variant } from "../../models/attention/mixer.ts";
import type { LinearPool } from "../../models/model.ts";
import type { Backend, Batch, Chunk, ChunkOutput, Copy } from "../../src/engine/batch.ts";
import { Engine } from "../../src/engine/engine.ts";
import type { Hybrid } from "../../src/engine/hybrid.ts";
import { HybridRegistry } from "../../src/engine/hybrid_registry.ts";
import { Scheduler } from "../../src/engine/scheduler.ts";
import type { Sequence } from "../../src/engine/sequence.ts";
import type { Clock } from "../../src/engine/timings.ts";
import { KernelError } from "../../src/errors.ts";

export const TOY_VOCAB = 97;

/** One round of a 32-bit mix. */
export function mix(a: number, b: number): number {
  let h = Math.imul(a ^ b, 0x9e3779b1) ^ 0x85ebca6b;
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  return (h ^ (h >>> 13)) | 0;
}

const KINDS = ["full_attention", "gla", "gdn", "jet"] as const;

const weights = new WeakMap<TokenMixer, number>();
let numWeights = 0;

/** As in a model, what a layer computes and keeps depends on the weights of every mixer up to it. */
function salt(hybrid: Hybrid, layer: number): number {
  let h = 0;
  for (const mixer of hybrid.mixers.slice(0, layer + 1)) {
    if (!weights.has(mixer)) weights.set(mixer, ++numWeights);
    h = mix(mix(h, KINDS.indexOf(mixer.kind) + 1), weights.get(mixer)!);
  }
  return h;
}

/** A mixer that only says what it is and what state it needs. */
export function toyMixer(kind: (typeof KINDS)[number], recurrentFloats: number, convFloats: number): TokenMixer {
  const full = kind === "full_attention";
  return {
    kind,
    forward: () => {
      throw new Error("A toy mixer computes nothing");
    },
    stateSpec: () => ({
      kvBytesPerToken: full ? { f32: 8, bf16: 4 } : { f32: 0, bf16: 0 },
      // Unlike any real one, a bf16 state here takes a float more: whoever mixes the two up is found out.
      recurrentFloats: full ? { f32: 0, bf16: 0 } : { f32: recurrentFloats, bf16: recurrentFloats + 1 },
      convFloats: full ? 0 : convFloats,
    }),
    weightBytes: () => 0,
    free: () => {},
  };
}

export function toyPool(variant: Variant, numLayers: number, floats: number): LinearPool {
  const mixers = Array.from({ length: numLayers }, () => toyMixer(variant, floats, variant === "gla" ? 0 : 7));
  return { directory: `toy-${variant}`, variant, shape: null as never, mixers, backbone: "toy", free: () => {} };
}

/** The token that follows a history, computed without any engine. */
export function expectedToken(hybrid: Hybrid, tokens: readonly number[], seed: number, choice: number): number {
  let all = 0;
  for (let layer = 0; layer < hybrid.mixers.length; layer++) {
    let h = salt(hybrid, layer);
    for (const token of tokens) h = mix(h, token);
    all = mix(all, h);
  }
  return draw(all, seed, choice, tokens.length);
}

function draw(all: number, seed: number, choice: number, position: number): number {
  return (mix(mix(mix(all, seed), choice), position) >>> 0) % TOY_VOCAB;
}

export interface ToyLimits {
  pageSize: number;
  numPages: number;
  numStateFloats: number;
  maxBatchTokens: number;
  maxSequences: number;
  maxWaiting: number;
  maxContext: number;
  pageBytes: number;
  cacheBytes: number;
  snapshotTokens: number;
  prefillInterference?: number;
  runAhead?: boolean;
}

export class ToyBackend implements Backend {
  readonly numReplayed = 0;
  readonly replayProblem = null;
  readonly #pageSize: number;
  /** Cells of the cache: token + 1 under a mark of the layer, 0 = never written. */
  readonly #cache: Int32Array;
  readonly #states: Int32Array;
  /** Throws at the step of this number, counted from 1. */
  failAt = 0;
  /** Throws at the next step. */
  failNext = false;
  /** The logits of this sequence are good for nothing. */
  breakSequence = -1;
  #steps = 0;
  /** The batch under way in parts, its hashes so far, and the layer that comes next. */
  #beside: { readonly batch: Batch; readonly hashes: Int32Array[]; layer: number } | null = null;

  /** Outputs of what has been begun, the last batch, and the tokens that it drew where the host does not have them yet. */
  readonly #begun: ChunkOutput[][] = [];
  #last: Batch | null = null;
  readonly #drawn = new Map<Sequence, number>();

  constructor(limits: ToyLimits) {
    this.#pageSize = limits.pageSize;
    this.#cache = new Int32Array(limits.numPages * limits.pageSize);
    this.#states = new Int32Array(limits.numStateFloats);
  }

  start(batch: Batch): void {
    if (this.#begun.length > 0) throw new Error("Another batch has been begun");
    this.#begin(batch);
  }

  follow(batch: Batch): boolean {
    if (this.#begun.length !== 1) throw new Error(`A batch follows, ${this.#begun.length} have been begun`);
    const follows = batch.chunks.every(({ sequence, start, count }, i) => {
      const before = this.#last!.chunks[i];
      return before?.sequence === sequence && before.start + before.count === start && count === 1;
    });
    if (!follows || batch.chunks.length !== this.#last!.chunks.length) throw new Error("Another batch follows");
    this.#begin(batch);
    return true;
  }

  finish(): ChunkOutput[] {
    return this.#begun.shift()!;
  }

  drop(): void {
    this.#begun.length = 0;
  }

  forget(): void {}

  /** Done at once, as by a processor; the host may not look yet. */
  #begin(batch: Batch): void {
    const outputs = this.run(batch);
    this.#begun.push(outputs);
    this.#last = batch;
    this.#drawn.clear();
    batch.chunks.forEach(({ sequence }, i) => {
      const output = outputs[i];
      if (output && "id" in output) this.#drawn.set(sequence, output.id);
    });
  }

  #token(sequence: Sequence, position: number): number {
    return sequence.tokens[position] ?? this.#drawn.get(sequence)!;
  }

  run(batch: Batch): ChunkOutput[] {
    this.#step();
    for (const copy of batch.copies) this.#copy(copy);
    const seen = new Set<Sequence>(this.#beside?.batch.chunks.map(({ sequence }) => sequence));
    return batch.chunks.map((chunk) => {
      if (seen.has(chunk.sequence)) throw new Error("A sequence stands twice in one batch");
      seen.add(chunk.sequence);
      const { numLayers, hashes } = this.#open(chunk);
      for (let layer = 0; layer < numLayers; layer++) this.#add(chunk, layer, hashes);
      return this.#outputs(chunk, hashes);
    });
  }

  begin(batch: Batch): void {
    if (this.#beside !== null) throw new Error("Another batch is under way in parts");
    if (batch.copies.length > 0) throw new Error("A batch in parts has copies");
    this.#beside = { batch, hashes: batch.chunks.map((chunk) => this.#open(chunk).hashes), layer: 0 };
  }

  advance(): ChunkOutput[] | null {
    this.#step();
    const { batch, hashes, layer } = this.#beside!;
    const numLayers = Math.max(...batch.chunks.map((chunk) => this.#open(chunk).numLayers));
    if (layer < numLayers) {
      batch.chunks.forEach((chunk, i) => {
        this.#add(chunk, layer, hashes[i]!);
      });
      this.#beside!.layer++;
      return null;
    }
    this.#beside = null;
    return batch.chunks.map((chunk, i) => this.#outputs(chunk, hashes[i]!));
  }

  settle(): void {}

  abandon(): void {
    this.#beside = null;
  }

  #step(): void {
    if (++this.#steps !== this.failAt && !this.failNext) return;
    this.failNext = false;
    throw new Error("The toy backend fails here");
  }

  #copy(copy: Copy): void {
    const [memory, size] = copy.kind === "page" ? [this.#cache, this.#pageSize] : [this.#states, copy.floats];
    memory.copyWithin(copy.to * size, copy.from * size, (copy.from + 1) * size);
  }

  #open({ sequence, count }: Chunk): { numLayers: number; hashes: Int32Array } {
    return { numLayers: sequence.hybrid.mixers.length, hashes: new Int32Array(count) };
  }

  /** Mixes a layer's hash of each row's history into those of the layers before. */
  #add({ sequence, start, count }: Chunk, layer: number, hashes: Int32Array): void {
    const own = this.#layer(sequence, layer, start, count);
    for (let i = 0; i < count; i++) hashes[i] = mix(hashes[i]!, own[i]!);
  }

  #outputs({ sequence, start, count, numOutputs }: Chunk, hashes: Int32Array): ChunkOutput {
    const { sampling, score } = sequence;
    if (numOutputs === 0) return null;
    if (sequence.id === this.breakSequence) {
      return { error: new KernelError("The toy logits of this sequence are broken") };
    }
    const next = Array.from(hashes.subarray(count - numOutputs), (all, i) =>
      draw(all, sampling.seed, sampling.choice, start + count - numOutputs + i + 1),
    );
    if (score === null) return { id: next[0]!, logprob: -next[0]!, top: [] };
    return { logprobs: Float32Array.from(next, (id) => -id), argmax: Int32Array.from(next), top: [] };
  }

  /** Hash of the history up to each token of the chunk, as this layer's memory has it. */
  #layer(sequence: Sequence, layer: number, start: number, count: number): Int32Array {
    const { hybrid } = sequence;
    const ordinal = hybrid.kvOrdinal[layer]!;
    if (ordinal < 0) return this.#linear(sequence, layer, start, count);
    const cell = (p: number) => {
      const page = sequence.pages[Math.floor(p / this.#pageSize) * hybrid.numFull + ordinal]!;
      return page * this.#pageSize + (p % this.#pageSize);
    };
    const mark = salt(hybrid, layer);
    for (let p = start; p < start + count; p++) this.#cache[cell(p)] = mark ^ (this.#token(sequence, p) + 1);
    const out = new Int32Array(count);
    let h = mark;
    for (let p = 0; p < start + count; p++) {
      h = mix(h, (this.#cache[cell(p)]! ^ mark) - 1);
      if (p >= start) out[p - start] = h;
    }
    return out;
  }

  /** The whole slot is filled with one value that depends on position and history, so that any overlap spoils it. */
  #linear(sequence: Sequence, layer: number, start: number, count: number): Int32Array {
    const { hybrid } = sequence;
    const ordinal = hybrid.stateOrdinal[layer]!;
    const { floats } = hybrid.slots[ordinal]!;
    const from = sequence.stateSlots[ordinal]! * floats;
    const slot = this.#states.subarray(from, from + floats);
    if (slot.length !== floats) throw new Error("A state slot leaves the pool");
    let h = salt(hybrid, layer);
    if (start > 0) {
      h = slot[0]! ^ start;
      if (!slot.every((value) => value === slot[0])) h = mix(h, 1);
    }
    const out = new Int32Array(count);
    for (let i = 0; i < count; i++) {
      h = mix(h, this.#token(sequence, start + i));
      out[i] = h;
    }
    slot.fill(h ^ (start + count));
    return out;
  }
}

export interface Toy {
  readonly engine: Engine;
  readonly scheduler: Scheduler;
  readonly registry: HybridRegistry;
  readonly backend: ToyBackend;
}

/** An engine over the toy backend: `kinds` are the checkpoint's own layers. */
export function toyEngine(kinds: readonly (typeof KINDS)[number][], limits: ToyLimits, clock: Clock = () => 0): Toy {
  const own = kinds.map((kind) => toyMixer(kind, 20, 5));
  const registry = new HybridRegistry(own, "toy", { numFloats: limits.numStateFloats, dtype: "f32" });
  const scheduler = new Scheduler({ prefillInterference: 0, ...limits });
  const backend = new ToyBackend(limits);
  const device = { kind: "cpu", name: "toy", isa: "none", threads: 1, passedOver: null } as const;
  const info = { ...limits, vocabSize: TOY_VOCAB, numLayers: kinds.length, layerTypes: kinds, device };
  const parts = {
    info,
    scheduler,
    backend,
    registry,
    constraints: null,
    clock,
    kvBytesPerToken: 8,
    weightBytes: () => 0,
    kernelClock: null,
    close: () => {},
    runAhead: limits.runAhead ?? false,
  };
  return { engine: new Engine(parts), scheduler, registry, backend };
}
