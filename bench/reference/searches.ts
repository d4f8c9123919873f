// Searches on tiny1m: every subset of layers is scored once per variant, task and part; the searches then run on the table.
import { join } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import { taskEncoder } from "../../src/eval/encoder.ts";
import { evaluate } from "../../src/eval/evaluate.ts";
import { type PreparedTask, prepareTask } from "../../src/eval/requests.ts";
import { readTaskFile } from "../../src/eval/task.ts";
import {
  ReplacementSearch,
  relativeThreshold,
  type Selection,
  selectOptimal,
  type Trajectory,
} from "../../src/search/algorithm1.ts";
import { maskOf } from "../../src/search/search.ts";
import { proposerOf, type StrategyName } from "../../src/search/strategies.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { mean, type Opened, open, type Setting, subsets, VARIANTS } from "./setting.ts";

export const tasks = ["story_cloze_256", "name_recall_256"] as const;
export const searchMetrics = ["acc", "acc_norm"] as const;
type SearchMetric = (typeof searchMetrics)[number];

/** Scores by layers joined with "+" ("" is the base). */
type Table = Readonly<Record<string, number>>;

export interface SearchResult {
  readonly task: string;
  readonly metric: SearchMetric;
  readonly variant: Variant;
  readonly base: { readonly search: number; readonly report: number };
  readonly order: readonly (number | null)[];
  /** After each round of the greedy search. */
  readonly search: readonly number[];
  readonly report: readonly number[];
  readonly best: Selection & { readonly report: number };
  readonly optimal: Selection & { readonly report: number };
  /** Whether greedy found the best subset of each size below all layers. */
  readonly greedyIsBestOfSize: readonly boolean[];
  /** By strategy, then number replaced - 1: search and report score. */
  readonly strategies: Readonly<Record<string, readonly { readonly search: number; readonly report: number }[]>>;
}

const RANDOM_ORDERS = 5;
const MAX_DROP = 0.05;

export async function searchAll(setting: Setting, folders: Readonly<Record<Variant, string>>): Promise<SearchResult[]> {
  const opened = open(
    setting,
    "tiny1m",
    VARIANTS.map((variant) => folders[variant]),
  );
  const results: SearchResult[] = [];
  for (const task of tasks) {
    const [search, report] = [prepare(setting, opened, task, "search"), prepare(setting, opened, task, "report")];
    for (const variant of VARIANTS) {
      const [searchTables, reportTables] = [
        await scoreAll(opened, search, variant),
        await scoreAll(opened, report, variant),
      ];
      for (const metric of searchMetrics) {
        results.push(
          searchOn(task, metric, variant, opened.engine.info.numLayers, searchTables[metric], reportTables[metric]),
        );
      }
      setting.log(`searched ${task} with ${variant}`);
    }
  }
  opened.close();
  return results;
}

function prepare(setting: Setting, opened: Opened, task: string, part: string): PreparedTask {
  return prepareTask(readTaskFile(join(setting.data, "tasks", task, `${part}.jsonl`)), {
    encoder: taskEncoder(Tokenizer.load(opened.model.directory)),
    vocabSize: opened.model.config.vocabSize,
    maxLength: opened.engine.info.maxContext,
  });
}

async function scoreAll(
  { engine }: Opened,
  task: PreparedTask,
  variant: Variant,
): Promise<Record<SearchMetric, Table>> {
  const { numLayers } = engine.info;
  const tables: Record<SearchMetric, Record<string, number>> = { acc: {}, acc_norm: {} };
  for (const layers of subsets(numLayers)) {
    engine.registerHybrid({ name: "scored", layers: maskOf(layers, numLayers, variant) });
    const { metrics } = await evaluate(engine, "scored", task);
    for (const metric of searchMetrics) tables[metric][layers.join("+")] = metrics[metric]!.mean;
  }
  return tables;
}

function searchOn(
  task: string,
  metric: SearchMetric,
  variant: Variant,
  numLayers: number,
  search: Table,
  report: Table,
): SearchResult {
  const at = (table: Table, layers: readonly number[]) => table[layers.join("+")]!;
  const run = (strategy: StrategyName, seed = 1): Trajectory => {
    const machine = new ReplacementSearch({ strategy, numLayers, propose: proposerOf(strategy, numLayers, seed) });
    for (let next = machine.next(); next !== null; next = machine.next()) machine.record(at(search, next.layers));
    return machine.trajectory();
  };
  const scores = (trajectory: Trajectory) =>
    trajectory.rounds.map(({ chosen }) => ({ search: chosen.score, report: at(report, chosen.layers) }));
  const greedy = run("greedy");
  const withReport = (selection: Selection) => ({ ...selection, report: at(report, selection.layers) });
  const randoms = Array.from({ length: RANDOM_ORDERS }, (_, i) => scores(run("random", i + 1)));
  const random = randoms[0]!.map((_, round) => ({
    search: mean(randoms.map((order) => order[round]!.search)),
    report: mean(randoms.map((order) => order[round]!.report)),
  }));
  const sizes = greedy.rounds.slice(0, -1).map(({ round, chosen }) => {
    const ofSize = subsets(numLayers).filter(({ length }) => length === round);
    return chosen.score === Math.max(...ofSize.map((layers) => at(search, layers)));
  });
  return {
    task,
    metric,
    variant,
    base: { search: at(search, []), report: at(report, []) },
    order: greedy.order,
    search: greedy.rounds.map(({ chosen }) => chosen.score),
    report: greedy.rounds.map(({ chosen }) => at(report, chosen.layers)),
    best: withReport(greedy.best),
    optimal: withReport(selectOptimal(greedy, relativeThreshold(greedy.base, MAX_DROP))),
    greedyIsBestOfSize: sizes,
    strategies: { greedy: scores(greedy), local: scores(run("local")), uniform: scores(run("uniform")), random },
  };
}
