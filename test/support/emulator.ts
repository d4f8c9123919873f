// What the emulated device can be made to do: be lost, be full. Its state is the process's; every test puts it back.
import { dlopen } from "bun:ffi";
import { dirname, join } from "node:path";

const path = join(import.meta.dir, "..", "..", "build", "kernels", "libgraft_simt.so");
const { symbols } = dlopen(path, {
  graft_simt_lose: { args: ["i64"], returns: "void" },
  graft_simt_memory: { args: ["u64"], returns: "void" },
  graft_simt_memory_used: { args: [], returns: "u64" },
  graft_simt_hold: { args: ["i32"], returns: "void" },
  graft_simt_planted: { args: ["ptr", "ptr", "i32", "i32", "i32"], returns: "i32" },
});

/** Which library an engine or Ops opens. */
export const emulator = { device: "simt", directory: dirname(path) } as const;

/** The n-th launch from now on loses the device. */
export function loseAfter(launches: number): void {
  symbols.graft_simt_lose(launches);
}

/** The device is there, with as much memory as the host has. */
export function heal(): void {
  symbols.graft_simt_lose(-1);
  symbols.graft_simt_memory(0);
}

/** Leaves the device so many bytes beyond what is given out now. */
export function leaveMemory(bytes: number): number {
  const total = Number(symbols.graft_simt_memory_used()) + bytes;
  symbols.graft_simt_memory(total);
  return total;
}

/** Bytes given out now. */
export function memoryUsed(): number {
  return Number(symbols.graft_simt_memory_used());
}

/** A kernel with a planted fault: see kernels/simt/planted.cu. */
export const planted = symbols.graft_simt_planted;

/** Runs `body` on a device that is behind: work is done only when somebody waits for it, copies read pinned memory late. */
export async function behind<T>(body: () => T | Promise<T>): Promise<T> {
  symbols.graft_simt_hold(1);
  try {
    return await body();
  } finally {
    symbols.graft_simt_hold(0);
  }
}
