// graft search: a task in, hybrids for it out. Algorithm and strategies are in src/search; this file reads the command
// line, keeps the books in the store and shows what was found.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import { VARIANTS } from "../../models/attention/shape.ts";
import { RequestError } from "../errors.ts";
import { type EvaluateOptions, metricsOf } from "../eval/evaluate.ts";
import { type BosPolicy, bosPolicies, type PreparedTask } from "../eval/requests.ts";
import { type Metric, metrics } from "../eval/scoring.ts";
import { JobCancelled } from "../jobs/reporter.ts";
import { relativeThreshold, type Selection, selectOptimal, type Trajectory } from "../search/algorithm1.ts";
import { type ReportEntry, reportOn } from "../search/report.ts";
import { maskOf, SearchCancelled, type StopRule, search } from "../search/search.ts";
import { StoreLog } from "../search/store_log.ts";
import { type StrategyName, strategyNames } from "../search/strategies.ts";
import { Store } from "../store/database.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, type Flags, JOB_FLAG, JSON_FLAG, type ParsedArgs, THREADS_FLAG, UsageError } from "./config.ts";
import { type OpenedModel, openModel } from "./eval_engine.ts";
import { type ModelArgument, resolveModel } from "./model_argument.ts";
import { runReported, type WorkContext } from "./reported.ts";
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
  threads: THREADS_FLAG,
  "data-dir": DATA_DIR_FLAG,
  json: JSON_FLAG,
  job: JOB_FLAG,
} as const;

type SearchFlags = Flags<typeof FLAGS>;

/** What the command answers with, and what is stored with its job. */
export interface SearchReport {
  readonly search: string;
  readonly model: string;
  readonly hybrid: string;
  readonly variant: Variant;
  readonly task: string;
  readonly metric: Metric;
  readonly bos: string;
  readonly numDocuments: number;
  readonly trajectory: Trajectory;
  readonly best: Selection;
  readonly optimal: Selection;
  /** On the documents of --report, by layers joined with commas; null without them. */
  readonly report: { readonly numDocuments: number; readonly entries: Readonly<Record<string, ReportEntry>> } | null;
  readonly seconds: number;
  readonly [key: string]: unknown;
}

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
    const model = positionals[0]!;
    const documents = sha256OfFile(task);
    const pools = poolVersions(flags, model);
    const identity = { ...flags, model: resolve(model), task: resolve(task), documents, pools, job: undefined };
    const report = await runReported(
      {
        kind: "search",
        job: flags.job,
        dataDir: flags["data-dir"],
        quiet: flags.json,
        args: [JSON.stringify(identity)],
        subject: { backbone: model, task: flags.name ?? task, variant: flags.variant ?? null },
      },
      (context) => run(context, model, task, stop, flags),
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

/** @throws RequestError where scores of an interrupted search come from other counterparts */
function refuseNewerPool(store: Store, id: string, target: ModelArgument, variant: Variant): void {
  const [begun, made] = [store.searches.get(id)?.createdAt ?? 0, store.pools.get(target.name, variant)?.createdAt ?? 0];
  if (made <= begun || store.candidates.list(id).length === 0) return;
  throw new RequestError("pool_changed", `Cannot go on with "${id}": its ${variant} pool was made anew since it began`);
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
  stop: StopRule,
  flags: SearchFlags,
): Promise<SearchReport> {
  const { store } = context;
  const target = resolveModel(store, argument);
  const opened = await openModel(store, target, flags.threads);
  try {
    const bos: BosPolicy = flags.bos;
    const task = opened.prepare(taskFile, bos);
    const reportTask = flags.report === undefined ? null : opened.prepare(flags.report, bos);
    const metric = chooseMetric(task, flags.metric);
    const variant = flags.variant ?? onlyVariant(store, target);
    opened.usePool(variant);
    const { numLayers } = opened.model.config;
    const start = performance.now();
    store.searches.begin({
      id: context.jobId,
      backbone: target.name,
      variant,
      task: flags.name ?? task.name,
      taskSha256: sha256OfFile(taskFile),
      metric,
      strategy: flags.strategy,
      stop: { ...stop },
    });
    refuseNewerPool(store, context.jobId, target, variant);
    const evaluateOptions = evaluationOptions(opened, flags);
    const trajectory = await search({
      engine: opened.engine,
      task,
      metric,
      variant,
      numLayers,
      strategy: flags.strategy as StrategyName,
      stop,
      seed: flags.seed,
      bestMustBeFeasible: flags["best-must-be-feasible"],
      log: new StoreLog(store, context.jobId, (layers) => maskOf(layers, numLayers, variant)),
      evaluate: evaluateOptions,
      progress: context.reporter,
    });
    const { best } = trajectory;
    const optimal =
      "all" in stop
        ? selectOptimal(trajectory, relativeThreshold(trajectory.base, flags["max-drop"] ?? DEFAULT_DROP))
        : trajectory.optimal;
    const sets = [...trajectory.rounds.map(({ chosen }) => chosen.layers), best.layers, optimal.layers];
    const entries =
      reportTask === null
        ? null
        : await reportOn(opened.engine, reportTask, metric, variant, sets, numLayers, evaluateOptions);
    const report: SearchReport = {
      search: context.jobId,
      model: target.name,
      hybrid: flags.name ?? task.name,
      variant,
      task: task.name,
      metric,
      bos: task.bos,
      numDocuments: task.documents.length,
      trajectory,
      best,
      optimal,
      report: entries && { numDocuments: reportTask!.documents.length, entries: Object.fromEntries(entries) },
      seconds: (performance.now() - start) / 1000,
    };
    register(store, report, numLayers);
    return report;
  } catch (error) {
    if (error instanceof SearchCancelled) throw new JobCancelled();
    throw error;
  } finally {
    opened.close();
  }
}

function evaluationOptions(opened: OpenedModel, flags: SearchFlags): EvaluateOptions {
  if (!flags.generate) return {};
  const { tokenizer } = opened;
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

function register(store: Store, report: SearchReport, numLayers: number): void {
  const { search: id, model, hybrid, variant, task, metric, trajectory, best, optimal } = report;
  const put = (name: string, selection: Selection) =>
    store.hybrids.put({
      backbone: model,
      name,
      layers: maskOf(selection.layers, numLayers, variant),
      task,
      search: id,
      metrics: {
        metric,
        base_score: trajectory.base,
        score: selection.score,
        num_replaced: selection.layers.length,
        report_score: report.report?.entries[selection.layers.join()]?.score ?? null,
        report_base_score: report.report?.entries[""]?.score ?? null,
      },
    });
  const found = (selection: Selection) => ({
    layers: maskOf(selection.layers, numLayers, variant),
    score: selection.score,
    numReplaced: selection.layers.length,
  });
  store.transaction(() => {
    for (const { round, chosen } of trajectory.rounds) store.candidates.choose(id, round, chosen.layer ?? -1);
    put(hybrid, optimal);
    put(`${hybrid}-best`, best);
    store.searches.setFound(id, found(best), found(optimal));
    store.searches.finish(id);
  });
}

function sha256OfFile(path: string): string {
  try {
    return createHash("sha256").update(readFileSync(path)).digest("hex");
  } catch (cause) {
    throw new SyntaxError(`Cannot read task "${path}": ${(cause as Error).message}`, { cause });
  }
}
