// Decides what each step computes: continuous batching, prompts in chunks under a token budget, by priority and then by
// arrival, preemption by recomputation when room runs out. A pure state machine over sequences, the two pools and shared prefixes.
import { CapacityError } from "../errors.ts";
import { type Batch, type Chunk, isPlain, makeBatch, makeChunk } from "./batch.ts";
import { OrderedList } from "./ordered_list.ts";
import { PagePool } from "./page_pool.ts";
import { PrefillPacer } from "./prefill_pacer.ts";
import { PrefixPromises } from "./prefix_promises.ts";
import { PrefixSharing, type SharingLimits } from "./prefix_sharing.ts";
import { byPriority, type Sequence } from "./sequence.ts";
import { StatePool } from "./state_pool.ts";

/** Budgets of a step and sizes of the pools. */
export interface SchedulerLimits extends SharingLimits {
  readonly maxBatchTokens: number;
  readonly maxSequences: number;
  readonly maxWaiting: number;
  readonly numPages: number;
  readonly numStateFloats: number;
  /** Times a decode step that a step with prompt rows beside streams may take; 0 = any. */
  readonly prefillInterference: number;
}

/** What the next step computes. */
export interface Schedule {
  /** All of it in this step; empty where there is none. */
  readonly batch: Batch;
  /** Prompts that go through the model in parts, the same from step to step until advance() or their end. */
  readonly beside: Batch | null;
}

/** Waiting and running sequences, and the pools they draw on. */
export class Scheduler {
  readonly limits: SchedulerLimits;
  readonly pages: PagePool;
  readonly states: StatePool;
  readonly sharing: PrefixSharing;
  readonly pacer: PrefillPacer;
  readonly #running = new OrderedList(byPriority);
  /** Those that wait for room; the others wait for a prefix, with #promises. */
  readonly #waiting = new OrderedList(byPriority);
  readonly #promises = new PrefixPromises();
  /** Those whose weights are on their way: nobody waits behind them. */
  readonly #unready = new Set<Sequence>();
  readonly #freeSlots: number[];
  #beside: Batch | null = null;
  /** First in the queue, found no room, and no sequence has given any back since; what there was of it. */
  #stuck: { readonly sequence: Sequence; readonly pages: number; readonly floats: number } | null = null;
  #preemptions = 0;

  constructor(limits: SchedulerLimits) {
    this.limits = limits;
    this.pages = new PagePool(limits.numPages);
    this.states = new StatePool(limits.numStateFloats);
    this.sharing = new PrefixSharing(this.pages, this.states, limits);
    this.pacer = new PrefillPacer(limits.prefillInterference);
    this.#freeSlots = Array.from({ length: limits.maxSequences }, (_, i) => limits.maxSequences - 1 - i);
  }

  get numRunning(): number {
    return this.#running.length;
  }

  get numWaiting(): number {
    return this.#waiting.length + this.#promises.numFollowers + this.#unready.size;
  }

  get numPreemptions(): number {
    return this.#preemptions;
  }

  get running(): readonly Sequence[] {
    return this.#running.items;
  }

  /** All sequences that have not ended: the running, then the waiting, each by priority and arrival. */
  get sequences(): Sequence[] {
    const waiting = [...this.#waiting.items, ...this.#promises.followers, ...this.#unready];
    return [...this.#running.items, ...waiting.sort(byPriority)];
  }

  /** Pages that `numTokens` tokens of a sequence take in all. */
  pagesFor(sequence: Sequence, numTokens: number): number {
    return Math.ceil(numTokens / this.limits.pageSize) * sequence.hybrid.numFull;
  }

  /** @throws CapacityError where the queue is full. */
  add(sequence: Sequence): void {
    if (this.numWaiting >= this.limits.maxWaiting) {
      throw new CapacityError(`Cannot queue the request: ${this.numWaiting} are waiting, the limit`);
    }
    if (sequence.ready) this.#waiting.add(sequence);
    else this.#unready.add(sequence);
    this.sharing.join(sequence);
  }

  /** What a sequence runs on is in memory now: it takes its place in the queue. */
  makeReady(sequence: Sequence): void {
    sequence.ready = true;
    if (this.#unready.delete(sequence)) this.#waiting.add(sequence);
  }

  /** The next step's work. */
  schedule(): Schedule {
    const plan = new Plan(this.limits.maxBatchTokens);
    const prefilling: Sequence[] = [];
    // Streams that wait for their next token go first, so that a long prompt beside them cannot stall them.
    for (const sequence of [...this.#running.items]) {
      if (decodes(sequence)) this.#continue(sequence, plan);
      else prefilling.push(sequence);
    }
    const apart = plan.chunks.size > 0 && this.pacer.bounded;
    if (this.#beside !== null) plan.promptRows = 0;
    else if (apart) plan.promptRows = this.pacer.rows;
    for (const sequence of prefilling) {
      this.#admit(plan, sequence);
      this.#continue(sequence, plan);
    }
    this.#admit(plan, null);
    const chunks = [...plan.chunks.values()];
    const streams = apart ? chunks.filter(({ sequence }) => decodes(sequence)) : chunks;
    if (streams.length < chunks.length && streams.length > 0) {
      const prompts = chunks.filter(({ sequence }) => !decodes(sequence));
      this.#beside = makeBatch(prompts, []);
    } else if (streams.length === 0) {
      return { batch: makeBatch(chunks, chunks.length > 0 ? this.sharing.takeCopies() : []), beside: this.#beside };
    }
    return { batch: makeBatch(streams, this.sharing.takeCopies()), beside: this.#beside };
  }

  /**
   * The step after this batch, which has been begun and recorded, where it is certain before the tokens of this one are
   * known: every running sequence has a row in it and is not at its full length, nobody could be admitted, and the places of
   * the next tokens are free. Else null.
   */
  foresee(batch: Batch): Batch | null {
    if (this.#beside !== null || this.sharing.hasCopies || batch.chunks.length !== this.#running.length) return null;
    const first = this.#waiting.items[0];
    if (first !== undefined && !this.#isStuck(first)) return null;
    const goesOn = (chunk: Chunk) => isPlain(chunk) && chunk.sequence.tokens.length + 1 < chunk.sequence.maxTokens;
    if (!batch.chunks.every(goesOn)) return null;
    for (const { sequence } of batch.chunks) {
      const missing = this.pagesFor(sequence, sequence.numComputed + 1) - sequence.pages.length;
      if (missing > 0 && !this.sharing.takePages(missing, sequence.pages)) return null;
    }
    const chunks = batch.chunks.map((chunk) => ({ ...chunk, start: chunk.start + 1 }));
    return { copies: [], chunks, numRows: batch.numRows };
  }

  /** A foreseen step has been begun: a sequence that ends meanwhile stands behind its last token then, not before it. */
  begun(batch: Batch): void {
    for (const { sequence } of batch.chunks) sequence.ahead = true;
  }

  /** Records that a batch has been computed, or will have been before anything that is begun from now on. */
  advance(batch: Batch): void {
    if (batch === this.#beside) this.#beside = null;
    for (const { sequence, start, count } of batch.chunks) {
      if (sequence.status !== "running") continue;
      sequence.ahead = false;
      sequence.numComputed = start + count;
      if (!this.sharing.computed(sequence)) continue;
      this.#requeueFollowers(sequence);
      this.#promises.announce(sequence);
    }
  }

  /** Ends a sequence, whatever it is doing, and takes back all it holds but what the prefix cache keeps of it. */
  finish(sequence: Sequence): void {
    if (sequence.ahead) sequence.numComputed++;
    if (sequence.status === "running" && (!this.#isBeside(sequence) || stateless(sequence))) {
      this.sharing.inherit(sequence);
    }
    this.#drop(sequence);
  }

  /** Ends a sequence that computed nonsense: what was kept of it could spoil others, and nobody knows what that is. */
  discard(sequence: Sequence): void {
    this.#drop(sequence);
    this.sharing.forget();
  }

  /** Ends the sequences of a batch that went wrong. */
  fail(batch: Batch): void {
    if (batch === this.#beside) this.#beside = null;
    for (const { sequence } of batch.chunks) this.#drop(sequence);
    this.sharing.forget();
  }

  #drop(sequence: Sequence): void {
    if (sequence.status === "finished") return;
    if (this.#isBeside(sequence)) this.#abandonBeside(null, sequence);
    this.sharing.leave(sequence);
    if (sequence.status === "running") remove(this.#running, sequence);
    else if (!this.#unready.delete(sequence) && !this.#promises.unfollow(sequence)) remove(this.#waiting, sequence);
    this.#release(sequence);
    sequence.status = "finished";
  }

  /** The next chunk of a running sequence, unless an earlier one has taken its room. */
  #continue(sequence: Sequence, plan: Plan): void {
    if (sequence.status !== "running" || plan.chunks.has(sequence)) return;
    const count = this.#chunk(sequence, plan);
    if (count > 0 && this.#reserve(sequence, sequence.numComputed + count, plan)) plan.add(sequence, count);
  }

  /** Pages for `numTokens` tokens; preempts from the end of the order until they are free. False: preempted itself. */
  #reserve(sequence: Sequence, numTokens: number, plan: Plan): boolean {
    const missing = Math.max(0, this.pagesFor(sequence, numTokens) - sequence.pages.length);
    while (!this.sharing.takePages(missing, sequence.pages)) {
      const victim = this.#running.items.findLast((other) => other === sequence || other.pages.length > 0)!;
      this.#preempt(victim, plan);
      if (victim === sequence) return false;
    }
    return true;
  }

  /**
   * Back to its place in the queue; its tokens stay, and are computed again to the same bits, but for those that are still
   * cached when it resumes.
   */
  #preempt(sequence: Sequence, plan: Plan): void {
    if (this.#isBeside(sequence)) {
      this.#abandonBeside(plan, null);
      return;
    }
    this.sharing.inherit(sequence);
    this.#putBack(sequence, plan);
  }

  #putBack(sequence: Sequence, plan: Plan | null): void {
    plan?.drop(sequence);
    remove(this.#running, sequence);
    this.#release(sequence);
    sequence.status = "waiting";
    this.#waiting.add(sequence);
    this.#preemptions++;
  }

  #isBeside(sequence: Sequence): boolean {
    return this.#beside?.chunks.some((chunk) => chunk.sequence === sequence) ?? false;
  }

  /**
   * Gives up what goes through in parts; all its sequences but `ending` go back to the queue. Their layers' states stand at
   * different positions and are not kept; the pages of earlier tokens are as good as ever.
   */
  #abandonBeside(plan: Plan | null, ending: Sequence | null): void {
    const { chunks } = this.#beside!;
    this.#beside = null;
    for (const { sequence } of chunks) {
      if (sequence === ending) continue;
      if (stateless(sequence)) this.sharing.inherit(sequence);
      this.#putBack(sequence, plan);
    }
  }

  /**
   * Admits in order while budget, places, pages and state slots last, up to those that come before `end`. Who waits for
   * another's prefix is passed; nobody passes one that finds no room, or large requests would wait for ever.
   */
  #admit(plan: Plan, end: Sequence | null): void {
    while (Math.min(plan.budget, plan.promptRows) > 0 && !plan.full) {
      const sequence = this.#waiting.items[0];
      if (sequence === undefined || (end !== null && byPriority(sequence, end) > 0)) return;
      if (this.#promises.follow(sequence)) {
        remove(this.#waiting, sequence);
        continue;
      }
      if (!this.#begin(sequence, plan)) {
        this.#stuck = { sequence, ...this.#room() };
        plan.full = true;
        return;
      }
      const count = this.#chunk(sequence, plan);
      const missing = this.pagesFor(sequence, sequence.numComputed + count) - sequence.pages.length;
      this.sharing.takePages(missing, sequence.pages);
      remove(this.#waiting, sequence);
      sequence.slot = this.#freeSlots.pop()!;
      sequence.status = "running";
      sequence.numStarts++;
      this.#running.add(sequence);
      this.#promises.announce(sequence);
      plan.add(sequence, count);
    }
  }

  /** A place and states for a waiting sequence, if need be those of running ones of a worse priority. */
  #begin(sequence: Sequence, plan: Plan): boolean {
    // All its tokens must find room, or long prompts would keep preempting one another.
    const numPages = this.pagesFor(sequence, sequence.numFed);
    const starts = () => this.#freeSlots.length > 0 && this.sharing.begin(sequence, numPages);
    if (starts()) return true;
    if (!this.#couldMakeRoom(sequence, numPages)) return false;
    while (!starts()) {
      const victim = this.#running.items.findLast(({ priority, pages, stateSlots }) => {
        return priority > sequence.priority && (this.#freeSlots.length === 0 || pages.length + stateSlots.length > 0);
      });
      if (victim === undefined) return false;
      this.#preempt(victim, plan);
    }
    return true;
  }

  /** Whether the running sequences of a worse priority hold what one lacks, so that none is preempted for nothing. */
  #couldMakeRoom({ priority, hybrid }: Sequence, numPages: number): boolean {
    let { pages, floats } = this.#room();
    let found = 0;
    for (let i = this.#running.length - 1; i >= 0; i--, found++) {
      const other = this.#running.items[i]!;
      if (other.priority <= priority) break;
      pages += other.pages.length;
      if (other.stateSlots.length > 0) floats += other.hybrid.slotFloats;
    }
    return found > 0 && pages >= numPages && floats >= hybrid.slotFloats;
  }

  /** What can be had without taking it from a sequence. */
  #room(): { pages: number; floats: number } {
    const { numFloats, floatsUsed } = this.states;
    return { pages: this.pages.numAvailable, floats: numFloats - floatsUsed + this.sharing.cache.stateFloats };
  }

  /** Restores of saved prefixes take and give room beside the steps. */
  #isStuck(first: Sequence): boolean {
    const room = this.#room();
    return this.#stuck?.sequence === first && room.pages <= this.#stuck.pages && room.floats <= this.#stuck.floats;
  }

  /** Tokens of a sequence's next chunk. */
  #chunk(sequence: Sequence, plan: Plan): number {
    const { numPending, numComputed } = sequence;
    const rows = decodes(sequence) ? plan.budget : Math.min(plan.budget, plan.promptRows);
    return Math.min(numPending, rows, this.sharing.nextCut(sequence) - numComputed);
  }

  #requeueFollowers(sequence: Sequence): void {
    for (const follower of this.#promises.release(sequence)) this.#waiting.add(follower);
  }

  #release(sequence: Sequence): void {
    this.#stuck = null;
    this.#requeueFollowers(sequence);
    this.pages.give(sequence.pages);
    sequence.stateSlots.forEach((slot, i) => {
      this.states.give(slot, sequence.hybrid.slots[i]!.floats);
    });
    sequence.stateSlots.length = 0;
    if (sequence.slot >= 0) this.#freeSlots.push(sequence.slot);
    sequence.slot = -1;
    sequence.numComputed = 0;
    sequence.ahead = false;
    sequence.keepAt = [];
    sequence.tableBlocks = 0;
  }
}

/** The chunks of a step as they are chosen. */
class Plan {
  readonly chunks = new Map<Sequence, Chunk>();
  /** Rows still to give away, and those of them that may be a prompt's. */
  budget: number;
  promptRows = Number.POSITIVE_INFINITY;
  /** The next in the queue finds no room. */
  full = false;

  constructor(budget: number) {
    this.budget = budget;
  }

  add(sequence: Sequence, count: number): void {
    this.chunks.set(sequence, makeChunk(sequence, count));
    this.#spend(sequence, count);
  }

  drop(sequence: Sequence): void {
    this.#spend(sequence, -(this.chunks.get(sequence)?.count ?? 0));
    this.chunks.delete(sequence);
  }

  #spend(sequence: Sequence, count: number): void {
    this.budget -= count;
    if (!decodes(sequence)) this.promptRows -= count;
  }
}

/** Whether a running sequence's next step brings the next token of a stream, one row of work. */
function decodes({ score, numPending, numComputed, numPrompt }: Sequence): boolean {
  return score === null && numPending === 1 && numComputed >= numPrompt;
}

function stateless({ hybrid }: Sequence): boolean {
  return hybrid.slots.length === 0;
}

function remove(list: OrderedList<Sequence>, sequence: Sequence): void {
  if (list.remove(sequence)) return;
  throw new Error(`Broken scheduler: sequence ${sequence.id} is not where its status says`);
}
