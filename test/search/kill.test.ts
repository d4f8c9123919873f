import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { SearchReport } from "../../src/cli/search_records.ts";
import { Store } from "../../src/store/database.ts";
import { idDocuments, writeConvertFiles } from "../convert/support.ts";
import { withTemporary } from "../support/checkpoints.ts";
import { runCli, startCli, waitFor } from "../support/cli.ts";

const NUM_LAYERS = 5;

function writeTask(path: string): void {
  const lines = idDocuments(60, 9).map((ids, i) => {
    const choices = [0, 1, 2, 3].map((shift) => [2 + ((ids[30]! + shift) % 38)]);
    return `${JSON.stringify({ id: i, context_ids: ids.slice(0, 30), choices_ids: choices, gold: 0 })}\n`;
  });
  writeFileSync(path, lines.join(""));
}

/** Scores by candidate, in the order in which they were recorded. */
function scored(home: string): Map<string, number> {
  const store = Store.open(home);
  try {
    const search = store.searches.list()[0];
    const list = search === undefined ? [] : store.candidates.list(search.id);
    return new Map(list.map(({ round, layer, score }) => [`${round}.${layer}`, score]));
  } finally {
    store.close();
  }
}

test(
  "graft search killed with SIGKILL goes on to the trajectory of an undisturbed one",
  () =>
    withTemporary(async (folder) => {
      const { model } = writeConvertFiles(folder, NUM_LAYERS);
      const task = join(folder, "task.jsonl");
      writeTask(task);
      const homes = { whole: join(folder, "whole"), killed: join(folder, "killed") };
      const command = (home: string) => [
        ...["search", model, "--task", task, "--report", task, "--all", "--threads", "1", "--json", "--data-dir", home],
      ];
      for (const home of Object.values(homes)) {
        await runCli(["convert", model, "--variant", "gdn", "--tokens", "0", "--threads", "1", "--data-dir", home]);
      }
      const whole = JSON.parse(await runCli(command(homes.whole))) as SearchReport;
      const seen: number[] = [];
      for (let i = 0; i < 2; i++) {
        const before = scored(homes.killed).size;
        const running = startCli(command(homes.killed));
        expect(await waitFor(running, () => scored(homes.killed).size >= before + 2)).toBe(true);
        await running.kill();
        seen.push(scored(homes.killed).size);
      }
      expect(seen[1]).toBeGreaterThan(seen[0]!);
      expect(seen[1]).toBeLessThan(scored(homes.whole).size);
      const resumed = JSON.parse(await runCli(command(homes.killed))) as SearchReport;
      expect(resumed.trajectory).toEqual(whole.trajectory);
      expect(resumed.report).toEqual(whole.report);
      expect([...scored(homes.killed)]).toEqual([...scored(homes.whole)]);
      expect(whole.trajectory.rounds.length).toBe(NUM_LAYERS);
    }),
  60_000,
);
