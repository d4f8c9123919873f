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

/** Pages that warmUp() touches: of the longest context, which all sequences read, and of what each of them writes. */
export function warmUpPages({ maxContext, maxBatchTokens, maxSequences, pageSize }: StepLimits): number {
  return Math.ceil(maxContext / pageSize) + maxSequences + Math.ceil(maxBatchTokens / pageSize) + 1;
}

/**
 * Runs them through every given mixer as if all layers were that one. Full attention stands at the end of the longest
 * context, over warmUpPages() pages; linear layers at its beginning, over the first `maxSequences` slots.
 * @throws KernelError where memory is out
 */
export function warmUp(backend: Backend, mixers: readonly TokenMixer[], limits: StepLimits): void {
  mixers.forEach((mixer, i) => {
    const layers = new Array<TokenMixer>(limits.numLayers).fill(mixer);
    const unchanged = new Array<null>(limits.numLayers).fill(null);
    const hybrid = makeHybrid("warm-up", -1 - i, unchanged, layers, limits.stateDtype);
    for (const batch of largestBatches(hybrid, limits)) {
      backend.start(batch);
      backend.finish();
    }
    backend.begin(promptOf(hybrid, limits, false));
    while (backend.advance() === null);
    backend.forget(hybrid.identity);
  });
}

function largestBatches(hybrid: Hybrid, limits: StepLimits): Batch[] {
  const numSequences = Math.min(limits.maxSequences, limits.maxBatchTokens);
  const rest = Math.min(limits.maxBatchTokens - numSequences + 1, limits.maxContext);
  const decode = (numLogprobs: number, first = 1) => {
    const places = Array.from({ length: numSequences }, (_, slot) =>
      place(hybrid, limits, slot, slot === 0 ? first : 1, { numLogprobs }),
    );
    return makeBatch(places, []);
  };
  const prompts = [promptOf(hybrid, limits, false), promptOf(hybrid, limits, true)];
  // A structure of steps is recorded when it is met for the third time.
  return [decode(-1), decode(-1), decode(-1), decode(1), decode(1, rest), ...prompts];
}

/** As many rows of one sequence as a step takes; one token drawn after them, or all of them scored. */
function promptOf(hybrid: Hybrid, limits: StepLimits, scored: boolean): Batch {
  const numRows = Math.min(limits.maxBatchTokens, limits.maxContext);
  return makeBatch([place(hybrid, limits, 0, numRows, { scored })], []);
}

/** `count` rows of a sequence that ends where the longest context does, or begins where states do. */
function place(
  hybrid: Hybrid,
  limits: StepLimits,
  slot: number,
  count: number,
  { numLogprobs = 1, scored = false }: { numLogprobs?: number; scored?: boolean } = {},
): Chunk {
  const numOutputs = scored ? count : 1;
  const start = hybrid.numFull === 0 ? 0 : limits.maxContext - count;
  const sequence = new Sequence({
    id: -1 - slot,
    hybrid,
    tokens: new Array<number>(start + count + 1).fill(0),
    maxTokens: start + count + 1,
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
  for (let block = 0; block < numBlocks; block++) {
    // The first sequence, which alone may have several rows, writes behind all others.
    const own = numBlocks + (slot === 0 ? limits.maxSequences - 1 + block - firstWritten : slot - 1);
    for (let f = 0; f < hybrid.numFull; f++) sequence.pages.push(block < firstWritten ? block : own);
  }
  for (let i = 0; i < hybrid.slots.length; i++) sequence.stateSlots.push(slot);
  return { sequence, start, count, numOutputs };
}

function scoreOf(from: number, count: number): ScoreState {
  return { from, logprobs: new Float32Array(count), argmax: new Int32Array(count), numTop: 1, top: [] };
}
