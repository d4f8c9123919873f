// graft pretrain: makes the bundled model, its tokenizer and its tasks from a seed. The method is in src/pretrain; this
// file reads the command line and shows the result.
import { resolve } from "node:path";
import { JobCancelled } from "../jobs/reporter.ts";
import { Ops } from "../ops/ops.ts";
import { writeTasks, writeText } from "../pretrain/model_files.ts";
import { PretrainCancelled, pretrain } from "../pretrain/pretrain.ts";
import { type Recipe, tinyRecipe } from "../pretrain/recipe.ts";
import { defineCommand } from "./command.ts";
import { type Flags, JSON_FLAG, UsageError } from "./config.ts";
import { TRAINING_FLAGS, trainingOptions } from "./kernel_flags.ts";
import { TerminalReporter } from "./progress.ts";

const flags = {
  out: { type: "string", value: "DIR", help: "the model's folder; absent or empty" },
  seed: {
    type: "integer",
    min: 0,
    max: 2 ** 31,
    help: "of the text, the tasks and the first weights",
    default: tinyRecipe.seed,
  },
  tokens: { type: "integer", min: 1, value: "N", help: "tokens to train on", default: tinyRecipe.tokens },
  layers: { type: "integer", min: 1, max: 64, value: "N", help: "layers of the model", default: tinyRecipe.numLayers },
  width: {
    type: "integer",
    min: 8,
    max: 4096,
    value: "N",
    help: "hidden size, twice that in the MLP",
    default: tinyRecipe.hiddenSize,
  },
  text: { type: "string", value: "FILE", help: "write generated documents (JSON Lines) there instead of training" },
  tasks: { type: "string", value: "DIR", help: "write the two task files there instead of training" },
  documents: {
    type: "integer",
    min: 1,
    value: "N",
    help: "documents of --text (default 4000) or of one --tasks file (150)",
  },
  "checkpoint-every": { type: "number", min: 0.01, value: "SECONDS", help: "time between checkpoints", default: 60 },
  restart: { type: "boolean", help: "forget an earlier run with the same --out" },
  ...TRAINING_FLAGS,
  json: JSON_FLAG,
} as const;

export const pretrainCommand = defineCommand(
  {
    name: "pretrain",
    summary: "Trains the bundled tiny model on text and tasks that it generates itself",
    positionals: [],
    flags,
    details: `Writes a Hugging Face folder (Qwen3 architecture, bfloat16) with a tokenizer trained on the same text, and two
multiple-choice tasks in tasks/. An interrupted run is gone on with by the same command. The same seed gives the same text
and tasks everywhere, and the same weights on processors of the same kind.`,
    examples: ["graft pretrain --out ./tiny", "graft pretrain --text corpus.jsonl --documents 4000 --seed 2"],
  },
  async ({ flags }) => {
    if (flags.text !== undefined) {
      writeText(resolve(flags.text), flags.seed, flags.documents ?? 4000);
      return 0;
    }
    if (flags.tasks !== undefined) {
      writeTasks(resolve(flags.tasks), flags.seed, flags.documents ?? 150);
      return 0;
    }
    if (flags.out === undefined || flags.out === "")
      throw new UsageError("--out is missing: where should the model be written?");
    await train(flags, resolve(flags.out));
    return 0;
  },
);

type PretrainFlags = Flags<typeof flags>;

async function train(flags: PretrainFlags, out: string): Promise<void> {
  const ops = await Ops.load(trainingOptions(flags));
  const recipe: Recipe = {
    ...tinyRecipe,
    seed: flags.seed,
    tokens: flags.tokens,
    numLayers: flags.layers,
    hiddenSize: flags.width,
    intermediateSize: 2 * flags.width,
  };
  const reporter = new TerminalReporter();
  try {
    const checkpointSeconds = flags["checkpoint-every"];
    const result = await pretrain({ ops, recipe, out, checkpointSeconds, restart: flags.restart, progress: reporter });
    reporter.close();
    const { numParameters, heldOutLoss, tokens, seconds, tokensPerSecond } = result;
    const summary = `${out}: ${numParameters} parameters, held-out loss ${heldOutLoss.toFixed(4)}
${tokens} tokens in ${seconds.toFixed(0)} s (${Math.round(tokensPerSecond)} tokens/s)\n`;
    process.stdout.write(flags.json ? `${JSON.stringify({ out, ...result }, null, 2)}\n` : summary);
  } catch (error) {
    if (error instanceof PretrainCancelled) throw new JobCancelled();
    throw error;
  } finally {
    reporter.close();
  }
}
