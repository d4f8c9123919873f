// graft bench random: a model of a known shape, and counterparts for a model, with random weights on disk and registered, so
// that serving can be measured before anything is downloaded or converted.
import { join, resolve } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import { VARIANTS } from "../../models/attention/shape.ts";
import { readModelConfig } from "../../models/parse_config.ts";
import { writeRandomModel, writeRandomPool } from "../../models/random_files.ts";
import { shapeConfig, shapeNames } from "../../models/shapes.ts";
import { uniformReplacement } from "../bench/uniform.ts";
import { requireFree } from "../checkpoint/directory.ts";
import { Store } from "../store/database.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, type Flags, UsageError } from "./config.ts";
import { resolveModel } from "./model_argument.ts";

const flags = {
  shape: {
    type: "string",
    choices: shapeNames,
    value: "NAME",
    help: `model to draw: ${shapeNames.join(", ")}`,
    env: false,
  },
  model: {
    type: "string",
    value: "MODEL",
    help: "draw counterparts only, for this folder or registered name",
    env: false,
  },
  variant: { type: "string", choices: VARIANTS, multiple: true, help: "counterparts to draw", env: false },
  "max-context": {
    type: "integer",
    min: 2,
    max: 2 ** 24,
    value: "TOKENS",
    help: "positions of the model (default: the shape's)",
    env: false,
  },
  seed: { type: "integer", min: 1, max: 2 ** 31, default: 1, help: "of all values", env: false },
  "data-dir": DATA_DIR_FLAG,
} as const;

export const benchRandomCommand = defineCommand(
  {
    name: "bench random",
    summary: "Writes a model of a known shape with random weights, to measure before downloading",
    positionals: ["DIR"],
    flags,
    details: `Writes DIR as a Hugging Face folder without a tokenizer (prompts are token ids), and for every --variant a pool in
DIR/pools with the hybrids VARIANT-half and VARIANT-all: every second layer replaced, and every layer. With --model only
pools are written, to DIR, and registered for that model.`,
    examples: [
      "graft bench random ./smollm2 --shape smollm2-135m --variant gdn --max-context 32768",
      "graft bench random ./pools --model ./SmolLM2-135M --variant gdn --variant gla",
    ],
  },
  async ({ flags, positionals }) => {
    const store = Store.open(flags["data-dir"]);
    try {
      for (const name of writeRandom(store, positionals[0]!, flags)) process.stdout.write(`${name}\n`);
      return 0;
    } finally {
      store.close();
    }
  },
);

/** What to draw. */
export type RandomFlags = Omit<Flags<typeof flags>, "data-dir">;

/**
 * Writes and registers; answers the names under which it can be served, the bare model first.
 * @throws UsageError, RequestError where something is in the way, CheckpointError if the disk refuses
 */
export function writeRandom(store: Store, directory: string, given: RandomFlags): string[] {
  if ((given.shape === undefined) === (given.model === undefined)) {
    throw new UsageError("Name one thing to draw: --shape NAME, or counterparts for --model MODEL");
  }
  if (given.model !== undefined && given.variant.length === 0) {
    throw new UsageError(`--model needs a --variant: ${VARIANTS.join(" | ")}`);
  }
  requireFree(directory);
  if (given.shape !== undefined) {
    writeRandomModel(directory, shapeConfig(given.shape, given["max-context"]), given.seed);
  }
  const model = resolveModel(store, given.model ?? directory);
  const { architecture, numLayers } = readModelConfig(model.path);
  if (store.models.get(model.name) === null) {
    store.models.put({ name: model.name, path: model.path, architecture, numLayers, fingerprint: null });
  }
  const hybrids = given.variant.flatMap((variant) => {
    const path = resolve(given.shape === undefined ? directory : join(directory, "pools"), variant);
    writeRandomPool(path, model.path, variant, given.seed);
    store.pools.put({ backbone: model.name, variant, path, recipe: { random_weights: true } });
    return [
      register(store, model.name, variant, "half", Math.floor(numLayers / 2), numLayers),
      register(store, model.name, variant, "all", numLayers, numLayers),
    ];
  });
  return [model.name, ...hybrids];
}

function register(store: Store, backbone: string, variant: Variant, part: string, count: number, numLayers: number) {
  const layers = uniformReplacement(numLayers, count).map((linear) => (linear ? variant : null));
  const name = `${variant}-${part}`;
  store.transaction(() => store.hybrids.put({ backbone, name, layers }));
  return `${backbone}:${name}`;
}
