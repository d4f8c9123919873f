// What the machine gives a measurement: its caches and memory, its streaming read and its multiply-adds.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import type { Ops } from "../ops/ops.ts";
import { dtypeCode } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Size of the largest cache as the kernel lists it; 32 MiB where it does not. */
export function lastLevelCacheBytes(): number {
  const sizes = [3, 2].map((level) => `/sys/devices/system/cpu/cpu0/cache/index${level}/size`).filter(existsSync);
  const match = sizes.length === 0 ? null : /^(\d+)K/.exec(readFileSync(sizes[0]!, "utf8"));
  return match === null ? 32 << 20 : Number(match[1]) * 1024;
}

/** Bytes that may still be allocated without swapping: of the machine, and of the container if that is less. */
export function availableBytes(): number {
  const match = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"));
  const machine = match === null ? Number.POSITIVE_INFINITY : Number(match[1]) * 1024;
  const [limit, used] = ["memory.max", "memory.current"].map((name) => numberIn(`/sys/fs/cgroup/${name}`));
  return limit === undefined || used === undefined ? machine : Math.min(machine, limit - used);
}

function numberIn(path: string): number | undefined {
  if (!existsSync(path)) return undefined;
  const value = Number(readFileSync(path, "utf8"));
  return Number.isFinite(value) ? value : undefined;
}

/** Bytes that may still be allocated where the kernels run. */
export function freeBytes(ops: Ops): number {
  return deviceMemory(ops)?.free ?? availableBytes();
}

/** Of a device with memory of its own. */
function deviceMemory(ops: Ops): { readonly free: number; readonly memory: number } | null {
  const { free, memory } = ops.kind === "cuda" ? ops.info() : {};
  return typeof free === "number" && typeof memory === "number" && memory > 0 ? { free, memory } : null;
}

/**
 * Most memory this process has held since resetPeakMemory(), in bytes; 0 where the system does not say. Of a device what is
 * in use now.
 */
export function peakMemoryBytes(ops?: Ops): number {
  const device = ops === undefined ? null : deviceMemory(ops);
  if (device !== null) return device.memory - device.free;
  const match = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
  return match === null ? 0 : Number(match[1]) * 1024;
}

/** Collects garbage and begins a new peak at what is held now; where the system refuses, the peak stays that of the whole process. */
export function resetPeakMemory(): void {
  Bun.gc(true);
  try {
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {
    // A hardened system: the figure is an upper bound then.
  }
}

/** FLOP/s of this dtype's unit over about `seconds`; bfloat16 without one runs on the float32 unit. */
export function peakFlops(ops: Ops, dtype: "f32" | "bf16", seconds: number): number {
  const burst = Math.min(Math.max(seconds, 2e-3), 1);
  return (
    (dtype === "bf16" && ops.symbols.graft_bench_flops(dtypeCode("bf16"), burst)) ||
    ops.symbols.graft_bench_flops(dtypeCode("f32"), burst)
  );
}

/** A plain read through memory that no cache holds; it has that memory only while it measures. */
export class StreamingRead {
  readonly kind = "read";
  readonly #ops: Ops;
  readonly #bytes: number;

  constructor(ops: Ops, bytes = 8 * lastLevelCacheBytes()) {
    this.#ops = ops;
    this.#bytes = bytes;
  }

  /**
   * Best bytes/s over about `seconds`, at least 3 samples. A sample reads at least `bytes`: as much as what it is compared
   * with, so that whoever else wants the processor disturbs both alike.
   */
  measure(seconds: number, bytes: number): number {
    const buffer = this.#ops.empty([Math.ceil(this.#bytes / 4)]);
    try {
      this.#ops.zero(buffer); // pages never written would all be one and the same page, and that one in a cache
      const reads = Math.ceil(bytes / this.#bytes);
      let best = 0;
      const end = performance.now() + 1000 * seconds;
      for (let i = 0; i < 3 || performance.now() < end; i++) best = Math.max(best, this.#sample(buffer, reads));
      return best;
    } finally {
      this.#ops.free(buffer);
    }
  }

  #sample({ ptr }: Tensor, reads: number): number {
    let seconds = 0;
    for (let i = 0; i < reads; i++) seconds += this.#ops.symbols.graft_bench_read(ptr as never, this.#bytes, 1);
    return (reads * this.#bytes) / seconds;
  }
}
