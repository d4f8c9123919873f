// Decides what each step computes: continuous batching, prompts in chunks under a token budget, first come first served,
// preemption by recomputation when pages run out. A pure state machine over sequences, the two pools and shared prefixes.
import { CapacityError } from "../errors.ts";
import { type Batch, type Chunk, makeBatch, makeChunk } from "./batch.ts";
import { PagePool } from "./page_pool.ts";
import { PrefixSharing, type SharingLimits } from "./prefix_sharing.ts";
import type { Sequence } from "./sequence.ts";
import { StatePool } from "./state_pool.ts";

/** Budgets of a step and sizes of the pools. */
export interface SchedulerLimits extends SharingLimits {
  readonly maxBatchTokens: number;
  readonly maxSequences: number;
  readonly maxWaiting: number;
  readonly numPages: number;
  readonly numStateFloats: number;
}

/** Waiting and running sequences, and the pools they draw on. */
export class Scheduler {
  readonly limits: SchedulerLimits;
  readonly pages: PagePool;
  readonly states: StatePool;
  readonly sharing: PrefixSharing;
  /** Oldest first, both. */
  readonly #running: Sequence[] = [];
  readonly #waiting: Sequence[] = [];
  readonly #freeSlots: number[];
  #preemptions = 0;

  constructor(limits: SchedulerLimits) {
    this.limits = limits;
    this.pages = new PagePool(limits.numPages);
    this.states = new StatePool(limits.numStateFloats);
    this.sharing = new PrefixSharing(this.pages, this.states, limits);
    this.#freeSlots = Array.from({ length: limits.maxSequences }, (_, i) => limits.maxSequences - 1 - i);
  }

  get numRunning(): number {
    return this.#running.length;
  }

  get numWaiting(): number {
    return this.#waiting.length;
  }

  get numPreemptions(): number {
    return this.#preemptions;
  }

  /** All sequences that have not ended, oldest first. */
  get sequences(): Sequence[] {
    return [...this.#running, ...this.#waiting];
  }

  /** Pages that `numTokens` tokens of a sequence take in all. */
  pagesFor(sequence: Sequence, numTokens: number): number {
    return Math.ceil(numTokens / this.limits.pageSize) * sequence.hybrid.numFull;
  }

  /** @throws CapacityError where the queue is full. */
  add(sequence: Sequence): void {
    if (this.#waiting.length >= this.limits.maxWaiting) {
      throw new CapacityError(`Cannot queue the request: ${this.#waiting.length} are waiting, the limit`);
    }
    this.#waiting.push(sequence);
    this.sharing.join(sequence);
  }

  /** The next step's work; empty where there is none. */
  schedule(): Batch {
    const plan = new Plan(this.limits.maxBatchTokens);
    // Streams that wait for their next token go first, so that a long prompt beside them cannot stall them.
    const decoding = this.#running.filter((sequence) => sequence.numPending === 1);
    const prefilling = this.#running.filter((sequence) => sequence.numPending > 1);
    for (const sequence of [...decoding, ...prefilling]) {
      const count = this.#chunk(sequence, plan);
      if (count === 0 || sequence.status !== "running") continue;
      if (this.#reserve(sequence, sequence.numComputed + count, plan)) plan.add(sequence, count);
    }
    this.#admit(plan);
    return makeBatch([...plan.chunks.values()], plan.chunks.size > 0 ? this.sharing.takeCopies() : []);
  }

  /** Records that a batch has been computed. */
  advance(batch: Batch): void {
    for (const { sequence, start, count } of batch.chunks) {
      sequence.numComputed = start + count;
      this.sharing.computed(sequence, start);
    }
  }

  /** Ends a sequence, whatever it is doing, and takes back all it holds but what the prefix cache keeps of it. */
  finish(sequence: Sequence): void {
    if (sequence.status === "running") this.sharing.inherit(sequence);
    this.#drop(sequence);
  }

  /** Ends the sequences of a batch that went wrong. */
  fail(batch: Batch): void {
    for (const { sequence } of batch.chunks) this.#drop(sequence);
    this.sharing.forget();
  }

  #drop(sequence: Sequence): void {
    if (sequence.status === "finished") return;
    this.sharing.leave(sequence);
    remove(sequence.status === "running" ? this.#running : this.#waiting, sequence);
    this.#release(sequence);
    sequence.status = "finished";
  }

  /** Pages for `numTokens` tokens; preempts the youngest sequences until they are free. False: preempted itself. */
  #reserve(sequence: Sequence, numTokens: number, plan: Plan): boolean {
    const missing = Math.max(0, this.pagesFor(sequence, numTokens) - sequence.pages.length);
    while (!this.sharing.takePages(missing, sequence.pages)) {
      const victim = this.#running.findLast((other) => other === sequence || other.pages.length > 0)!;
      plan.drop(victim);
      this.#preempt(victim);
      if (victim === sequence) return false;
    }
    return true;
  }

  /** Back to its place in the queue; its tokens stay, and are computed again to the same bits. */
  #preempt(sequence: Sequence): void {
    remove(this.#running, sequence);
    this.#release(sequence);
    sequence.status = "waiting";
    insert(this.#waiting, sequence);
    this.#preemptions++;
  }

  /** Admits in order of arrival while budget, places, pages and state slots last; who awaits another's prefix is passed over. */
  #admit(plan: Plan): void {
    let next = 0;
    while (plan.budget > 0 && this.#freeSlots.length > 0) {
      const sequence = this.#waiting[next];
      if (sequence === undefined) return;
      if (this.sharing.awaits(sequence, this.#running)) {
        next++;
        continue;
      }
      // All its tokens must find room, or long prompts would keep preempting one another.
      if (!this.sharing.begin(sequence, this.pagesFor(sequence, sequence.numFed))) return;
      const count = this.#chunk(sequence, plan);
      const missing = this.pagesFor(sequence, sequence.numComputed + count) - sequence.pages.length;
      this.sharing.takePages(missing, sequence.pages);
      this.#waiting.splice(next, 1);
      sequence.slot = this.#freeSlots.pop()!;
      sequence.status = "running";
      insert(this.#running, sequence);
      plan.add(sequence, count);
    }
  }

  /** Tokens of a sequence's next chunk. */
  #chunk(sequence: Sequence, plan: Plan): number {
    const { numPending, numComputed } = sequence;
    return Math.min(numPending, plan.budget, this.sharing.nextCut(sequence) - numComputed);
  }

  #release(sequence: Sequence): void {
    this.pages.give(sequence.pages);
    sequence.stateSlots.forEach((slot, i) => {
      this.states.give(slot, sequence.hybrid.slots[i]!.floats);
    });
    sequence.stateSlots.length = 0;
    if (sequence.slot >= 0) this.#freeSlots.push(sequence.slot);
    sequence.slot = -1;
    sequence.numComputed = 0;
    sequence.keepAt = -1;
    sequence.tableBlocks = 0;
  }
}

/** The chunks of a step as they are chosen. */
class Plan {
  readonly chunks = new Map<Sequence, Chunk>();
  /** Rows still to give away. */
  budget: number;

  constructor(budget: number) {
    this.budget = budget;
  }

  add(sequence: Sequence, count: number): void {
    this.chunks.set(sequence, makeChunk(sequence, count));
    this.budget -= count;
  }

  drop(sequence: Sequence): void {
    this.budget += this.chunks.get(sequence)?.count ?? 0;
    this.chunks.delete(sequence);
  }
}

/** Keeps a list in order of arrival; the newcomer mostly belongs near an end of it. */
function insert(list: Sequence[], sequence: Sequence): void {
  const after = list.findLastIndex((other) => other.id < sequence.id);
  list.splice(after + 1, 0, sequence);
}

function remove(list: Sequence[], sequence: Sequence): void {
  const i = list.indexOf(sequence);
  if (i < 0) throw new Error(`Broken scheduler: sequence ${sequence.id} is not where its status says`);
  list.splice(i, 1);
}
