import { expect, test } from "bun:test";
import { learningRate, type Schedule } from "../../src/train/schedule.ts";

const cosine: Schedule = { kind: "cosine", peak: 0.01, warmupSteps: 10, totalSteps: 110, floor: 0.01 };

test("learningRate() rises linearly, falls along a cosine and ends on the floor", () => {
  expect(learningRate(cosine, 0)).toBeCloseTo(0.001, 12);
  expect(learningRate(cosine, 9)).toBeCloseTo(0.01, 12);
  expect(learningRate(cosine, 10)).toBeCloseTo(0.01, 12);
  expect(learningRate({ ...cosine, totalSteps: 111 }, 60)).toBeCloseTo(0.01 * (0.01 + 0.99 / 2), 12);
  expect(learningRate(cosine, 109)).toBeCloseTo(0.0001, 12);
  for (let step = 11; step < 110; step++) {
    expect(learningRate(cosine, step)).toBeLessThan(learningRate(cosine, step - 1));
  }
});

test("learningRate() stays at the peak where the schedule is constant, and warms up within short runs", () => {
  const constant: Schedule = { ...cosine, kind: "constant" };
  expect(learningRate(constant, 9)).toBe(0.01);
  expect(learningRate(constant, 109)).toBe(0.01);
  expect(learningRate({ ...cosine, totalSteps: 4 }, 3)).toBe(0.01);
});
