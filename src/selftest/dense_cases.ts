// Self-test cases of conversions, linear layers, products and row moves.
import { LIMITS, range, type SelftestCase } from "./case.ts";

function linear(N: number, out: number, inputs: number, dtype: "f32" | "bf16"): SelftestCase {
  return {
    name: `linear ${dtype}, ${N} × [${out}, ${inputs}]`,
    limit: LIMITS.forward,
    run(b) {
      const w = b.pack(dtype === "f32" ? b.random("w", [out, inputs]) : b.narrow("w", [out, inputs]));
      const [x, bias, residual] = [b.random("x", [N, inputs]), b.random("b", [out]), b.random("r", [N, out])];
      b.ops.linear(b.output("plain", [N, out]), x, w);
      b.ops.linear(b.output("biased", [N, out]), x, w, bias, residual);
    },
  };
}

function products(N: number, M: number, K: number): SelftestCase {
  return {
    name: `matmul nt, nn, tn and sum_rows, ${N} × [${M}, ${K}]`,
    limit: LIMITS.forward,
    training: true,
    run(b) {
      const [x, dy, w] = [b.random("x", [N, K]), b.random("dy", [N, M]), b.random("w", [M, K])];
      b.ops.matmulNt(b.output("y", [N, M]), x, w, b.random("bias", [M]));
      b.ops.matmulNt(b.sum("y added", [N, M]), x, w, null, true);
      b.ops.matmulNn(b.output("dx", [N, K]), dy, w);
      b.ops.matmulTn(b.sum("dw", [M, K]), dy, x, true);
      b.ops.sumRows(b.output("db", [M]), dy);
    },
  };
}

const rowMoves: SelftestCase = {
  name: "embedding, gather_rows, scatter_rows, add, 63 × 33",
  limit: LIMITS.exact,
  run(b) {
    const [N, V, C] = [63, 70, 33];
    const [table, narrow, other] = [b.random("table", [V, C]), b.narrow("table", [V, C]), b.random("other", [N, C])];
    const ids = b.ints(range(N).map((i) => (i * 37) % V));
    for (const [name, t] of [["f32", table] as const, ["bf16", narrow] as const]) {
      b.ops.embedding(b.output(name, [N, C]), ids, t);
      b.ops.embedding(b.output(`${name} packed`, [N, C]), ids, b.pack(t));
    }
    b.ops.gatherRows(b.output("gathered", [N, C]), table, ids);
    b.ops.scatterRows(b.output("scattered", [N, C]), other, b.ints(range(N).map((i) => N - 1 - i)));
    b.ops.add(b.output("sum", [N, C]), other, other);
  },
};

const rowSums: SelftestCase = {
  name: "embedding_backward, axpy, 63 × 33",
  limit: LIMITS.forward,
  training: true,
  run(b) {
    const [N, V, C] = [63, 7, 33];
    const dy = b.random("dy", [N, C]);
    b.ops.embeddingBackward(b.sum("dtable", [V, C]), b.ints(range(N).map((i) => (i * 3) % V)), dy);
    b.ops.axpy(b.sum("axpy", [N, C]), dy, -0.3);
  },
};

const memory: SelftestCase = {
  name: "alloc, upload, convert, copy, zero, fill_random, download",
  limit: LIMITS.exact,
  run(b) {
    const x = b.random("x", [1001], 1e4);
    const narrow = b.narrow("x", [1001]);
    b.ops.convert(b.output("rounded", [1001]), narrow);
    b.ops.copy(b.output("copied", [1001]), x);
    b.ops.zero(b.output("zeroed", [1001]));
    b.ops.fillRandom(b.output("filled", [1001]), 7, 0.5);
  },
};

/** Cases of linear layers, products and rows. */
export const denseCases: readonly SelftestCase[] = [
  memory,
  ...(["f32", "bf16"] as const).flatMap((dtype) => [
    linear(1, 100, 63, dtype),
    linear(7, 17, 33, dtype),
    linear(33, 352, 300, dtype),
  ]),
  products(63, 33, 100),
  products(7, 130, 300),
  rowMoves,
  rowSums,
];
