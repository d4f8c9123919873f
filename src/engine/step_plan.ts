// Lays a batch out for the kernels: rows of all chunks end to end, and per layer the groups of rows that share a token
// mixer. Rows part only here; everything else of a layer sees them together.
import type { MixerBatch, TokenMixer } from "../../models/attention/mixer.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Batch, Chunk } from "./batch.ts";
import type { Hybrid } from "./hybrid.ts";
import type { EngineMemory } from "./memory.ts";
import type { StepTables } from "./step_tables.ts";

/** Rows of one layer that go through one mixer. */
export interface LayerGroup {
  readonly mixer: TokenMixer;
  readonly batch: MixerBatch;
  readonly firstRow: number;
  /** i32[numRows]: where the rows stand among all, when they do not follow one another from firstRow. */
  readonly index: Tensor | null;
}

/** A batch as the kernels see it. */
export interface StepPlan {
  readonly numRows: number;
  /** i32[N] */
  readonly ids: Tensor;
  readonly positions: Tensor;
  /** Groups of every layer. */
  readonly layers: readonly (readonly LayerGroup[])[];
}

/** The consecutive rows of one hybrid. */
interface Span {
  readonly hybrid: Hybrid;
  readonly chunks: Chunk[];
  readonly firstRow: number;
  numRows: number;
}

/** Some spans as one ragged batch, shared by all layers that group them so. */
interface Geometry {
  readonly chunks: readonly Chunk[];
  readonly numRows: number;
  readonly firstRow: number;
  readonly index: Tensor | null;
  readonly seqStart: Tensor;
  readonly startPos: Tensor;
  readonly longest: number;
}

/** Upper bound of the integers that planning a batch takes. */
export function planCapacity(batch: Batch, numLayers: number): number {
  return tableIntegers(batch.numRows, batch.chunks.length, numLayers);
}

/** The same of N rows of S sequences. */
export function tableIntegers(N: number, S: number, numLayers: number): number {
  return 2 * N + numLayers * (N + 4 * S + 1);
}

/**
 * Fills the step's tables; tensors hold their values after send(). Positions go into `moving`, which may be `tables`, all
 * else into `tables`: of batches of the same structure the same tensors.
 * @param longest a bound of positions that holds for later batches of this structure too; 0: the batch's own
 */
export function planStep(
  batch: Batch,
  numLayers: number,
  tables: StepTables,
  moving: StepTables,
  memory: EngineMemory,
  longest = 0,
): StepPlan {
  const ids = tables.take(batch.numRows);
  const positions = moving.take(batch.numRows);
  let row = 0;
  for (const { sequence, start, count } of batch.chunks) {
    for (let p = start; p < start + count; p++, row++) {
      ids.view[ids.at + row] = sequence.tokens[p]!;
      positions.view[positions.at + row] = p;
    }
  }
  const spans = spansOf(batch);
  const geometries = new Map<string, Geometry>();
  const layers: LayerGroup[][] = [];
  for (let layer = 0; layer < numLayers; layer++) {
    const groups = groupByMixer(spans, layer).map(([mixer, members]) => {
      const key = members.length === spans.length ? "all" : members.map((span) => span.hybrid.serial).join();
      let geometry = geometries.get(key);
      if (geometry === undefined) {
        geometry = makeGeometry(members, tables, moving, longest);
        geometries.set(key, geometry);
      }
      return makeGroup(mixer, layer, geometry, tables, memory);
    });
    layers.push(groups);
  }
  return { numRows: batch.numRows, ids: ids.tensor, positions: positions.tensor, layers };
}

function spansOf(batch: Batch): Span[] {
  const spans: Span[] = [];
  let row = 0;
  for (const chunk of batch.chunks) {
    const { hybrid } = chunk.sequence;
    let span = spans.at(-1);
    if (span?.hybrid !== hybrid) {
      span = { hybrid, chunks: [], firstRow: row, numRows: 0 };
      spans.push(span);
    }
    span.chunks.push(chunk);
    span.numRows += chunk.count;
    row += chunk.count;
  }
  return spans;
}

function groupByMixer(spans: readonly Span[], layer: number): [TokenMixer, Span[]][] {
  const groups: [TokenMixer, Span[]][] = [];
  for (const span of spans) {
    const mixer = span.hybrid.mixers[layer]!;
    const group = groups.find(([other]) => other === mixer);
    if (group) group[1].push(span);
    else groups.push([mixer, [span]]);
  }
  return groups;
}

function makeGeometry(spans: readonly Span[], tables: StepTables, moving: StepTables, atLeast: number): Geometry {
  const chunks = spans.flatMap((span) => span.chunks);
  const numRows = spans.reduce((sum, span) => sum + span.numRows, 0);
  const firstRow = spans[0]!.firstRow;
  const seqStart = tables.take(chunks.length + 1);
  const startPos = moving.take(chunks.length);
  let [row, longest] = [0, atLeast];
  chunks.forEach(({ start, count }, s) => {
    seqStart.view[seqStart.at + s] = row;
    startPos.view[startPos.at + s] = start;
    row += count;
    longest = Math.max(longest, start + count);
  });
  seqStart.view[seqStart.at + chunks.length] = row;
  const base = { chunks, numRows, firstRow, seqStart: seqStart.tensor, startPos: startPos.tensor, longest };
  const last = spans.at(-1)!;
  const consecutive = last.firstRow + last.numRows - firstRow === numRows;
  if (consecutive) return { ...base, index: null };
  const index = tables.take(numRows);
  let at = index.at;
  for (const span of spans) {
    for (let from = span.firstRow; from < span.firstRow + span.numRows; from++) index.view[at++] = from;
  }
  return { ...base, index: index.tensor };
}

function makeGroup(
  mixer: TokenMixer,
  layer: number,
  geometry: Geometry,
  tables: StepTables,
  memory: EngineMemory,
): LayerGroup {
  const { chunks, numRows, firstRow, index, seqStart, startPos, longest } = geometry;
  const common = { numRows, numSeqs: chunks.length, seqStart, startPos, longest };
  if (mixer.kind === "full_attention") {
    const tableRows = tables.take(chunks.length);
    chunks.forEach(({ sequence }, s) => {
      tableRows.view[tableRows.at + s] = memory.tableRow(sequence, sequence.hybrid.kvOrdinal[layer]!);
    });
    return { mixer, batch: { ...common, kv: memory.kvBatch(tableRows.tensor) }, firstRow, index };
  }
  const slots = tables.take(chunks.length);
  chunks.forEach(({ sequence }, s) => {
    slots.view[slots.at + s] = sequence.stateSlots[sequence.hybrid.stateOrdinal[layer]!]!;
  });
  // One mixer has one slot shape, whichever hybrid uses it.
  const { hybrid } = chunks[0]!.sequence;
  const shape = hybrid.slots[hybrid.stateOrdinal[layer]!]!;
  return { mixer, batch: { ...common, state: memory.stateBatch(shape, slots.tensor) }, firstRow, index };
}
