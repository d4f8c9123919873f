// Training rows written by the parent itself: sampled at temperature 1 from the prefix token, through the engine. The text a
// model writes is the text its layers see when it is used.
import { existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import type { LoadedModel } from "../../models/model.ts";
import { SafetensorsFile, writeSafetensors } from "../checkpoint/safetensors.ts";
import { makeRowSet, numRows, type RowSet, rowIds } from "../data/rows.ts";
import { createEngine } from "../engine/create.ts";
import type { GenerateRequest, GenerateResult } from "../engine/types.ts";
import type { Ops } from "../ops/ops.ts";
import { noProgress, type Progress } from "../train/progress.ts";

/** The part of an engine that sampling uses. */
export interface SamplingEngine {
  generate(requests: readonly GenerateRequest[]): GenerateResult[] | Promise<GenerateResult[]>;
}

/** How many rows, how long, and from which token. */
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

/**
 * Training rows with sampled ones behind them. What was sampled is kept in `folder`, so that the same
 * conversion, killed or done, does not sample again.
 */
export async function sampleIntoRows(
  ops: Ops,
  model: LoadedModel,
  training: RowSet,
  options: SampleOptions,
  folder: string,
): Promise<RowSet> {
  const { count, rowLength, prefixId, seed } = options;
  const key = JSON.stringify({ count, rowLength, prefixId, seed, backbone: model.identity });
  const path = join(folder, SAMPLED);
  let sampled = readSampled(path, key, rowLength);
  if (sampled === null) {
    sampled = await sampleOnce(ops, model, options);
    writeSampled(path, key, sampled, rowLength);
  }
  const own = Array.from({ length: numRows(training) }, (_, row) => rowIds(training, row));
  return makeRowSet([...own, ...sampled]);
}

const SAMPLED = "sampled_rows.safetensors";

async function sampleOnce(ops: Ops, model: LoadedModel, options: SampleOptions): Promise<Int32Array[]> {
  const engine = createEngine(ops, model, { maxSequences: BATCH, prefillInterference: 0 });
  try {
    return await sampleRows(engine, options);
  } finally {
    engine.close();
  }
}

function readSampled(path: string, key: string, rowLength: number): Int32Array[] | null {
  if (!existsSync(path)) return null;
  const file = new SafetensorsFile(path);
  try {
    if (file.metadata.key !== key) return null;
    const ids = file.int32("ids");
    return Array.from({ length: ids.length / rowLength }, (_, row) =>
      ids.subarray(row * rowLength, (row + 1) * rowLength),
    );
  } finally {
    file.close();
  }
}

function writeSampled(path: string, key: string, rows: readonly Int32Array[], rowLength: number): void {
  mkdirSync(dirname(path), { recursive: true });
  const bytes = () => {
    const { ids } = makeRowSet(rows);
    return new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);
  };
  writeSafetensors(path, [{ name: "ids", dtype: "I32", shape: [rows.length, rowLength], bytes }], { key });
}
