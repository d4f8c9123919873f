// The forward ops of graft.h that work row by row, as methods on tensors: sizes come from shapes, every operand is checked,
// a status becomes an exception. Shapes are given in the header; [N, H, D] and [N, H*D] are the same to a kernel.
import { KernelError } from "../errors.ts";
import { type DType, dtypeCode } from "../tensor/dtype.ts";
import { numel, type Tensor } from "../tensor/tensor.ts";
import { at, expectCount, expectRows, rowsOf } from "./expect.ts";
import { RepeatOps } from "./repeat_ops.ts";

/** A weight [out, in] in the library's own layout. */
export interface PackedLinear {
  readonly ptr: number;
  readonly out: number;
  readonly in: number;
  readonly dtype: "f32" | "bf16";
  readonly bytes: number;
}

/** Linear layers, rows, norms, activations and rope. */
export class DenseOps extends RepeatOps {
  // ---- linear layers and rows ----

  /** Packs a row-major [out, in] weight; the result lives until freePacked(). */
  linearPack(weight: Tensor): PackedLinear {
    const [out, inputs] = weight.shape;
    if (out === undefined || inputs === undefined || weight.shape.length !== 2) {
      throw new KernelError(`Cannot run linearPack: weight is [${weight.shape}], expected [out, in]`);
    }
    const code = dtypeCode(weight.dtype);
    const bytes = this.packedBytes(out, inputs, weight.dtype);
    const ptr = this.allocBytes(bytes);
    this.check("linearPack", this.symbols.graft_linear_pack(ptr as never, at(weight), out, inputs, code));
    return { ptr, out, in: inputs, dtype: weight.dtype as "f32" | "bf16", bytes };
  }

  /** Bytes that a packed [out, in] weight takes. */
  packedBytes(out: number, inputs: number, dtype: DType): number {
    return this.symbols.graft_linear_packed_bytes(out, inputs, dtypeCode(dtype));
  }

  freePacked(w: PackedLinear): void {
    this.freeBytes(w.ptr);
  }

  /** y = x Wᵀ (+ bias) (+ residual); residual may be y. */
  linear(y: Tensor, x: Tensor, w: PackedLinear, bias: Tensor | null = null, residual: Tensor | null = null): void {
    const N = rowsOf("linear", "x", x);
    expectRows("linear", "x", x, N, w.in);
    expectRows("linear", "y", y, N, w.out);
    if (bias) expectCount("linear", "bias", bias, w.out);
    if (residual) expectRows("linear", "residual", residual, N, w.out);
    if (N === 0) return;
    const code = w.dtype === "f32" ? 0 : 1;
    const p = w.ptr as never;
    this.check("linear", this.symbols.graft_linear(at(y), at(x), p, at(bias), at(residual), N, w.out, w.in, code));
  }

  /** y[i] = table[ids[i]]; table is a row-major [V, C] tensor or a packed head. */
  embedding(y: Tensor, ids: Tensor, table: Tensor | PackedLinear): void {
    const packed = "out" in table;
    const [V, C] = packed ? [table.out, table.in] : [table.shape[0] ?? 0, table.shape[1] ?? 0];
    const N = rowsOf("embedding", "ids", ids);
    expectCount("embedding", "ids", ids, N, "i32");
    expectRows("embedding", "y", y, N, C);
    const code = dtypeCode(table.dtype);
    const status = this.symbols.graft_embedding(at(y), at(ids), table.ptr as never, N, V, C, code, packed ? 1 : 0);
    this.check("embedding", status);
  }

  /** y[i] = x[index[i]] */
  gatherRows(y: Tensor, x: Tensor, index: Tensor): void {
    const M = rowsOf("gatherRows", "index", index);
    const C = numel(x) / rowsOf("gatherRows", "x", x);
    expectCount("gatherRows", "index", index, M, "i32");
    expectRows("gatherRows", "y", y, M, C);
    this.check("gatherRows", this.symbols.graft_gather_rows(at(y), at(x), at(index), M, C));
  }

  /** y[index[i]] = x[i] */
  scatterRows(y: Tensor, x: Tensor, index: Tensor): void {
    const M = rowsOf("scatterRows", "index", index);
    const C = numel(y) / rowsOf("scatterRows", "y", y);
    expectCount("scatterRows", "index", index, M, "i32");
    expectRows("scatterRows", "x", x, M, C);
    this.check("scatterRows", this.symbols.graft_scatter_rows(at(y), at(x), at(index), M, C));
  }

  /** y = a + b; y may be either. */
  add(y: Tensor, a: Tensor, b: Tensor): void {
    const n = numel(y);
    expectCount("add", "a", a, n);
    expectCount("add", "b", b, n);
    this.check("add", this.symbols.graft_add(at(y), at(a), at(b), n));
  }

  /** y += alpha x */
  axpy(y: Tensor, x: Tensor, alpha: number): void {
    expectCount("axpy", "x", x, numel(y));
    this.check("axpy", this.symbols.graft_axpy(at(y), at(x), numel(y), alpha));
  }

  // ---- normalisation, activations, rope; rows are numel / C, so per-head norms need no reshape ----

  rmsNorm(y: Tensor, x: Tensor, w: Tensor, eps: number): void {
    const [N, C] = this.#rows("rmsNorm", x, w);
    expectCount("rmsNorm", "y", y, N * C);
    this.check("rmsNorm", this.symbols.graft_rms_norm(at(y), at(x), at(w), N, C, eps));
  }

  layerNorm(y: Tensor, x: Tensor, w: Tensor, b: Tensor, eps: number): void {
    const [N, C] = this.#rows("layerNorm", x, w);
    expectCount("layerNorm", "y", y, N * C);
    expectCount("layerNorm", "b", b, C);
    this.check("layerNorm", this.symbols.graft_layer_norm(at(y), at(x), at(w), at(b), N, C, eps));
  }

  /** y = rms(x; w) ⊙ silu(gate), per row of w's length; gate null: the norm alone. */
  gatedRmsNorm(y: Tensor, x: Tensor, gate: Tensor | null, w: Tensor, eps: number): void {
    const [N, C] = this.#rows("gatedRmsNorm", x, w);
    expectCount("gatedRmsNorm", "y", y, N * C);
    if (gate) expectCount("gatedRmsNorm", "gate", gate, N * C);
    this.check("gatedRmsNorm", this.symbols.graft_gated_rms_norm(at(y), at(x), at(gate), at(w), N, C, eps));
  }

  /** y = x / sqrt(Σx² + eps) over rows of C. */
  l2Norm(y: Tensor, x: Tensor, C: number, eps = 1e-6): void {
    expectCount("l2Norm", "y", y, numel(x));
    this.check("l2Norm", this.symbols.graft_l2_norm(at(y), at(x), numel(x) / C, C, eps));
  }

  silu(y: Tensor, x: Tensor): void {
    expectCount("silu", "y", y, numel(x));
    this.check("silu", this.symbols.graft_silu(at(y), at(x), numel(x)));
  }

  siluMul(y: Tensor, gate: Tensor, up: Tensor): void {
    expectCount("siluMul", "gate", gate, numel(y));
    expectCount("siluMul", "up", up, numel(y));
    this.check("siluMul", this.symbols.graft_silu_mul(at(y), at(gate), at(up), numel(y)));
  }

  geluTanh(y: Tensor, x: Tensor): void {
    expectCount("geluTanh", "y", y, numel(x));
    this.check("geluTanh", this.symbols.graft_gelu_tanh(at(y), at(x), numel(x)));
  }

  /** table[P, D] from invFreq[D/2]. */
  ropeTable(table: Tensor, invFreq: Tensor): void {
    const P = rowsOf("ropeTable", "table", table);
    const D = 2 * numel(invFreq);
    expectRows("ropeTable", "table", table, P, D);
    this.check("ropeTable", this.symbols.graft_rope_table(at(table), at(invFreq), P, D));
  }

  /** Rotates x [N, H, D] by its positions; direction -1 rotates back. */
  rope(y: Tensor, x: Tensor, positions: Tensor, table: Tensor, direction: 1 | -1 = 1): void {
    const N = rowsOf("rope", "x", x);
    const [P, D] = [table.shape[0] ?? 0, table.shape[1] ?? 0];
    const H = N === 0 ? 0 : numel(x) / (N * D);
    if (!Number.isInteger(H)) throw new KernelError(`Cannot run rope: x is [${x.shape}], not rows of heads of ${D}`);
    expectCount("rope", "positions", positions, N, "i32");
    expectRows("rope", "y", y, N, H * D);
    if (N === 0) return;
    this.check("rope", this.symbols.graft_rope(at(y), at(x), at(positions), at(table), N, H, D, P, direction));
  }

  /** Rows and channels of x for a norm whose weight has C elements. */
  #rows(op: string, x: Tensor, w: Tensor): [number, number] {
    const C = numel(w);
    const N = numel(x) / C;
    if (!Number.isInteger(N)) throw new KernelError(`Cannot run ${op}: x is [${x.shape}], not rows of ${C}`);
    return [N, C];
  }
}
