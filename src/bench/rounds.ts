// Timing on a device: a round of calls is recorded where the library records, queued as often as a sample is long, and waited
// for once. So neither the calls nor the waiting count. Knows no op.
import { DeviceLostError, KernelError } from "../errors.ts";
import type { Ops } from "../ops/ops.ts";
import type { Recording } from "../ops/repeat_ops.ts";
import type { LayerOperands } from "./layer_operands.ts";

/** Calls that are timed together, each on operands that no cache still holds. */
export interface Round {
  /** How many calls of the op it makes. */
  readonly calls: number;
  /** Queues them. Must not allocate, wait, or read host memory that changes. */
  run(): void;
}

/** One op at one size. */
export interface LayerCase {
  /** "llama-3.2-3b gated_linear 16 rows" */
  readonly name: string;
  /** Whose step it is; null: any model's. */
  readonly variant: "gla" | "gdn" | null;
  /** Moved by one call at least: weights, keys, values and states, inputs and outputs. */
  readonly bytes: number;
  readonly flops: number;
  round(operands: LayerOperands): Round;
}

/** Seconds of one call. */
export interface RoundTiming {
  readonly best: number;
  readonly median: number;
}

/** null where it cannot be recorded: then its calls are queued one by one. */
function recordedRound(ops: Ops, round: Round): Recording | null {
  try {
    return ops.record(() => round.run());
  } catch (error) {
    if (error instanceof KernelError && !(error instanceof DeviceLostError)) return null;
    throw error;
  }
}

/** Longer than waiting for it by far. */
const SHORTEST_SAMPLE = 4e-3;
const FEWEST_SAMPLES = 5;

/** Times a round for about `seconds`. */
export function timeRounds(ops: Ops, round: Round, seconds: number): RoundTiming {
  const flag = ops.empty([1]);
  const wait = () => void ops.toFloat32(flag);
  let recording: Recording | null = null;
  try {
    round.run();
    wait();
    recording = recordedRound(ops, round);
    const once = recording === null ? () => round.run() : () => ops.replay(recording!);
    const sample = (rounds: number) => {
      const started = Bun.nanoseconds();
      for (let i = 0; i < rounds; i++) once();
      wait();
      return (Bun.nanoseconds() - started) / 1e9 / rounds;
    };
    const first = Math.min(sample(1), sample(1));
    const rounds = Math.max(1, Math.ceil(SHORTEST_SAMPLE / first));
    const times: number[] = [];
    const end = Bun.nanoseconds() + 1e9 * seconds;
    while (times.length < FEWEST_SAMPLES || Bun.nanoseconds() < end) times.push(sample(rounds) / round.calls);
    times.sort((a, b) => a - b);
    return { best: times[0]!, median: times[times.length >> 1]! };
  } finally {
    if (recording !== null) ops.freeRecording(recording);
    ops.free(flag);
  }
}
