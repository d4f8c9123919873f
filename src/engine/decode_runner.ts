// Decode steps under way on the device, at most two: each is launched whole and read later. Knows when tokens are known, not
// what is done with them.
import { Fetch, SAMPLING_WORDS } from "../ops/repeat_ops.ts";
import { rows, type Tensor, view } from "../tensor/tensor.ts";
import type { Batch, ChunkOutput } from "./batch.ts";
import type { DecodeProgram, DecodeStep } from "./decode_program.ts";
import { DecodePrograms } from "./decode_programs.ts";
import type { EngineMemory } from "./memory.ts";
import type { ModelPass } from "./model_pass.ts";
import type { LogitsTap } from "./runner.ts";
import { plainToken } from "./sampler.ts";

/** A step whose tokens are on their way. */
interface UnderWay {
  readonly batch: Batch;
  readonly fetch: Fetch;
  /** [N,V], where somebody looks. */
  readonly logits: Float32Array | null;
}

/** Batches of one plain row per sequence. */
export class DecodeRunner {
  readonly #pass: ModelPass;
  readonly #memory: EngineMemory;
  readonly #programs: DecodePrograms;
  /** In turn, so that a step's tokens are read while those of the next are on their way. */
  readonly #fetches: readonly [Fetch, Fetch];
  #turn = 0;
  readonly #underWay: UnderWay[] = [];
  #numReplayed = 0;
  #problem: string | null = null;

  constructor(pass: ModelPass, memory: EngineMemory, maxSequences: number, record: boolean) {
    const { ops } = pass.ctx;
    this.#pass = pass;
    this.#memory = memory;
    const compute = (step: DecodeStep) => this.#compute(step);
    const problem = (error: unknown) => {
      this.#problem = error instanceof Error ? error.message : String(error);
    };
    this.#programs = new DecodePrograms({ ops, memory, numLayers: pass.numLayers, record, problem, compute });
    this.#fetches = [new Fetch(ops, maxSequences, 0), new Fetch(ops, maxSequences, 1)];
  }

  get numReplayed(): number {
    return this.#numReplayed;
  }

  /** Why a step was not recorded or replayed, the last time that happened. */
  get problem(): string | null {
    return this.#problem;
  }

  /** Launches a batch. @throws KernelError */
  start(batch: Batch, show: boolean): void {
    this.#memory.prepare(batch);
    this.#launch(this.#programs.seat(batch), batch, show);
  }

  /** Launches a batch behind the last one, with what that draws; false where it is not the same program's next step. */
  follow(batch: Batch, show: boolean): boolean {
    const program = this.#underWay.length === 0 ? null : this.#programs.follow(batch);
    if (program === null) return false;
    this.#memory.prepare(batch);
    this.#launch(program, batch, show);
    return true;
  }

  /** The tokens of the step that was launched first. @param tap shown the logits that start() or follow() kept for it */
  finish(tap: LogitsTap | null): ChunkOutput[] {
    const { batch, fetch, logits } = this.#underWay.shift()!;
    const ids = fetch.wait();
    const width = logits === null ? 0 : logits.length / batch.numRows;
    return batch.chunks.map(({ sequence, start }, i) => {
      if (logits !== null && sequence.status === "running") {
        tap?.(sequence.id, start + 1, logits.slice(i * width, (i + 1) * width));
      }
      return plainToken(ids[i]!, sequence);
    });
  }

  /** Forgets what is under way. */
  drop(): void {
    this.#underWay.length = 0;
    this.#programs.vacate();
  }

  forget(identity: string): void {
    this.#programs.forget(identity);
  }

  close(): void {
    this.#programs.close();
    for (const fetch of this.#fetches) fetch.close();
  }

  #launch(program: DecodeProgram, batch: Batch, show: boolean): void {
    const { drawn, logits } = program.launch();
    if (program.recorded) this.#numReplayed++;
    const fetch = this.#fetches[this.#turn]!;
    this.#turn = 1 - this.#turn;
    fetch.begin(drawn);
    this.#underWay.push({ batch, fetch, logits: show ? this.#pass.ctx.ops.toFloat32(logits) : null });
  }

  /** All of a step, but for moving on to the next; where the last rows' logits are, until anything else is computed. */
  #compute({ plan, records, drawn }: DecodeStep): Tensor {
    const { ctx, sliceRows } = this.#pass;
    let logits: Tensor;
    ctx.arena.scope(() => {
      const x = this.#pass.hidden(plan);
      for (let from = 0; from < plan.numRows; from += sliceRows) {
        const count = Math.min(sliceRows, plan.numRows - from);
        const params = view(records, from * SAMPLING_WORDS, [count * SAMPLING_WORDS]);
        ctx.arena.scope(() => {
          logits = this.#pass.logits(rows(x, from, count));
          ctx.ops.sample(rows(drawn, from, count), null, logits, params);
        });
      }
    });
    return logits!;
  }
}
