// Gates: formulas in double precision, extreme logits, gradients, and bits that do not depend on threads.
import { expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import { isas, opsOf, randomFloats } from "../support/kernels.ts";
import { expectClose, expectSameBits, outputs, random, zeros } from "../support/op_case.ts";

const softplus = (x: number) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** Every element within `limit` of its own size, and no element smaller than float32 can hold. */
function expectRelative(actual: Float32Array, expected: (i: number) => number, limit: number): void {
  actual.forEach((x, i) => {
    const wanted = expected(i);
    const error = Math.abs(x - wanted) / Math.max(Math.abs(wanted), 1e-37);
    if (!(error <= limit)) throw new Error(`element ${i} is ${x}, expected ${wanted}`);
  });
  expect(actual.every((x) => Number.isFinite(x))).toBe(true);
}

// A fine sweep through zero, then logits at which a careless formula overflows or gives 0.
const logits = Float32Array.from([
  ...Array.from({ length: 2001 }, (_, i) => (i - 1000) / 50),
  ...[-1e4, -100, -87, -50, -30, 30, 50, 87, 100, 1e4, 0, 1e-30, -1e-30],
]);

test.each(isas)("glaGate() and its gradient hold their relative accuracy at any logit on %s", async (isa) => {
  const ops = await opsOf(isa);
  const z = ops.fromArray([logits.length], logits);
  const da = random(ops, [logits.length], 9);
  const out = outputs(ops, { a: [logits.length], dz: [logits.length] });
  ops.glaGate(out.a, z, 16);
  ops.glaGateBackward(out.dz, da, z, 16);
  const { a, dz } = out.read();
  const upstream = ops.toFloat32(da);
  // Beyond -87 e^x is below the smallest normal number: there only the absolute size counts.
  expectRelative(a.slice(0, 2001), (i) => -softplus(-logits[i]!) / 16, 5e-7);
  expectRelative(dz.slice(0, 2001), (i) => (upstream[i]! * sigmoid(-logits[i]!)) / 16, 1e-6);
  expectClose(
    a.slice(2001),
    Float32Array.from(logits.slice(2001), (x) => -softplus(-x) / 16),
    1e-6,
    "extreme a",
  );
  for (const [i, x] of logits.entries()) if (Math.abs(x) < 80) expect(a[i]!).toBeLessThan(0);
});

function gdn(ops: Ops, N: number, Hv: number, betaScale: number) {
  const [za, zb] = [random(ops, [N, Hv], 1, 12), random(ops, [N, Hv], 2, 12)];
  const [aLog, dtBias] = [random(ops, [Hv], 3, 2), random(ops, [Hv], 4, 4)];
  const out = outputs(ops, { g: [N, Hv], beta: [N, Hv], dza: [N, Hv], dzb: [N, Hv] });
  const sums = { dALog: zeros(ops, [Hv]), dDtBias: zeros(ops, [Hv]) };
  const upstream = { dg: random(ops, [N, Hv], 5), dbeta: random(ops, [N, Hv], 6) };
  ops.gdnGate(out.g, out.beta, za, zb, aLog, dtBias, betaScale);
  for (const _ of [1, 2])
    ops.gdnGateBackward({ dza: out.dza, dzb: out.dzb, ...sums }, upstream, { za, zb, aLog, dtBias }, betaScale);
  for (const t of Object.values(sums)) t.check();
  return { ...out.read(), dALog: ops.toFloat32(sums.dALog), dDtBias: ops.toFloat32(sums.dDtBias) };
}

const shapes = [
  { N: 1, Hv: 1 },
  { N: 63, Hv: 3 },
  { N: 100, Hv: 16 },
  { N: 1000, Hv: 37 },
];

for (const isa of isas) {
  test.each(shapes)(`gdnGate() and its gradient follow the formulas on ${isa}: %j`, async ({ N, Hv }) => {
    const ops = await opsOf(isa);
    const actual = gdn(ops, N, Hv, 2);
    const scaled = (seed: number, count: number, scale: number) => randomFloats(count, seed).map((x) => x * scale);
    const [za, zb] = [scaled(1, N * Hv, 12), scaled(2, N * Hv, 12)];
    const [aLog, dtBias] = [scaled(3, Hv, 2), scaled(4, Hv, 4)];
    const [dg, dbeta] = [randomFloats(N * Hv, 5), randomFloats(N * Hv, 6)];
    const rate = (i: number) => -Math.exp(aLog[i % Hv]!);
    const x = (i: number) => za[i]! + dtBias[i % Hv]!;
    const slope = (i: number) => rate(i) * sigmoid(x(i)) * dg[i]!;
    expectClose(
      actual.g,
      za.map((_, i) => rate(i) * softplus(x(i))),
      1e-6,
      "g",
    );
    expectClose(
      actual.beta,
      zb.map((z) => 2 * sigmoid(z)),
      1e-6,
      "beta",
    );
    expectClose(
      actual.dza,
      za.map((_, i) => slope(i)),
      1e-6,
      "dza",
    );
    expectClose(
      actual.dzb,
      zb.map((z, i) => 2 * sigmoid(z) * sigmoid(-z) * dbeta[i]!),
      1e-6,
      "dzb",
    );
    const sums = { dALog: new Float64Array(Hv), dDtBias: new Float64Array(Hv) };
    za.forEach((_, i) => {
      sums.dALog[i % Hv] = sums.dALog[i % Hv]! + 2 * dg[i]! * rate(i) * softplus(x(i));
      sums.dDtBias[i % Hv] = sums.dDtBias[i % Hv]! + 2 * slope(i);
    });
    expectClose(actual.dALog, Float32Array.from(sums.dALog), 5e-6, "dALog, added twice");
    expectClose(actual.dDtBias, Float32Array.from(sums.dDtBias), 5e-6, "dDtBias, added twice");
  });

  test(`gates give the same bits with 1 and 2 threads on ${isa}`, async () => {
    const ops = await opsOf(isa);
    const two: Record<string, Float32Array> = gdn(ops, 700, 37, 1);
    if (isa !== "reference") ops.setThreads(1);
    const one: Record<string, Float32Array> = gdn(ops, 700, 37, 1);
    if (isa !== "reference") ops.setThreads(2);
    for (const name in two) expectSameBits(one[name]!, two[name]!, name);
  });

  test(`glaGate() refuses a normalizer of 0 on ${isa}`, async () => {
    const ops = await opsOf(isa);
    const z = random(ops, [4], 1);
    expect(() => ops.glaGate(z, z, 0)).toThrow("normalizer is 0, expected above 0");
  });
}
