// Events across the thread: what comes out is what went in, whatever an event carries.
import { expect, test } from "bun:test";
import fc from "fast-check";
import type { TokenEvent } from "../../src/engine/types.ts";
import { packEvents, unpackEvents } from "../../src/engine/wire_events.ts";

const count = fc.integer({ min: 0, max: 2 ** 31 });
const usage = fc.record({ promptTokens: count, completionTokens: count, cachedTokens: count });
const event: fc.Arbitrary<TokenEvent> = fc.oneof(
  fc.record({ tokenIds: fc.tuple(count), finishReason: fc.constant(null), usage }),
  fc.record(
    {
      tokenIds: fc.array(count, { maxLength: 3 }),
      finishReason: fc.constantFrom(null, "stop", "length", "cancelled"),
      usage,
      logprobs: fc.array(fc.double({ noNaN: true }), { maxLength: 3 }),
    },
    { requiredKeys: ["tokenIds", "finishReason", "usage"] },
  ),
);

test("unpackEvents() gives back what packEvents() took, after a clone", () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.maxSafeNat()), fc.infiniteStream(event), (ids, events) => {
      const named = ids.map((id) => ({ id, event: events.next().value }));
      const byId = (list: typeof named) => [...list].sort((a, b) => a.id - b.id);
      expect(byId(unpackEvents(structuredClone(packEvents(named))))).toEqual(byId(named));
    }),
    { seed: 1, numRuns: 300 },
  );
});

test("tokens of streams that go on travel as numbers", () => {
  const usage = { promptTokens: 3, completionTokens: 2, cachedTokens: 1 };
  const going: TokenEvent = { tokenIds: [7], finishReason: null, usage };
  const ended: TokenEvent = { tokenIds: [8], finishReason: "stop", usage };
  const { plain, rest } = packEvents([
    { id: 5, event: going },
    { id: 6, event: ended },
  ]);
  expect([...plain]).toEqual([5, 7, 3, 2, 1]);
  expect(rest).toEqual([{ id: 6, event: ended }]);
});
