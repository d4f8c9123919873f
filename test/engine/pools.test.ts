import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { PagePool } from "../../src/engine/page_pool.ts";
import { StatePool } from "../../src/engine/state_pool.ts";

describe("PagePool", () => {
  test("gives each page once, all or nothing, lowest first", () => {
    const pool = new PagePool(5);
    const a: number[] = [];
    const b: number[] = [];
    expect(pool.take(3, a)).toBe(true);
    expect(a).toEqual([0, 1, 2]);
    expect(pool.take(3, b)).toBe(false);
    expect(b).toEqual([]);
    expect(pool.take(2, b)).toBe(true);
    expect(pool.numFree).toBe(0);
    pool.give(a);
    expect([a, pool.numFree, pool.numUsed]).toEqual([[], 3, 2]);
  });

  test("notices more pages than it ever had", () => {
    expect(() => new PagePool(1).give([0])).toThrow("Broken page pool");
  });
});

describe("StatePool", () => {
  test("slots begin at multiples of their size and never overlap, under any order of takes and gives", () => {
    const action = fc.record({ floats: fc.integer({ min: 1, max: 60 }), give: fc.nat() });
    fc.assert(
      fc.property(fc.array(action, { maxLength: 120 }), (actions) => {
        const pool = new StatePool(500);
        const held: { slot: number; floats: number }[] = [];
        const owner = new Int32Array(500);
        for (const { floats, give } of actions) {
          if (give % 3 === 0 && held.length > 0) {
            const [gone] = held.splice(give % held.length, 1);
            pool.give(gone!.slot, gone!.floats);
            owner.fill(0, gone!.slot * gone!.floats, (gone!.slot + 1) * gone!.floats);
            continue;
          }
          const slot = pool.take(floats);
          if (slot < 0) {
            for (let k = 0; (k + 1) * floats <= 500; k++) {
              expect(owner.subarray(k * floats, (k + 1) * floats).some((cell) => cell === 1)).toBe(true);
            }
            continue;
          }
          expect(owner.subarray(slot * floats, (slot + 1) * floats).every((cell) => cell === 0)).toBe(true);
          expect((slot + 1) * floats).toBeLessThanOrEqual(500);
          owner.fill(1, slot * floats, (slot + 1) * floats);
          held.push({ slot, floats });
        }
        expect(pool.floatsUsed).toBe(held.reduce((sum, { floats }) => sum + floats, 0));
        for (const { slot, floats } of held) pool.give(slot, floats);
        expect(pool.floatsUsed).toBe(0);
        expect(pool.take(500)).toBe(0);
      }),
      { seed: 11, numRuns: 500 },
    );
  });

  test("takeAll() takes all or none", () => {
    const pool = new StatePool(100);
    const slots: number[] = [];
    expect(pool.takeAll([{ floats: 40 }, { floats: 30 }, { floats: 50 }], slots)).toBe(false);
    expect([slots, pool.floatsUsed]).toEqual([[], 0]);
    expect(pool.takeAll([{ floats: 40 }, { floats: 20 }], slots)).toBe(true);
    expect([slots, pool.floatsUsed]).toEqual([[0, 2], 60]);
  });

  test("notices a slot that was not taken", () => {
    const pool = new StatePool(100);
    const slot = pool.take(10);
    pool.give(slot, 10);
    expect(() => pool.give(slot, 10)).toThrow("Broken state pool");
  });
});
