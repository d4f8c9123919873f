// Runs batches on the model: decode steps as programs that repeat, all else as it comes, with logits for the rows that need
// them. Knows sequences and tensors; which of them form a batch is the scheduler's decision.
import type { Backbone } from "../../models/model.ts";
import { KernelError } from "../errors.ts";
import type { Ops } from "../ops/ops.ts";
import { Fetch } from "../ops/repeat_ops.ts";
import { Arena } from "../tensor/arena.ts";
import { rows, type Tensor, view } from "../tensor/tensor.ts";
import { type Backend, type Batch, type ChunkOutput, isPlain } from "./batch.ts";
import { DecodeRunner } from "./decode_runner.ts";
import type { EngineMemory } from "./memory.ts";
import { ModelPass } from "./model_pass.ts";
import { Sampler } from "./sampler.ts";
import { planCapacity, planStep, type StepPlan } from "./step_plan.ts";
import { StepTables } from "./step_tables.ts";
import type { TokenLogprob } from "./types.ts";

/** Sees the logits that predict the token at `position`; for tests of bit equality. */
export type LogitsTap = (sequenceId: number, position: number, logits: Float32Array) => void;

/** One wanted row: its place in the batch and the chunk it belongs to. */
interface OutputRow {
  readonly row: number;
  readonly chunk: number;
  /** Of the token that the row predicts. */
  readonly position: number;
}

/** A batch as it lies on the device. */
interface Laid {
  readonly batch: Batch;
  readonly plan: StepPlan;
  readonly drawn: readonly OutputRow[];
  readonly scored: readonly OutputRow[];
  /** i32: rows whose logits are wanted, drawn ones first, and the ids that the scored ones are asked for. */
  readonly wanted: Tensor;
  readonly targets: Tensor;
}

/** Runs batches on the loaded model. */
export class Runner implements Backend {
  /** Set by tests. */
  tap: LogitsTap | null = null;
  readonly #ops: Ops;
  readonly #arena: Arena;
  readonly #pass: ModelPass;
  readonly #decode: DecodeRunner;
  /** Outputs of the batch that has been begun, where it is not a decode step under way. */
  #outputs: ChunkOutput[] | null = null;
  readonly #memory: EngineMemory;
  readonly #tables: StepTables;
  /** Of the batch that goes through in parts: where it stands, and what it keeps between its layers. */
  readonly #besideTables: StepTables;
  #beside: { readonly laid: Laid; readonly x: Tensor; layer: number } | null = null;
  #besideRows: Tensor | null = null;
  readonly #sampler: Sampler;
  /** Of one number, for waiting. */
  readonly #mark: Fetch;

  constructor(
    ops: Ops,
    backbone: Backbone,
    memory: EngineMemory,
    maxBatchTokens: number,
    maxSequences: number,
    record = true,
  ) {
    this.#ops = ops;
    this.#arena = new Arena(ops);
    this.#pass = new ModelPass({ ops, arena: this.#arena }, backbone, maxBatchTokens);
    this.#decode = new DecodeRunner(this.#pass, memory, maxSequences, record);
    this.#memory = memory;
    this.#tables = new StepTables(ops, 1 << 16);
    this.#besideTables = new StepTables(ops, 1 << 12);
    this.#mark = new Fetch(ops, 1, 2);
    this.#sampler = new Sampler(ops, this.#arena, this.#pass.sliceRows);
  }

  /** Decode steps that were replayed rather than launched op by op. */
  get numReplayed(): number {
    return this.#decode.numReplayed;
  }

  get replayProblem(): string | null {
    return this.#decode.problem;
  }

  start(batch: Batch): void {
    for (const copy of batch.copies) this.#memory.copy(copy);
    if (batch.chunks.every(isPlain) && (this.tap === null || batch.numRows <= this.#pass.sliceRows)) {
      this.#decode.start(batch, this.tap !== null);
      return;
    }
    const laid = this.#lay(batch, this.#tables);
    this.#outputs = this.#arena.scope(() => this.#read(laid, this.#pass.hidden(laid.plan)));
  }

  follow(batch: Batch): boolean {
    return this.#decode.follow(batch, this.tap !== null);
  }

  finish(): ChunkOutput[] {
    const outputs = this.#outputs;
    this.#outputs = null;
    return outputs ?? this.#decode.finish(this.tap);
  }

  drop(): void {
    this.#outputs = null;
    this.#decode.drop();
  }

  forget(identity: string): void {
    this.#decode.forget(identity);
  }

  begin(batch: Batch): void {
    const laid = this.#lay(batch, this.#besideTables);
    const x = this.#besideX(batch.numRows);
    this.#pass.embed(laid.plan, x);
    this.#beside = { laid, x, layer: 0 };
  }

  advance(): ChunkOutput[] | null {
    const beside = this.#beside!;
    const { laid, x } = beside;
    if (beside.layer < this.#pass.numLayers) {
      this.#pass.layer(beside.layer++, x, laid.plan);
      if (laid.drawn.length + laid.scored.length > 0 || beside.layer < this.#pass.numLayers) return null;
    }
    this.#beside = null;
    return this.#read(laid, x);
  }

  settle(): void {
    if (this.#beside === null) return;
    this.#mark.begin(view(this.#beside.x, 0, [1]));
    this.#mark.wait();
  }

  abandon(): void {
    this.#beside = null;
  }

  close(): void {
    this.#arena.close();
    this.#tables.close();
    this.#besideTables.close();
    this.#decode.close();
    if (this.#besideRows !== null) this.#ops.free(this.#besideRows);
    this.#sampler.close();
    this.#mark.close();
    this.#memory.close();
  }

  /** Writes down what the kernels need to know of a batch. */
  #lay(batch: Batch, tables: StepTables): Laid {
    const { numLayers } = this.#pass;
    this.#memory.prepare(batch);
    const [drawn, scored] = outputRows(batch);
    tables.begin(planCapacity(batch, numLayers) + 2 * (drawn.length + scored.length));
    const plan = planStep(batch, numLayers, tables, tables, this.#memory);
    const wanted = indexOf([...drawn, ...scored], tables);
    const targets = targetsOf(batch, scored, tables);
    tables.send();
    return { batch, plan, drawn, scored, wanted, targets };
  }

  /** Hidden states that stay while other batches run. */
  #besideX(numRows: number): Tensor {
    if (this.#besideRows === null || this.#besideRows.shape[0]! < numRows) {
      if (this.#besideRows !== null) this.#ops.free(this.#besideRows);
      this.#besideRows = null;
      this.#besideRows = this.#ops.empty([numRows, this.#pass.hiddenSize]);
    }
    return rows(this.#besideRows, 0, numRows);
  }

  #read({ batch, drawn, scored, wanted, targets }: Laid, x: Tensor): ChunkOutput[] {
    const results: ChunkOutput[] = batch.chunks.map(() => null);
    this.#eachSlice(x, wanted, 0, drawn, batch, (logits, part) => {
      const sequences = part.map(({ chunk }) => batch.chunks[chunk]!.sequence);
      const positions = part.map(({ position }) => position);
      this.#sampler.draw(logits, sequences, positions).forEach((token, i) => {
        results[part[i]!.chunk] = token;
      });
    });
    const all = {
      logprobs: new Float32Array(scored.length),
      argmax: new Int32Array(scored.length),
      top: [] as TokenLogprob[][],
    };
    this.#eachSlice(x, wanted, drawn.length, scored, batch, (logits, part, from) => {
      const numTop = part.map(({ chunk }) => batch.chunks[chunk]!.sequence.score!.numTop);
      const { logprobs, argmax, top } = this.#sampler.score(logits, view(targets, from, [part.length]), numTop);
      all.logprobs.set(logprobs, from);
      all.argmax.set(argmax, from);
      all.top.push(...top);
    });
    let at = 0;
    batch.chunks.forEach(({ sequence, numOutputs }, i) => {
      if (sequence.score === null || numOutputs === 0) return;
      const end = at + numOutputs;
      const argmax = all.argmax.slice(at, end);
      results[i] = argmax.every((id) => id >= 0)
        ? { logprobs: all.logprobs.slice(at, end), argmax, top: all.top.slice(at, end) }
        : { error: new KernelError("Cannot score the text: the model's logits hold NaN or infinity") };
      at = end;
    });
    return results;
  }

  /** Last norm and head over the wanted rows, a bounded number at a time. */
  #eachSlice(
    x: Tensor,
    wanted: Tensor,
    offset: number,
    outputs: readonly OutputRow[],
    batch: Batch,
    use: (logits: Tensor, part: readonly OutputRow[], from: number) => void,
  ): void {
    const { sliceRows, hiddenSize } = this.#pass;
    for (let from = 0; from < outputs.length; from += sliceRows) {
      const part = outputs.slice(from, from + sliceRows);
      this.#arena.scope(() => {
        const last = this.#arena.alloc([part.length, hiddenSize]);
        this.#ops.gatherRows(last, x, view(wanted, offset + from, [part.length]));
        const logits = this.#pass.logits(last);
        this.#show(logits, part, batch);
        use(logits, part, from);
      });
    }
  }

  #show(logits: Tensor, part: readonly OutputRow[], batch: Batch): void {
    const { tap } = this;
    if (tap === null) return;
    part.forEach(({ chunk, position }, i) => {
      tap(batch.chunks[chunk]!.sequence.id, position, this.#ops.toFloat32(rows(logits, i, 1)));
    });
  }
}

function indexOf(outputs: readonly OutputRow[], tables: StepTables): Tensor {
  const index = tables.take(outputs.length);
  outputs.forEach(({ row }, i) => {
    index.view[index.at + i] = row;
  });
  return index.tensor;
}

/** The tokens whose log-probabilities are asked for. */
function targetsOf(batch: Batch, scored: readonly OutputRow[], tables: StepTables): Tensor {
  const ids = tables.take(scored.length);
  scored.forEach(({ chunk, position }, i) => {
    ids.view[ids.at + i] = batch.chunks[chunk]!.sequence.tokens[position]!;
  });
  return ids.tensor;
}

/** Rows to draw from, then rows to score, each in the order of the chunks. */
function outputRows(batch: Batch): [OutputRow[], OutputRow[]] {
  const drawn: OutputRow[] = [];
  const scored: OutputRow[] = [];
  let end = 0;
  batch.chunks.forEach(({ sequence, start, count, numOutputs }, chunk) => {
    end += count;
    for (let i = numOutputs; i > 0; i--) {
      const row = { row: end - i, chunk, position: start + count - i + 1 };
      (sequence.score === null ? drawn : scored).push(row);
    }
  });
  return [drawn, scored];
}
