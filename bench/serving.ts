// Measures serving and writes bench/results/serving.{json,md}. A section that is there for this commit is not measured again,
// so an interrupted run goes on where it was. About a quarter of an hour on two cores.
//   bun bench/serving.ts            what is missing
//   bun bench/serving.ts --fresh    everything anew
//   bun bench/serving.ts --quick    tiny counts, to build/serving/quick.{json,md}: whether it runs, not how fast
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { runDisconnects } from "./load/disconnects.ts";
import { type LoadServer, startLoadServer } from "./load/load_server.ts";
import { runSwaps } from "./load/swaps.ts";
import { measureInterference } from "./serving/interference.ts";
import { measurePrefix } from "./serving/prefix.ts";
import { renderPage, type Sections, type Setting } from "./serving/render.ts";
import { large, prepareSubjects, small } from "./serving/subjects.ts";
import { measureThroughput } from "./serving/throughput.ts";

const root = join(import.meta.dir, "..");
const quick = process.argv.includes("--quick");
const target = quick ? join(root, "build", "serving", "quick") : join(import.meta.dir, "results", "serving");

/** Requests per place: fewer where each takes long. */
const rounds = (most: number) => (concurrency: number) =>
  quick ? 1 : Math.max(1, Math.round(most / concurrency ** 0.5));
const sizes = quick ? [512] : [2048, 16_384];

const measurements: { readonly [S in keyof Sections]-?: () => Promise<NonNullable<Sections[S]>> } = {
  throughputSmall: () => measureThroughput(small, quick ? [1, 8] : [1, 8, 32, 128], rounds(64)),
  throughputLarge: () => measureThroughput(large, quick ? [1] : [1, 8, 32, 128], rounds(12)),
  prefix: () =>
    measurePrefix(
      large,
      sizes.map((tokens) => ({ tokens, repeats: tokens > 4096 || quick ? 1 : 3 })),
    ),
  interference: () => {
    return measureInterference(large, { streams: 4, promptTokens: sizes.at(-1)!, calmMs: quick ? 500 : 4000 });
  },
  swaps: () => withLoadServer((server) => runSwaps(server, quick ? 20 : 1000)),
  disconnects: () => withLoadServer((server) => runDisconnects(server, quick ? 100 : 10_000)),
};

async function withLoadServer<T>(use: (server: LoadServer) => Promise<T>): Promise<T> {
  const server = await startLoadServer();
  try {
    return await use(server);
  } finally {
    await server.stop();
  }
}

function currentSetting(): Setting {
  const git = Bun.spawnSync(["git", "rev-parse", "--short=12", "HEAD"], { cwd: root });
  return {
    commit: git.success ? git.stdout.toString().trim() : "unknown",
    date: new Date().toISOString().slice(0, 10),
    device: `${cpus()[0]?.model.trim() ?? "unknown processor"}, ${cpus().length} cores`,
    threads: cpus().length,
  };
}

function measuredBefore({ commit }: Setting): Sections {
  if (quick || process.argv.includes("--fresh") || !existsSync(`${target}.json`)) return {};
  const stored = JSON.parse(readFileSync(`${target}.json`, "utf8")) as { setting: Setting; sections: Sections };
  return stored.setting.commit === commit ? stored.sections : {};
}

const setting = currentSetting();
let sections = measuredBefore(setting);
mkdirSync(join(root, "build", "serving"), { recursive: true });
prepareSubjects();
for (const [name, measure] of Object.entries(measurements)) {
  if (sections[name as keyof Sections] !== undefined) continue;
  const started = performance.now();
  sections = { ...sections, [name]: await measure() };
  writeFileSync(`${target}.json`, `${JSON.stringify({ setting, sections }, null, 2)}\n`);
  writeFileSync(`${target}.md`, renderPage(setting, sections));
  console.log(`${name}: ${((performance.now() - started) / 1000).toFixed(0)} s`);
}
console.log(`${target}.md`);
