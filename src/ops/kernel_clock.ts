// Counts the time inside the kernel library, so that what is left of a step can be told. Costs two looks at the clock a call,
// so it is off unless asked for. Knows no op.
import { type KernelLibrary, symbols } from "./abi.ts";

/** Time inside kernels so far. */
export interface KernelClock {
  seconds: number;
  calls: number;
}

/** The same library with every call counted into `clock`. */
export function timedLibrary(library: KernelLibrary, clock: KernelClock): KernelLibrary {
  const calls = library as unknown as Record<string, (...operands: unknown[]) => unknown>;
  const timed = Object.keys(symbols).map((name) => {
    const call = calls[name]!;
    const counted = (...operands: unknown[]) => {
      const started = Bun.nanoseconds();
      const result = call(...operands);
      clock.seconds += (Bun.nanoseconds() - started) / 1e9;
      clock.calls++;
      return result;
    };
    return [name, counted] as const;
  });
  return Object.fromEntries(timed) as unknown as KernelLibrary;
}
