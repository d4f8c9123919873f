import { describe, expect, test } from "bun:test";
import { resolveRecipe, scheduleOf } from "../../src/convert/recipe.ts";
import { solveRidge } from "../../src/convert/ridge.ts";
import { learningRate } from "../../src/train/schedule.ts";

describe("resolveRecipe()", () => {
  test("small budgets take many small steps at a high rate, large ones the reverse", () => {
    const small = resolveRecipe({ variants: ["gla"], tokens: 2e6 }, 256);
    expect(small).toMatchObject({ rowLength: 256, rowsPerStep: 2, steps: 3907, learningRate: 1e-2, warmupSteps: 100 });
    const large = resolveRecipe({ variants: ["gla"], tokens: 100e6 }, 32768);
    expect(large).toMatchObject({ rowLength: 2048, rowsPerStep: 8, steps: 6104, learningRate: 1e-3, warmupSteps: 100 });
    expect(learningRate(scheduleOf(large), large.steps - 1)).toBeCloseTo(1e-5, 12);
  });

  test("rows fit the model's context and the last step completes the budget", () => {
    const recipe = resolveRecipe({ variants: ["gdn"], tokens: 1000, rowLength: 11, tokensPerStep: 110 }, 11);
    expect(recipe).toMatchObject({ rowLength: 11, rowsPerStep: 10, steps: 10, warmupSteps: 2 });
    expect(resolveRecipe({ variants: ["jet"], tokens: 0 }, 64)).toMatchObject({ rowLength: 64, steps: 0 });
  });

  test("refuses what makes no run", () => {
    const recipe = (tokens: number, rowLength = 8) => resolveRecipe({ variants: ["gla"], tokens, rowLength }, 16);
    expect(() => recipe(-1)).toThrow("tokens is -1");
    expect(() => recipe(1.5)).toThrow("tokens is 1.5");
    expect(() => recipe(10, 17)).toThrow("row length is 17, expected 2 to the context of 16");
    expect(() => resolveRecipe({ variants: ["gla", "gla"], tokens: 1 }, 16)).toThrow("expected different ones");
    expect(() => resolveRecipe({ variants: [], tokens: 1 }, 16)).toThrow("expected different ones");
  });
});

test("solveRidge() solves (A + λI) u = b", () => {
  const n = 12;
  const rows = Array.from({ length: 40 }, (_, r) =>
    Float64Array.from({ length: n }, (_, c) => Math.sin(r * 7 + c * c)),
  );
  const a = new Float64Array(n * n);
  const b = new Float64Array(n);
  for (const x of rows) {
    for (let i = 0; i < n; i++) {
      b[i]! += x[i]!;
      for (let j = 0; j < n; j++) a[i * n + j]! += x[i]! * x[j]!;
    }
  }
  const u = solveRidge(a, b, 0.5);
  for (let i = 0; i < n; i++) {
    const left = u.reduce((sum, value, j) => sum + value * a[i * n + j]!, 0.5 * u[i]!);
    expect(left).toBeCloseTo(b[i]!, 6);
  }
});
