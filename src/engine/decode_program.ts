// One structure of decode steps: the tables that its kernels read, which the device itself moves on from step to step, and
// from the third step on a recording of all that is launched. Knows rows, not where the batches come from.
import type { Ops } from "../ops/ops.ts";
import type { Recording } from "../ops/repeat_ops.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Batch } from "./batch.ts";
import type { EngineMemory } from "./memory.ts";
import { SamplingRecords } from "./sampling_records.ts";
import type { Sequence } from "./sequence.ts";
import { planCapacity, planStep, type StepPlan } from "./step_plan.ts";
import { StepTables } from "./step_tables.ts";

/** So many steps are launched op by op first: whatever is prepared on first use is there when they are recorded. */
const STEPS_BEFORE_RECORDING = 2;

/** What a step of decode rows reads and writes. */
export interface DecodeStep {
  readonly plan: StepPlan;
  /** Packed graft_sampling records. */
  readonly records: Tensor;
  /** i32[N]: where the tokens drawn go. */
  readonly drawn: Tensor;
}

/** What the programs of one engine have in common. */
export interface ProgramParts {
  readonly ops: Ops;
  readonly memory: EngineMemory;
  readonly numLayers: number;
  /** Whether steps may be recorded. */
  readonly record: boolean;
  /** Told why a step could not be recorded or replayed. */
  readonly problem: (error: unknown) => void;
  /** Launches all of a step but its end; the same ops with the same operands every time. Where it leaves its logits. */
  readonly compute: (step: DecodeStep) => Tensor;
}

/** A row of the tables on the device: whose it is, and the position of the token that it feeds next. */
interface Seat {
  readonly sequence: Sequence;
  /** Which of its starts: after another one its places are others. */
  readonly numStarts: number;
  position: number;
}

/** Decode steps that differ in numbers alone. */
export class DecodeProgram {
  /** No row may stand at or beyond this position. */
  readonly longest: number;
  readonly #parts: ProgramParts;
  /** What stays while the same sequences run on, and the positions, which move on with every step. */
  readonly #fixed: StepTables;
  readonly #moving: StepTables;
  readonly #records: SamplingRecords;
  readonly #drawn: Tensor;
  #step: DecodeStep | null = null;
  #logits: Tensor | null = null;
  #seats: Seat[] = [];
  #numLaunched = 0;
  #recording: Recording | null = null;
  #recordable: boolean;

  constructor(parts: ProgramParts, batch: Batch, longest: number) {
    const { ops, numLayers } = parts;
    const capacity = planCapacity(batch, numLayers);
    this.#parts = parts;
    this.#recordable = parts.record;
    this.longest = longest;
    this.#fixed = new StepTables(ops, capacity);
    this.#moving = new StepTables(ops, capacity);
    this.#records = new SamplingRecords(ops, batch.numRows);
    this.#drawn = ops.empty([batch.numRows], "i32");
  }

  /** Whether its steps are replayed by now. */
  get recorded(): boolean {
    return this.#recording !== null;
  }

  /** Whether the tables on the device stand at this batch already. */
  standsAt({ chunks }: Batch): boolean {
    const seats = this.#seats;
    if (chunks.length !== seats.length) return false;
    return chunks.every(({ sequence, start }, i) => {
      const seat = seats[i]!;
      return seat.sequence === sequence && seat.position === start && seat.numStarts === sequence.numStarts;
    });
  }

  /** Sends the tables of a batch of this structure. */
  seat(batch: Batch): void {
    const { memory, numLayers } = this.#parts;
    this.vacate();
    const capacity = planCapacity(batch, numLayers);
    this.#fixed.begin(capacity);
    this.#moving.begin(capacity);
    const plan = planStep(batch, numLayers, this.#fixed, this.#moving, memory, this.longest);
    batch.chunks.forEach(({ sequence, start }, i) => {
      this.#records.set(i, sequence.sampling, start + 1);
    });
    this.#fixed.send();
    this.#moving.send();
    this.#step = { plan, records: this.#records.send(batch.numRows), drawn: this.#drawn };
    this.#seats = batch.chunks.map(({ sequence, start }) => {
      return { sequence, numStarts: sequence.numStarts, position: start };
    });
  }

  /** Nobody knows at which position the tables stand. */
  vacate(): void {
    this.#seats = [];
  }

  /**
   * Launches the step at which the tables stand, and moves them on to the next.
   * @returns drawn: i32[N], until the next step; logits: see ProgramParts
   * @throws KernelError
   */
  launch(): { drawn: Tensor; logits: Tensor } {
    const seats = this.#seats;
    this.vacate();
    if (this.#recordable && this.#recording === null && this.#numLaunched >= STEPS_BEFORE_RECORDING) this.#record();
    if (this.#recording !== null) this.#replay(this.#recording);
    else this.#compute();
    this.#numLaunched++;
    for (const seat of seats) seat.position++;
    this.#seats = seats;
    return { drawn: this.#drawn, logits: this.#logits! };
  }

  close(): void {
    const { ops } = this.#parts;
    if (this.#recording !== null) ops.freeRecording(this.#recording);
    this.#fixed.close();
    this.#moving.close();
    this.#records.close();
    ops.free(this.#drawn);
  }

  #compute(): void {
    const { ops, compute } = this.#parts;
    const step = this.#step!;
    this.#logits = compute(step);
    const { plan, records, drawn } = step;
    ops.advance({ ids: plan.ids, positions: this.#moving.taken, params: records }, drawn);
  }

  /** Where a step cannot be recorded, it goes on op by op: slower, with the same results. */
  #record(): void {
    this.#recordable = false;
    try {
      this.#recording = this.#parts.ops.record(() => this.#compute());
    } catch (error) {
      this.#parts.problem(error);
    }
  }

  /** What cannot be replayed once is not tried again. */
  #replay(recording: Recording): void {
    const { ops, problem } = this.#parts;
    try {
      ops.replay(recording);
    } catch (error) {
      this.#recording = null;
      ops.freeRecording(recording);
      problem(error);
      throw error;
    }
  }
}
