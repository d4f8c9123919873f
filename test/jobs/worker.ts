// Stands in for a command in tests of jobs: bun worker.ts MODE DATA_DIR JOB
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { JobCancelled } from "../../src/jobs/reporter.ts";
import { JobSession } from "../../src/jobs/session.ts";
import { Store } from "../../src/store/database.ts";

const [mode = "", root = "", id = ""] = process.argv.slice(2);
const store = Store.open(root);
const session = JobSession.attach(store, id);
const { reporter } = session;
process.on("SIGTERM", () => {});
appendFileSync(join(session.folder, "runs.txt"), `${mode}\n`);

async function waitForStop(): Promise<never> {
  while (!reporter.cancelled()) await Bun.sleep(20);
  throw new JobCancelled();
}

function search(): void {
  const common = {
    backbone: "tiny",
    variant: "gla",
    task: "names",
    taskSha256: "0",
    metric: "acc",
    strategy: "greedy",
  };
  store.searches.begin({ id, ...common, stop: { maxDrop: 0.05 } });
  store.searches.setBaseScore(id, 0.75);
  const layers: (string | null)[] = [null, null, null, null];
  for (const [round, layer] of [1, 0].entries()) {
    for (const candidate of layers.keys()) {
      if (layers[candidate] !== null) continue;
      const mask = layers.map((own, at) => (at === candidate ? "gla" : own));
      const scored = { search: id, round: round + 1, layer: candidate, layers: mask, score: 0.7, numDocuments: 1 };
      store.candidates.add({ ...scored, seconds: 0.1 });
    }
    store.candidates.choose(id, round + 1, layer);
    layers[layer] = "gla";
    reporter.event("round", { round: round + 1, layer });
    reporter.progress(round + 1, 2, "rounds");
  }
  const found = { layers, score: 0.7, numReplaced: 2 };
  store.searches.setFound(id, found, found);
  store.hybrids.put({ backbone: "tiny", name: "names", layers, task: "names", search: id });
  session.finish({ hybrid: "names" });
}

/** Counts to ten over any number of lives, dying once at three. */
async function count(): Promise<void> {
  const file = join(session.folder, "count.txt");
  const counted = (await Bun.file(file).exists()) ? (await Bun.file(file).text()).trim().split("\n").map(Number) : [];
  for (let i = counted.length + 1; i <= 10; i++) {
    appendFileSync(file, `${i}\n`);
    reporter.event("counted", { i });
    if (i === 3) process.kill(process.pid, "SIGKILL");
  }
  session.finish({ counted: 10 });
}

try {
  if (mode === "search") search();
  if (mode === "count") await count();
  if (mode === "crash") process.kill(process.pid, "SIGKILL");
  if (mode === "throw") throw new Error("the weights are broken");
  if (mode === "deaf") {
    reporter.event("started");
    setInterval(() => {}, 1000);
  }
  if (mode === "wait") {
    reporter.event("started");
    await waitForStop();
  }
} catch (error) {
  session.fail(error);
  process.exitCode = 1;
}
