// Runs the largest steps that there can be before an engine serves, so that whatever grows with a step has grown: nothing
// is allocated afterwards, and what does not fit shows at once. Of what the steps compute nothing is kept.
import type { TokenMixer } from "../../models/attention/mixer.ts";
import type { StateDtype } from "../ops/ops.ts";
import { type Backend, type Batch, type Chunk, makeBatch } from "./batch.ts";
import { type Hybrid, makeHybrid } from "./hybrid.ts";
import { type ScoreState, Sequence } from "./sequence.ts";

/** What bounds a step. */
export interface StepLimits {
  readonly numLayers: number;
  readonly maxContext: number;
  readonly maxBatchTokens: number;
  readonly maxSequences: number;
  readonly pageSize: number;
  readonly stateDtype: StateDtype;
}

/** With log-probabilities a decode step goes op by op; without them it is a program of its own. */
const sampling = (numLogprobs: number) => ({
  ...{ temperature: 0, topP: 1, topK: 0, minP: 0, seed: 0, choice: 0, numLogprobs },
  ...{ presencePenalty: 0, frequencyPenalty: 0, repetitionPenalty: 1, logitBias: [] },
});

/** Pages that there must be: for the longest context, and for what each sequence writes. Before that all read page 0. */
export function warmUpPages({ maxContext, maxBatchTokens, maxSequences, pageSize }: StepLimits): number {
  return Math.ceil(maxContext / pageSize) + maxSequences + Math.ceil(maxBatchTokens / pageSize) + 1;
}

/**
 * Runs them through every given mixer as if all layers were that one. Full attention stands at the end of the longest
 * context, over warmUpPages() pages; linear layers at its beginning, over the first `maxSequences` slots.
 * @throws KernelError where memory is out
 */
export function warmUp(backend: Backend, mixers: readonly TokenMixer[], limits: StepLimits): void {
  const tokens = new Array<number>(limits.maxContext + 1).fill(0);
  mixers.forEach((mixer, i) => {
    const layers = new Array<TokenMixer>(limits.numLayers).fill(mixer);
    const unchanged = new Array<null>(limits.numLayers).fill(null);
    const hybrid = makeHybrid("warm-up", -1 - i, unchanged, layers, limits.stateDtype);
    const stage = { hybrid, limits, tokens };
    for (const batch of largestBatches(stage)) {
      backend.start(batch);
      backend.finish();
    }
    backend.begin(promptOf(stage, false));
    while (backend.advance() === null);
    backend.forget(hybrid.identity);
  });
}

/** What all batches of one mixer have in common. */
interface Stage {
  readonly hybrid: Hybrid;
  readonly limits: StepLimits;
  /** As many as the longest context has, and one to draw. */
  readonly tokens: number[];
}

function largestBatches(stage: Stage): Batch[] {
  const { limits } = stage;
  const numSequences = Math.min(limits.maxSequences, limits.maxBatchTokens);
  const rest = Math.min(limits.maxBatchTokens - numSequences + 1, limits.maxContext);
  const decode = (numLogprobs: number, first = 1) => {
    const places = Array.from({ length: numSequences }, (_, slot) =>
      place(stage, slot, slot === 0 ? first : 1, { numLogprobs }),
    );
    return makeBatch(places, []);
  };
  const prompts = [promptOf(stage, false), promptOf(stage, true)];
  // A structure of steps is recorded when it is met for the third time.
  return [decode(-1), decode(-1), decode(-1), decode(1), decode(1, rest), ...prompts];
}

/** As many rows of one sequence as a step takes; one token drawn after them, or all of them scored. */
function promptOf(stage: Stage, scored: boolean): Batch {
  const numRows = Math.min(stage.limits.maxBatchTokens, stage.limits.maxContext);
  return makeBatch([place(stage, 0, numRows, { scored })], []);
}

/** `count` rows of a sequence that ends where the longest context does, or begins where states do. */
function place(
  { hybrid, limits, tokens }: Stage,
  slot: number,
  count: number,
  { numLogprobs = 1, scored = false }: { numLogprobs?: number; scored?: boolean } = {},
): Chunk {
  const numOutputs = scored ? count : 1;
  const start = hybrid.numFull === 0 ? 0 : limits.maxContext - count;
  const sequence = new Sequence({
    id: -1 - slot,
    hybrid,
    tokens,
    maxTokens: limits.maxContext + 1,
    sampling: sampling(numLogprobs),
    stopIds: new Set(),
    constraint: null,
    score: scored ? scoreOf(start + 1, count) : null,
    priority: 0,
    deadlineMs: Number.POSITIVE_INFINITY,
    boundaries: [],
  });
  sequence.slot = slot;
  sequence.numComputed = start;
  const numBlocks = Math.ceil(limits.maxContext / limits.pageSize);
  const firstWritten = Math.floor(start / limits.pageSize);
  // What is not written down in the page table is page 0 there.
  sequence.tableBlocks = firstWritten;
  sequence.pages.length = firstWritten * hybrid.numFull;
  for (let block = firstWritten; block < numBlocks; block++) {
    // The first sequence, which alone may have several rows, writes behind all others.
    const own = numBlocks + (slot === 0 ? limits.maxSequences - 1 + block - firstWritten : slot - 1);
    for (let f = 0; f < hybrid.numFull; f++) sequence.pages.push(own);
  }
  for (let i = 0; i < hybrid.slots.length; i++) sequence.stateSlots.push(slot);
  return { sequence, start, count, numOutputs };
}

function scoreOf(from: number, count: number): ScoreState {
  return { from, logprobs: new Float32Array(count), argmax: new Int32Array(count), numTop: 1, top: [] };
}
