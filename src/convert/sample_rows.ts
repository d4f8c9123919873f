// Training rows written by the parent itself: sampled at temperature 1 from the prefix token, through the engine. The text a
// model writes is the text its layers see when it is used.
import type { LoadedModel } from "../../models/model.ts";
import { makeRowSet, numRows, type RowSet, rowIds } from "../data/rows.ts";
import { createEngine } from "../engine/create.ts";
import type { GenerateRequest, GenerateResult } from "../engine/types.ts";
import type { Ops } from "../ops/ops.ts";
import { noProgress, type Progress } from "../train/progress.ts";

/** The part of an engine that sampling uses. */
export interface SamplingEngine {
  generate(requests: readonly GenerateRequest[]): GenerateResult[] | Promise<GenerateResult[]>;
}

export interface SampleOptions {
  readonly count: number;
  readonly rowLength: number;
  readonly prefixId: number;
  readonly seed: number;
  readonly progress?: Progress;
}

const BATCH = 64;

/** Rows of exactly rowLength ids, the prefix included; row i depends on (seed, i) alone. */
export async function sampleRows(engine: SamplingEngine, options: SampleOptions): Promise<Int32Array[]> {
  const { count, rowLength, prefixId, seed } = options;
  const rows: Int32Array[] = [];
  for (let first = 0; first < count; first += BATCH) {
    const requests = Array.from({ length: Math.min(BATCH, count - first) }, (_, i) => ({
      promptIds: [prefixId],
      maxTokens: rowLength - 1,
      sampling: { temperature: 1, seed },
      choice: first + i,
    }));
    for (const { tokenIds } of await engine.generate(requests)) rows.push(Int32Array.of(prefixId, ...tokenIds));
    (options.progress ?? noProgress).progress(rows.length, count, "sampled rows");
  }
  return rows;
}

/** Training rows with sampled ones behind them. */
export async function sampleIntoRows(
  ops: Ops,
  model: LoadedModel,
  training: RowSet,
  options: SampleOptions,
): Promise<RowSet> {
  const engine = createEngine(ops, model, { maxSequences: BATCH });
  try {
    const sampled = await sampleRows(engine, options);
    const own = Array.from({ length: numRows(training) }, (_, row) => rowIds(training, row));
    return makeRowSet([...own, ...sampled]);
  } finally {
    engine.close();
  }
}
