// graft search: a task in, hybrids for it out. Algorithm and strategies are in src/search; this file reads the command
// line, keeps the books in the store and shows what was found.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import { VARIANTS } from "../../models/attention/shape.ts";
import { type EvaluateOptions, metricsOf } from "../eval/evaluate.ts";
import { bosPolicies, type PreparedTask } from "../eval/requests.ts";
import { type Metric, metrics } from "../eval/scoring.ts";
import { taskNameOf } from "../eval/task.ts";
import { JobCancelled } from "../jobs/reporter.ts";
import { relativeThreshold, selectOptimal, type Trajectory } from "../search/algorithm1.ts";
import { reportOn } from "../search/report.ts";
import { maskOf, SearchCancelled, type StopRule, search } from "../search/search.ts";
import { StoreLog } from "../search/store_log.ts";
import { strategyNames } from "../search/strategies.ts";
import { Store } from "../store/database.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, type Flags, JOB_FLAG, JSON_FLAG, type ParsedArgs, UsageError } from "./config.ts";
import { type OpenedModel, openModel } from "./eval_engine.ts";
import { DTYPE_FLAG, KERNEL_FLAGS, kernelOptions, MEMORY_FRACTION_FLAG } from "./kernel_flags.ts";
import { type ModelArgument, resolveModel } from "./model_argument.ts";
import { checkedHybridName } from "./names.ts";
import { runReported, type WorkContext } from "./reported.ts";
import { beginSearch, poolTime, recordSearch, type SearchPlan, type SearchReport } from "./search_records.ts";
import { describeSearch } from "./search_table.ts";

const FLAGS = {
  task: { type: "string", value: "FILE", help: "task file to choose layers by (JSONL, see docs/task_format.md)" },
  report: { type: "string", value: "FILE", help: "task file with other documents to report on" },
  name: { type: "string", value: "NAME", help: "name of the hybrid (default: the task's)" },
  variant: { type: "string", choices: VARIANTS, help: "kind of linear layer (default: the one that has a pool)" },
  "max-drop": {
    type: "number",
    min: 0,
    max: 1,
    value: "SHARE",
    help: "largest relative drop of the score (default 0.05)",
  },
  replace: { type: "integer", min: 1, value: "K", help: "replace exactly K layers instead" },
  all: { type: "boolean", help: "follow the trajectory to the last layer" },
  metric: { type: "string", choices: metrics, help: "score to search by (default: acc, or exact_match)" },
  strategy: { type: "string", choices: strategyNames, help: "how layers are chosen", default: "greedy" },
  seed: { type: "integer", min: 0, help: "of the random strategy", default: 1 },
  "best-must-be-feasible": { type: "boolean", help: "never let a hybrid below the threshold become the best one" },
  bos: {
    type: "string",
    choices: bosPolicies,
    help: "bos in front of contexts; auto: as the tokenizer does",
    default: "auto",
  },
  generate: { type: "boolean", help: "completions: decode and compare texts instead of checking the greedy ids" },
  dtype: DTYPE_FLAG,
  "memory-fraction": MEMORY_FRACTION_FLAG,
  ...KERNEL_FLAGS,
  "data-dir": DATA_DIR_FLAG,
  json: JSON_FLAG,
  job: JOB_FLAG,
} as const;

type SearchFlags = Flags<typeof FLAGS>;

export const searchCommand = defineCommand(
  {
    name: "search",
    summary: "Chooses which attention layers of a model can be linear for a task",
    positionals: ["MODEL"],
    flags: FLAGS,
    details: `Replaces layers one by one, each time the one whose replacement scores best on the task, until the score falls more
than --max-drop below the base model's. Registers two hybrids: NAME, the last one that kept to the limit, and NAME-best,
the best-scoring one. An interrupted search is gone on with by the same command and scores nothing twice.`,
    examples: [
      "graft search ./tiny1m --task recall/search.jsonl --report recall/report.jsonl --variant gdn --max-drop 0.05",
      "graft search tiny1m --task cloze.jsonl --all --metric acc_norm --json",
    ],
  },
  async ({ flags, positionals }: ParsedArgs<typeof FLAGS>) => {
    const { task } = flags;
    if (task === undefined) throw new UsageError("There is no task to search for: give --task FILE");
    const stop = stopRule(flags);
    const hybrid = checkedHybridName(flags.name ?? taskNameOf(task));
    const model = positionals[0]!;
    const documents = sha256OfFile(task);
    const pools = poolVersions(flags, model);
    const paths = { model: resolve(model), task: resolve(task), job: undefined };
    const unimportant = { "lib-dir": undefined, "memory-fraction": undefined };
    // A search is not gone on with on another device than the one that was named.
    const device = flags.device === "cuda" ? "cuda" : undefined;
    const identity = { ...flags, ...paths, ...unimportant, device, documents, pools };
    const report = await runReported(
      {
        kind: "search",
        job: flags.job,
        dataDir: flags["data-dir"],
        quiet: flags.json,
        args: [JSON.stringify(identity)],
        subject: { backbone: model, task: flags.name ?? task, variant: flags.variant ?? null },
      },
      (context) => run(context, model, task, hybrid, stop, flags),
    );
    process.stdout.write(flags.json ? `${JSON.stringify(report, null, 2)}\n` : describeSearch(report));
    return 0;
  },
);

/** When the model's pools were made: a search of older ones is not gone on with. */
function poolVersions(flags: SearchFlags, model: string): number[] {
  const store = Store.open(flags["data-dir"]);
  try {
    return store.pools.list(resolveModel(store, model).name).map(({ createdAt }) => createdAt);
  } finally {
    store.close();
  }
}

function stopRule(flags: SearchFlags): StopRule {
  const given = [flags.replace !== undefined, flags.all].filter(Boolean).length;
  if (given === 2 || (flags.replace !== undefined && flags["max-drop"] !== undefined)) {
    throw new UsageError("Give one of --max-drop, --replace and --all (--all may go with --max-drop)");
  }
  if (flags.replace !== undefined) return { replace: flags.replace };
  return flags.all ? { all: true } : { maxDrop: flags["max-drop"] ?? DEFAULT_DROP };
}

const DEFAULT_DROP = 0.05;

async function run(
  context: WorkContext,
  argument: string,
  taskFile: string,
  hybrid: string,
  stop: StopRule,
  flags: SearchFlags,
): Promise<SearchReport> {
  const { store } = context;
  const target = resolveModel(store, argument);
  const opened = await openModel(store, target, kernelOptions(flags), {
    ...(flags.dtype === undefined ? {} : { weightDtype: flags.dtype }),
    ...(flags["memory-fraction"] === undefined ? {} : { memoryFraction: flags["memory-fraction"] }),
  });
  try {
    const task = opened.prepare(taskFile, flags.bos);
    const reportTask = flags.report === undefined ? null : opened.prepare(flags.report, flags.bos);
    const metric = chooseMetric(task, flags.metric);
    const variant = flags.variant ?? onlyVariant(store, target);
    const plan: SearchPlan = {
      id: context.jobId,
      target,
      hybrid,
      task,
      metric,
      variant,
      stop,
    };
    const poolMade = poolTime(store, target.name, variant);
    opened.usePool(variant);
    const start = performance.now();
    beginSearch(store, plan, sha256OfFile(taskFile), flags.strategy);
    const trajectory = await runSearch(context, opened, plan, flags);
    const found = await findings(opened, plan, trajectory, reportTask, flags);
    const report = { ...found, seconds: (performance.now() - start) / 1000 };
    recordSearch(store, report, opened.model.config.numLayers, poolMade);
    return report;
  } catch (error) {
    if (error instanceof SearchCancelled) throw new JobCancelled();
    throw error;
  } finally {
    opened.close();
  }
}

function runSearch(
  { store, reporter }: WorkContext,
  { engine, tokenizer }: OpenedModel,
  { id, task, metric, variant, stop }: SearchPlan,
  flags: SearchFlags,
): Promise<Trajectory> {
  const { numLayers } = engine.info;
  return search({
    engine,
    task,
    metric,
    variant,
    numLayers,
    strategy: flags.strategy,
    stop,
    seed: flags.seed,
    bestMustBeFeasible: flags["best-must-be-feasible"],
    log: new StoreLog(store, id, (layers) => maskOf(layers, numLayers, variant)),
    evaluate: evaluationOptions(tokenizer, flags),
    progress: reporter,
  });
}

/** What the trajectory means, with scores on the report documents where there are any. */
async function findings(
  { engine, tokenizer }: OpenedModel,
  { id, target, hybrid, task, metric, variant, stop }: SearchPlan,
  trajectory: Trajectory,
  reportTask: PreparedTask | null,
  flags: SearchFlags,
): Promise<SearchReport> {
  const { best } = trajectory;
  const limit = relativeThreshold(trajectory.base, flags["max-drop"] ?? DEFAULT_DROP);
  const optimal = "all" in stop ? selectOptimal(trajectory, limit) : trajectory.optimal;
  const sets = [...trajectory.rounds.map(({ chosen }) => chosen.layers), best.layers, optimal.layers];
  const options = evaluationOptions(tokenizer, flags);
  const entries =
    reportTask && (await reportOn(engine, reportTask, metric, variant, sets, engine.info.numLayers, options));
  return {
    search: id,
    model: target.name,
    hybrid,
    variant,
    task: task.name,
    metric,
    bos: task.bos,
    numDocuments: task.documents.length,
    trajectory,
    best,
    optimal,
    report: entries && { numDocuments: reportTask.documents.length, entries: Object.fromEntries(entries) },
    seconds: 0,
  };
}

function evaluationOptions(tokenizer: OpenedModel["tokenizer"], flags: SearchFlags): EvaluateOptions {
  if (!flags.generate) return {};
  return { generate: { decode: (ids) => tokenizer?.decode(ids, { continuation: true }) ?? ids.join(" ") } };
}

/** @throws UsageError where the task's documents do not have that metric */
function chooseMetric(task: PreparedTask, wanted: Metric | undefined): Metric {
  const known = metricsOf(task.kind);
  const metric = wanted ?? known[0]!;
  if (!known.includes(metric)) {
    throw new UsageError(`Cannot search by ${metric}: task "${task.name}" has ${known.join(", ")}`);
  }
  return metric;
}

/** @throws UsageError where there are pools of several variants or none */
function onlyVariant(store: Store, target: ModelArgument): Variant {
  const variants = store.pools.list(target.name).map(({ variant }) => variant as Variant);
  if (variants.length === 1) return variants[0]!;
  const found = variants.length === 0 ? "no pool yet: run graft convert first" : `pools of ${variants.join(", ")}`;
  throw new UsageError(
    `Cannot tell which kind of linear layer is meant: "${target.name}" has ${found}; give --variant`,
  );
}

function sha256OfFile(path: string): string {
  try {
    return createHash("sha256").update(readFileSync(path)).digest("hex");
  } catch (cause) {
    throw new SyntaxError(`Cannot read task "${path}": ${(cause as Error).message}`, { cause });
  }
}
