// Kernel libraries under test: every instruction set of this machine, the reference beside them, and buffers with guard
// words that start as NaN.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Isa, supportedIsas } from "../../src/ops/library.ts";
import { Ops } from "../../src/ops/ops.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import { bytesOf, type Tensor } from "../../src/tensor/tensor.ts";

const built = join(import.meta.dir, "..", "..", "build", "kernels");
/** GRAFT_KERNELS names another folder of libraries, such as build/kernels-sanitize. */
const directory = process.env.GRAFT_KERNELS ?? built;

/** Libraries that this machine can run and that have been built; GRAFT_ISA restricts them to one. */
export const isas: Isa[] = supportedIsas().filter(
  (isa) =>
    (process.env.GRAFT_ISA === undefined || process.env.GRAFT_ISA === isa || isa === "reference") &&
    existsSync(join(directory, isa === "reference" ? "libgraft_reference.so" : `libgraft_cpu_${isa}.so`)),
);

/** A library under test: an instruction set of this machine, or the CUDA kernels in the emulator of kernels/simt. */
export type Library = Isa | "simt";

/** For tests of forward ops alone: the CUDA library has no others. Sanitized runs are the processor's. */
export const forwardLibraries: Library[] = [
  ...isas,
  ...(process.env.GRAFT_ISA === undefined && existsSync(join(directory, "libgraft_simt.so"))
    ? (["simt"] as const)
    : []),
];

const opened = new Map<Library, Promise<Ops>>();

/** Ops of one library, opened once per test process with two threads. */
export function opsOf(library: Library): Promise<Ops> {
  let ops = opened.get(library);
  if (ops === undefined) {
    const threads = library === "reference" ? 1 : 2;
    ops = Ops.load(library === "simt" ? { device: library, threads, directory } : { isa: library, threads, directory });
    opened.set(library, ops);
  }
  return ops;
}

/** Ops of the best library here. */
export function bestOps(): Promise<Ops> {
  return opsOf(isas.at(-1)!);
}

const GUARD_WORDS = 16;
const GUARD = 0x7fc0dead;

/** A tensor filled with NaN and followed by guard words; `check()` throws if a kernel wrote behind it. */
export function guarded(ops: Ops, shape: readonly number[], dtype: DType = "f32"): Tensor & { check(): void } {
  const t = { ptr: 0, shape, dtype };
  const bytes = Math.ceil(bytesOf(t) / 4) * 4;
  const words = new Int32Array(bytes / 4 + GUARD_WORDS).fill(dtype === "i32" ? -1 : 0x7fc00000);
  words.fill(GUARD, bytes / 4);
  const whole = ops.fromArray([words.length], words);
  return {
    ...t,
    ptr: whole.ptr,
    check() {
      const now = ops.toInt32(whole);
      for (let i = bytes / 4; i < now.length; i++) {
        if (now[i] !== GUARD) throw new Error(`A kernel wrote behind a ${dtype} tensor [${shape}]`);
      }
    },
  };
}

/** Reproducible numbers in [-1, 1): a small counter-based generator. */
export function randomFloats(count: number, seed: number): Float32Array {
  const out = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let x = (i + Math.imul(seed, 0x9e3779b9)) | 0;
    x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
    out[i] = ((x ^ (x >>> 15)) >>> 0) / 2147483648 - 1;
  }
  return out;
}
