// The steps of layers as they are measured on a device: every case runs, and says what it moves and multiplies.
import { expect, test } from "bun:test";
import { shapeConfig } from "../../models/shapes.ts";
import { measureLayerCase } from "../../src/bench/device_kernels.ts";
import { layerCases } from "../../src/bench/layer_cases.ts";
import { LayerOperands } from "../../src/bench/layer_operands.ts";
import { timeRounds } from "../../src/bench/rounds.ts";
import { bestOps, opsOf } from "../support/kernels.ts";

const sizes = { batches: [1, 3], many: 40, contexts: [50] };
const limits = { bytesPerSecond: 1e10, flopsPerSecond: 0 };
const tiny = layerCases("tiny", shapeConfig("tiny"), sizes);

test("every case of a small shape runs and has a figure", async () => {
  const ops = await bestOps();
  expect(tiny.length).toBe(2 * (4 + 1 + 4 + 2) + 4 + 1 + 2);
  expect(new Set(tiny.map(({ name }) => name)).size).toBe(tiny.length);
  for (const one of tiny) {
    const figure = measureLayerCase(ops, one, limits, 0.005, 1 << 16);
    expect(figure.bestSeconds).toBeGreaterThan(0);
    expect(figure.medianSeconds).toBeGreaterThanOrEqual(figure.bestSeconds);
    expect(figure.share).toBeCloseTo(one.bytes / 1e10 / figure.bestSeconds, 9);
    expect(figure.bound).toBe("copy");
  }
});

test("rounds are recorded where the library records", async () => {
  const simt = await opsOf("simt");
  for (const name of ["tiny projections q k v 1 rows", "tiny gdn 1 rows, bf16 states", "tiny attention 1 rows at 50"]) {
    const one = tiny.find((candidate) => candidate.name === name)!;
    const operands = new LayerOperands(simt, 1);
    const round = one.round(operands);
    expect(timeRounds(simt, round, 0.01).best).toBeGreaterThan(0);
    operands.free();
  }
});

test("a case counts what it must move", () => {
  const cases = layerCases("llama-3.2-3b", shapeConfig("llama-3.2-3b"));
  const named = (part: string) => cases.find(({ name }) => name === `llama-3.2-3b ${part}`)!;
  expect(named("gated_linear 1 rows").bytes).toBe(2 * 2 * 3072 * 8192 + 4 * (3072 + 8192));
  expect(named("gated_linear 1 rows").flops).toBe(2 * 2 * 3072 * 8192);
  // 4096 bytes of keys and values a token in one layer.
  expect(named("attention 16 rows at 2048").bytes).toBe(16 * (2049 * 4096 + 4 * (2 * 24 + 2 * 8) * 128));
  expect(named("attention 4096 rows of a prompt").flops).toBe(4 * 24 * 128 * 4096 * 2048.5);
  expect(cases.some(({ name }) => name.endsWith("attention 128 rows at 65536"))).toBe(false); // 34 GB
  // 24 states of 128 x 128, read once and written once in 16 tokens.
  const matrices = 24 * 128 * 128 * 4;
  expect(named("gdn 1 rows, f32 states").bytes).toBeCloseTo(matrices * (17 / 16) + 4 * 3072 * 6, 0);
});
