// A finished search against the base model on documents that did not choose it. Knows neither store nor command line.
import type { Variant } from "../../models/attention/mixer.ts";
import { type EvaluateOptions, type Evaluation, evaluate, outcomes } from "../eval/evaluate.ts";
import type { PreparedTask } from "../eval/requests.ts";
import { comparePaired, type Metric, type PairedComparison } from "../eval/scoring.ts";
import { maskOf, type SearchEngine } from "./search.ts";

/** One hybrid on the report documents. */
export interface ReportEntry {
  readonly layers: readonly number[];
  readonly score: number;
  readonly standardError: number | null;
  /** Against the base model on the same documents; null for the base itself. */
  readonly paired: PairedComparison | null;
}

/** Scores the base model and several sets of linear layers; a set that occurs twice is scored once. */
export async function reportOn(
  engine: SearchEngine,
  task: PreparedTask,
  metric: Metric,
  variant: Variant,
  sets: readonly (readonly number[])[],
  numLayers: number,
  options: EvaluateOptions = {},
): Promise<Map<string, ReportEntry>> {
  const entries = new Map<string, ReportEntry>();
  const name = "search report";
  let base: Evaluation | undefined;
  for (const layers of [[], ...sets]) {
    const key = layers.join();
    if (entries.has(key)) continue;
    await engine.registerHybrid({ name, layers: maskOf(layers, numLayers, variant) });
    const evaluation = await evaluate(engine, name, task, options);
    base ??= evaluation;
    const { mean, standardError } = evaluation.metrics[metric]!;
    const paired = evaluation === base ? null : comparePaired(outcomes(base, metric), outcomes(evaluation, metric));
    entries.set(key, { layers, score: mean, standardError, paired });
  }
  await engine.removeHybrid(name);
  return entries;
}
