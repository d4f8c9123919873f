// Decode steps of linear attention over many sequences, whose states no cache holds: bytes of states against a streaming
// read. Prints nothing.
import type { LinearSizes, Ops, RecurrentSlots, StateDtype } from "../ops/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { interleave, type Timing } from "./measure.ts";
import { randomTensor, relativeError } from "./operands.ts";

/** One token each of `rows` sequences, `heads` heads with square states. */
export interface RecurrentCase {
  readonly op: "gla" | "gdn";
  readonly rows: number;
  readonly heads: number;
  readonly headSize: number;
  /** Of the states. */
  readonly dtype: StateDtype;
}

export interface RecurrentFigure {
  readonly error: number;
  readonly timing: Timing;
  /** Read per step, on average over a block: states, and the rows that their blocks have so far. */
  readonly bytes: number;
}

/** As models/attention serves. */
const BLOCK = 16;
/** Sequences that the reference computes. */
const CHECKED = 2;

/** The cases: states of 80 to 170 MB in float32. */
export const recurrentCases: readonly RecurrentCase[] = (["gla", "gdn"] as const).flatMap((op) =>
  (
    [
      [256, 24, 64],
      [64, 32, 128],
    ] as const
  ).flatMap(([rows, heads, headSize]) =>
    (["f32", "bf16"] as const).map((dtype) => ({ op, rows, heads, headSize, dtype })),
  ),
);

/** "gdn 64 × [32, 128, 128] bf16 state" */
export function recurrentName({ op, rows, heads, headSize, dtype }: RecurrentCase): string {
  return `${op} ${rows} × [${heads}, ${headSize}, ${headSize}] ${dtype} state`;
}

/** Floating-point operations of a step: gla writes k vᵀ and reads with q, the delta rule also reads with k. */
export function recurrentFlops({ op, rows, heads, headSize }: RecurrentCase): number {
  return 2 * (op === "gla" ? 2 : 3) * rows * heads * headSize * headSize;
}

/** Times decode steps; a sample goes through one whole block, so that its share of writing the states is in it. */
export function measureRecurrent(ops: Ops, reference: Ops, one: RecurrentCase, seconds: number): RecurrentFigure {
  const few = { ...one, rows: CHECKED };
  const [run, expected] = [new DecodeSteps(ops, one), new DecodeSteps(reference, few)];
  try {
    for (let i = 0; i < 2 * BLOCK + 1; i++) for (const steps of [run, expected]) steps.step();
    const wanted = expected.output();
    const error = relativeError(run.output().subarray(0, wanted.length), wanted);
    const block = () => {
      for (let i = 0; i < BLOCK; i++) run.step();
    };
    const timing = interleave(seconds, block, (_, length) => run.streamingRead(length));
    const { best, median } = timing;
    return { error, timing: { ...timing, best: best / BLOCK, median: median / BLOCK }, bytes: bytesRead(one) };
  } finally {
    run.close();
    expected.close();
  }
}

/** The state, then on average half a block of keys and of values (gdn: u); keys of gla are float32 in either case. */
function bytesRead({ op, rows, heads, headSize, dtype }: RecurrentCase): number {
  const width = dtype === "f32" ? 4 : 2;
  const blockRows = (BLOCK + 1) / 2;
  const perToken = headSize * (headSize + blockRows) * width + headSize * blockRows * (op === "gla" ? 4 : width);
  return rows * heads * perToken;
}

/** Sequences that take the same token again and again. */
class DecodeSteps {
  readonly #ops: Ops;
  readonly #one: RecurrentCase;
  readonly #sizes: LinearSizes;
  readonly #state: RecurrentSlots;
  readonly #inputs: Readonly<Record<"q" | "k" | "v" | "a" | "g" | "beta" | "o" | "seqStart" | "startPos", Tensor>>;
  #position = 0;

  constructor(ops: Ops, one: RecurrentCase) {
    const { rows: S, heads: H, headSize: D, dtype } = one;
    this.#ops = ops;
    this.#one = one;
    this.#sizes = { numQueryHeads: H, numKeyHeads: H, numValueHeads: H, keyDim: D, valueDim: D };
    const floats = one.op === "gla" ? ops.glaStateFloats(this.#sizes, BLOCK, dtype) : null;
    const stride = floats ?? ops.gdnStateFloats(this.#sizes, BLOCK, dtype);
    const ascending = (n: number) =>
      ops.fromArray(
        [n],
        Int32Array.from({ length: n }, (_, i) => i),
      );
    this.#state = { state: ops.empty([S, stride]), stride, slots: ascending(S), dtype };
    const unit = 1 / Math.sqrt(D); // keys of about unit length
    this.#inputs = {
      q: randomTensor(ops, [S, H, D], 1),
      k: randomTensor(ops, [S, H, D], 2, -unit, unit),
      v: randomTensor(ops, [S, H, D], 3),
      a: randomTensor(ops, [S, H, D], 4, -0.1, 0),
      g: randomTensor(ops, [S, H], 5, -0.1, 0),
      beta: randomTensor(ops, [S, H], 6, 0, 1),
      o: ops.empty([S, H, D]),
      seqStart: ascending(S + 1),
      startPos: ops.empty([S], "i32"),
    };
  }

  step(): void {
    const { q, k, v, a, g, beta, o, seqStart, startPos } = this.#inputs;
    this.#ops.upload(startPos, new Int32Array(this.#one.rows).fill(this.#position++));
    if (this.#one.op === "gla") this.#ops.gla(o, q, k, v, a, seqStart, startPos, this.#state, this.#sizes, BLOCK);
    else this.#ops.gdn(o, q, k, v, g, beta, seqStart, startPos, this.#state, this.#sizes, BLOCK);
  }

  output(): Float32Array {
    return this.#ops.toFloat32(this.#inputs.o);
  }

  /** bytes/s of plain reads of all states for about as long: whoever else wants the processor disturbs both alike. */
  streamingRead(length: number): number {
    const bytes = 4 * this.#one.rows * this.#state.stride;
    let [reads, seconds] = [0, 0];
    for (; seconds < length; reads++) {
      seconds += this.#ops.symbols.graft_bench_read(this.#state.state.ptr as never, bytes, 1);
    }
    return (reads * bytes) / seconds;
  }

  close(): void {
    for (const t of [...Object.values(this.#inputs), this.#state.state, this.#state.slots]) this.#ops.free(t);
  }
}
