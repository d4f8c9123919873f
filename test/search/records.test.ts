// What a search leaves in the store, and that it leaves no hybrid whose counterparts are others than those it scored.
import { expect, test } from "bun:test";
import { join } from "node:path";
import type { SearchPlan } from "../../src/cli/search_records.ts";
import { beginSearch, poolTime, recordSearch, type SearchReport } from "../../src/cli/search_records.ts";
import { Store } from "../../src/store/database.ts";
import { withTemporary } from "../support/checkpoints.ts";

test("a search whose pool was made anew meanwhile registers nothing, and says so in one line", () =>
  withTemporary((folder) => {
    const store = Store.open(join(folder, "home"));
    try {
      store.models.put({ name: "m", path: "/m", architecture: "llama", numLayers: 2, fingerprint: null });
      const pool = (recipe: string, now: number) =>
        store.pools.put({ backbone: "m", variant: "gla", path: "/p", recipe: { recipe } }, now);
      pool("first", 1000);
      const target = { name: "m", path: "/m", hybrid: null };
      const task = { name: "t", bos: "never", documents: [] };
      store.jobs.add({ id: "s1", kind: "search", origin: "terminal", args: [], subject: {} });
      const plan = { id: "s1", target, hybrid: "t", task, metric: "acc", variant: "gla", stop: { all: true } };
      beginSearch(store, plan as unknown as SearchPlan, "0", "greedy");
      const chosen = { layers: [1], score: 0.5 };
      const trajectory = { base: 0.5, rounds: [], best: chosen, optimal: chosen };
      const report = {
        ...{ search: "s1", model: "m", hybrid: "t", variant: "gla", task: "t", metric: "acc", bos: "never" },
        ...{ numDocuments: 1, trajectory, best: chosen, optimal: chosen, report: null, seconds: 1 },
      } as unknown as SearchReport;
      const scored = poolTime(store, "m", "gla");
      expect([scored, poolTime(store, "m", "jet")]).toEqual([1000, 0]);
      pool("second", 2000);
      expect(() => recordSearch(store, report, 2, scored)).toThrow(
        'Cannot use the result of "s1": the gla pool of "m" was made anew while it ran; search again',
      );
      expect(store.hybrids.list("m")).toEqual([]);
      recordSearch(store, report, 2, poolTime(store, "m", "gla"));
      expect(store.hybrids.list("m").map(({ name, layers }) => [name, layers])).toEqual([
        ["t", [null, "gla"]],
        ["t-best", [null, "gla"]],
      ]);
    } finally {
      store.close();
    }
  }));
