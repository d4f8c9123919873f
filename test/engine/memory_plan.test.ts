// How memory is divided: shares of a machine, what a device has, and the numbers that a refusal names.
import { expect, test } from "bun:test";
import { type DeviceRoom, type MemoryNeeds, planByMachine, planByRoom } from "../../src/engine/memory_plan.ts";

const [KIB, MIB, GIB] = [2 ** 10, 2 ** 20, 2 ** 30];

/** Llama-3.2-3B in bfloat16 with gated-delta counterparts. */
const needs: MemoryNeeds = {
  maxContext: 131_072,
  contextAsked: false,
  maxSequences: 64,
  pageSize: 32,
  pageBytes: 128 * KIB,
  numFull: 28,
  numLayers: 28,
  stateBytes: 0,
  plausibleStateBytes: 42 * MIB,
  asked: {},
};

const room = (free: number): DeviceRoom => ({
  totalBytes: free + GIB,
  freeBytes: free,
  fraction: 0.9,
  weightBytes: 6 * GIB,
  workspaceBytes: GIB,
});

test("the processor gets shares of the machine, whatever is free", () => {
  const plan = planByMachine(needs, 64 * GIB);
  expect(plan).toEqual({
    kvBytes: 2 * GIB,
    stateBytes: GIB,
    poolBytes: Number.POSITIVE_INFINITY,
    maxContext: 131_072,
    room: null,
  });
  expect(planByMachine({ ...needs, asked: { kvBytes: 5, stateBytes: 7, poolBytes: 9 } }, GIB)).toMatchObject({
    kvBytes: 5,
    stateBytes: 7,
    poolBytes: 9,
  });
});

test("a large device: everything wanted, pages get the rest, and all of it is within the part to use", () => {
  const plan = planByRoom(needs, room(139 * GIB));
  expect(plan.poolBytes).toBe(6 * GIB);
  expect(plan.stateBytes).toBe(2 * 64 * 42 * MIB);
  expect(plan.maxContext).toBe(131_072);
  const table = 4 * 64 * 28 * 4096;
  expect(plan.kvBytes + plan.stateBytes + plan.poolBytes + table + 7 * GIB).toBe(Math.floor(0.9 * 139 * GIB));
});

test("no more pages than there is a use for", () => {
  const few = { ...needs, maxContext: 4096, maxSequences: 4 };
  expect(planByRoom(few, room(139 * GIB)).kvBytes).toBe(4 * 28 * 128 * 128 * KIB);
});

test("a context that nobody asked for gives way to the pages; one that was asked for is refused with the longest that fits", () => {
  const plan = planByRoom(needs, room(20 * GIB));
  expect(plan.maxContext).toBeLessThan(131_072);
  expect(plan.maxContext % 32).toBe(0);
  expect(plan.maxContext).toBe(Math.floor(plan.kvBytes / (28 * 128 * KIB)) * 32);
  const asked = { ...needs, contextAsked: true };
  expect(() => planByRoom(asked, room(20 * GIB))).toThrow(
    new RegExp(
      `^Cannot divide the device's memory: a context of 131072 tokens takes 14.0 GiB of KV pages, there are \\d.\\d GiB ` +
        `\\(90% of 20.0 GiB free, weights 6.0 GiB, workspace 1.0 GiB\\): at most --max-context ${plan.maxContext}$`,
    ),
  );
  expect(planByRoom({ ...asked, maxContext: plan.maxContext }, room(20 * GIB)).maxContext).toBe(plan.maxContext);
});

test("sequences that do not fit are refused with how many do", () => {
  const many = { ...needs, maxSequences: 4096, maxContext: 2048, stateBytes: 10 * MIB };
  const most = /: at most --max-sequences (\d+)$/.exec(messageOf(() => planByRoom(many, room(20 * GIB))))?.[1];
  expect(Number(most)).toBeGreaterThan(64);
  expect(planByRoom({ ...many, maxSequences: Number(most) }, room(20 * GIB)).maxContext).toBeGreaterThan(0);
});

test("what was asked for is taken, or refused with what there is", () => {
  const asked = { kvBytes: 4 * GIB, stateBytes: GIB, poolBytes: GIB };
  expect(planByRoom({ ...needs, asked }, room(20 * GIB))).toMatchObject(asked);
  expect(messageOf(() => planByRoom({ ...needs, asked: { ...asked, kvBytes: 10 * GIB } }, room(20 * GIB)))).toBe(
    "Cannot divide the device's memory: 1.0 GiB of counterparts, 28.0 MiB of page table and 1.0 GiB of states beside " +
      "10.0 GiB of KV pages do not fit into 11.0 GiB (90% of 20.0 GiB free, weights 6.0 GiB, workspace 1.0 GiB)",
  );
});

test("weights that leave nothing are refused", () => {
  expect(messageOf(() => planByRoom(needs, room(7 * GIB)))).toMatch(
    /there is no room beside the weights .* smaller model$/,
  );
});

test("where no counterpart matches, states take half of what is left at most", () => {
  const plan = planByRoom({ ...needs, plausibleStateBytes: Number.POSITIVE_INFINITY }, room(139 * GIB));
  expect(plan.stateBytes).toBeLessThanOrEqual(plan.kvBytes + 1);
});

function messageOf(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("Expected an error");
}
