// Types of weights and KV cache where none are asked for. A CUDA device reads bfloat16 with its tensor cores, and half the
// bytes a token; the processor keeps what the checkpoint has.
import type { Ops } from "../ops/ops.ts";

/** Types in memory. */
export interface MemoryTypes {
  /** Of linear weights; absent: the checkpoint's own (f16 becomes f32). */
  readonly weights?: "f32" | "bf16";
  readonly kv: "f32" | "bf16";
}

/** What was asked for, and the device's own for the rest. */
export function typesFor(
  ops: Ops,
  asked: { readonly weightDtype?: "f32" | "bf16"; readonly kvDtype?: "f32" | "bf16" },
): MemoryTypes {
  const own: MemoryTypes = ops.kind === "cuda" ? { weights: "bf16", kv: "bf16" } : { kv: "f32" };
  const weights = asked.weightDtype ?? own.weights;
  return { ...(weights === undefined ? {} : { weights }), kv: asked.kvDtype ?? own.kv };
}
