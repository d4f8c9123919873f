// What graft search writes down: the search itself, which candidates won, the hybrids it found. Runs nothing.
import type { Variant } from "../../models/attention/mixer.ts";
import { RequestError } from "../errors.ts";
import type { PreparedTask } from "../eval/requests.ts";
import type { Metric } from "../eval/scoring.ts";
import type { Selection, Trajectory } from "../search/algorithm1.ts";
import type { ReportEntry } from "../search/report.ts";
import { maskOf, type StopRule } from "../search/search.ts";
import type { Store } from "../store/database.ts";
import type { ModelArgument } from "./model_argument.ts";

/** A search about to run. */
export interface SearchPlan {
  /** The job's id. */
  readonly id: string;
  readonly target: ModelArgument;
  /** Name under which its result is registered. */
  readonly hybrid: string;
  readonly task: PreparedTask;
  readonly metric: Metric;
  readonly variant: Variant;
  readonly stop: StopRule;
}

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

/**
 * Records that a search begins, or is gone on with.
 * @throws RequestError where scores of an interrupted search come from other counterparts than there are now
 */
export function beginSearch(store: Store, plan: SearchPlan, taskSha256: string, strategy: string): void {
  const { id, target, hybrid, metric, variant, stop } = plan;
  const backbone = target.name;
  store.searches.begin({ id, backbone, variant, task: hybrid, taskSha256, metric, strategy, stop: { ...stop } });
  const [begun, made] = [store.searches.get(id)?.createdAt ?? 0, poolTime(store, backbone, variant)];
  if (made <= begun || store.candidates.list(id).length === 0) return;
  throw new RequestError("pool_changed", `Cannot go on with "${id}": its ${variant} pool was made anew since it began`);
}

/** When the pool of a backbone was made; 0 where there is none. */
export function poolTime(store: Store, backbone: string, variant: string): number {
  return store.pools.get(backbone, variant)?.createdAt ?? 0;
}

/**
 * Records the end of a search and registers the optimal hybrid under its name, the best one under NAME-best.
 * @param poolMade poolTime() of the counterparts that were scored
 * @throws RequestError where the pool is another one by now: what was found would be served with other counterparts
 */
export function recordSearch(store: Store, report: SearchReport, numLayers: number, poolMade: number): void {
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
    if (poolTime(store, model, variant) !== poolMade) {
      const reason = `the ${variant} pool of "${model}" was made anew while it ran; search again`;
      throw new RequestError("pool_changed", `Cannot use the result of "${id}": ${reason}`);
    }
    for (const { round, chosen } of trajectory.rounds) store.candidates.choose(id, round, chosen.layer ?? -1);
    put(hybrid, optimal);
    put(`${hybrid}-best`, best);
    store.searches.setFound(id, found(best), found(optimal));
    store.searches.finish(id);
  });
}
