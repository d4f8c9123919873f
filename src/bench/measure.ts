// Timing on a machine that others use too: kernel and limit take turns, and the best of each counts.
// Knows neither kernels nor tables.

export interface Timing {
  /** Seconds of one call, best and median over the samples. */
  readonly best: number;
  readonly median: number;
  /** Best rate of the limit, in its own unit per second. */
  readonly limit: number;
  readonly samples: number;
}

/** Samples shorter than this repeat the call, so that the clock and the call itself do not matter. */
const SHORTEST_SAMPLE = 2e-4;

const now = () => Bun.nanoseconds() / 1e9;

/**
 * Times `call(turn)` for about `seconds`, at least 5 samples. After each sample `limit(turn, length)` measures the
 * machine's rate for about as long as a sample took: whoever else wants the processor interrupts both alike. Turns are
 * running numbers, so that calls can alternate between copies of their data.
 */
export function interleave(
  seconds: number,
  call: (turn: number) => void,
  limit: (turn: number, length: number) => number,
): Timing {
  let turn = 0;
  const sample = (calls: number) => {
    const start = now();
    for (let i = 0; i < calls; i++) call(turn++);
    return (now() - start) / calls;
  };
  const first = Math.min(sample(1), sample(1));
  const calls = Math.max(1, Math.ceil(SHORTEST_SAMPLE / Math.max(first, 1e-9)));
  const times: number[] = [];
  let rate = 0;
  const end = now() + seconds;
  while (times.length < 5 || now() < end) {
    times.push(sample(calls));
    rate = Math.max(rate, limit(turn, times.at(-1)! * calls));
  }
  times.sort((a, b) => a - b);
  return { best: times[0]!, median: times[times.length >> 1]!, limit: rate, samples: times.length };
}
