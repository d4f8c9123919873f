// The models that the tables are about, drawn or found once, and servers for them. Knows no measurement.
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Target } from "../../src/bench/serve/request.ts";
import { readStats } from "../../src/bench/serve/server_stats.ts";
import { writeRandom } from "../../src/cli/bench_random.ts";
import { serveChild } from "../../src/cli/served_child.ts";
import { Store } from "../../src/store/database.ts";

const root = join(import.meta.dir, "..", "..");
/** Ignored by git; what is drawn there serves the next run too. */
const folder = join(root, "build", "serving");
const dataDir = join(folder, "data");

/** A backbone with its hybrids, `${name}:gdn-half` and `${name}:gdn-all`. */
export interface ServingSubject {
  readonly name: string;
  /** Flags of graft serve that its measurements share. */
  readonly flags: readonly string[];
  /** Tokens of a prompt and of an answer in the throughput tables. */
  readonly input: number;
  readonly output: number;
}

const common = ["--max-sequences", "128", "--time-kernels"];

/** 0.94M parameters; a real checkpoint where it lies beside this checkout, with random counterparts. */
export const small: ServingSubject = { name: "tiny1m", flags: common, input: 64, output: 128 };

/** 135M parameters with random weights in bfloat16, positions for 32k tokens. */
export const large: ServingSubject = {
  name: "smollm2-135m",
  flags: [...common, "--dtype", "bf16", "--kv-memory", "4GiB", "--state-memory", "2GiB"],
  input: 128,
  output: 64,
};

/** Draws what is not there yet. */
export function prepareSubjects(): void {
  mkdirSync(folder, { recursive: true });
  const store = Store.open(dataDir);
  const wanted = { shape: undefined, model: undefined, variant: ["gdn"] as const, "max-context": undefined, seed: 1 };
  try {
    const model = join(folder, large.name);
    if (!existsSync(model)) writeRandom(store, model, { ...wanted, shape: large.name, "max-context": 32_768 });
    const found = join(process.env.GRAFT_DATA ?? join(root, "..", "shared", "data"), small.name);
    const pools = join(folder, `${small.name}-pools`);
    if (existsSync(pools)) return;
    if (existsSync(found)) writeRandom(store, pools, { ...wanted, model: found });
    else writeRandom(store, join(folder, small.name), { ...wanted, shape: "tiny" });
  } finally {
    store.close();
  }
}

/** Runs `use` with a server of the subject. */
export async function withServer<T>(subject: ServingSubject, use: (target: Target, vocabSize: number) => Promise<T>) {
  const child = await serveChild([subject.name, "--data-dir", dataDir, ...subject.flags]);
  try {
    const target = { url: child.url, apiKey: null };
    return await use(target, (await readStats(target))!.info.vocabSize);
  } finally {
    await child.stop();
  }
}
