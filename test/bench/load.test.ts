// The load tools in small: disconnects, swaps and a soak of seconds against a real server. GRAFT_LOAD_SCALE makes them longer:
// 100 = the sizes that the scripts under bench/load take by default.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { runDisconnects } from "../../bench/load/disconnects.ts";
import { type Held, type LoadServer, startLoadServer } from "../../bench/load/load_server.ts";
import { runSoak, SOAK_FLAGS, slope } from "../../bench/load/soak.ts";
import { runSwaps } from "../../bench/load/swaps.ts";

const scale = Number(process.env.GRAFT_LOAD_SCALE ?? "1");
const LIMIT_MS = 120_000 * Math.max(1, scale);

let server: LoadServer;
beforeAll(async () => {
  server = await startLoadServer([...SOAK_FLAGS, "--threads", "1"]);
}, LIMIT_MS);
afterAll(() => server.stop());

/** Not more than before; a connection that was about to close may have been counted then. */
function expectNothingHeld({ before, after }: { readonly before: Held; readonly after: Held }): void {
  expect(after).toEqual({ ...before, openFiles: after.openFiles });
  expect(after.openFiles).toBeLessThanOrEqual(before.openFiles);
}

test(
  "clients that leave at random bytes leave nothing behind and disturb nobody",
  async () => {
    const report = await runDisconnects(server, Math.round(100 * scale));
    expect(report).toMatchObject({ cuts: Math.round(100 * scale), changed: 0 });
    expectNothingHeld(report);
    expect(report.cutSending).toBeGreaterThan(0);
    expect(report.healthy).toBeGreaterThan(0);
  },
  LIMIT_MS,
);

test(
  "streams keep the hybrid they began with, and the next request has the new one",
  async () => {
    const report = await runSwaps(server, Math.round(20 * scale), 4);
    expect(report).toMatchObject({ wrong: 0, late: 0, failures: {} });
    expect(report.streams).toBeGreaterThan(4);
    expect(report.followers).toBeGreaterThan(0);
  },
  LIMIT_MS,
);

test(
  "a mix of everything gets the answers it deserves and holds nothing afterwards",
  async () => {
    const report = await runSoak(server, 0.05 * Math.max(1, 4 * (scale - 1)));
    expect(report.unexpected).toEqual({});
    expectNothingHeld(report);
    expect(Object.keys(report.work).sort()).toEqual([
      "bad",
      "leave",
      "long prompt",
      "score",
      "stream",
      "swap",
      "whole",
    ]);
    expect(report.tokensPerSecond).toBeGreaterThan(0);
  },
  LIMIT_MS,
);

test("slope() is that of the straight line", () => {
  expect(
    slope([
      [0, 1],
      [1, 3],
      [2, 5],
    ]),
  ).toBeCloseTo(2, 9);
  expect(
    slope([
      [0, 4],
      [1, 4],
      [5, 4],
    ]),
  ).toBe(0);
});
