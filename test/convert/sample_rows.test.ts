import { expect, test } from "bun:test";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import { sampleIntoRows, sampleRows } from "../../src/convert/sample_rows.ts";
import { makeRowSet, numRows, rowIds } from "../../src/data/rows.ts";
import { createEngine } from "../../src/engine/create.ts";
import { tinyLlama, withTemporary, writeCheckpoint } from "../support/checkpoints.ts";
import { bestOps } from "../support/kernels.ts";

const options = { count: 70, rowLength: 12, prefixId: 1, seed: 3 };

test("sampleRows() draws whole rows from the prefix, each a function of seed and number", () =>
  withTemporary(async (folder) => {
    const ops = await bestOps();
    const model = loadModel(ops, writeCheckpoint(folder, tinyLlama));
    const engine = createEngine(ops, model);
    const rows = await sampleRows(engine, options);
    expect(rows.length).toBe(70);
    for (const row of rows) {
      expect(row.length).toBe(12);
      expect(row[0]).toBe(1);
    }
    expect(new Set(rows.map(String)).size).toBe(70);
    expect((await sampleRows(engine, { ...options, count: 5 })).map(String)).toEqual(rows.slice(0, 5).map(String));
    expect((await sampleRows(engine, { ...options, count: 5, seed: 4 })).map(String)).not.toEqual(
      rows.slice(0, 5).map(String),
    );
    engine.close();
    model.free();
  }));

test("sampleIntoRows() keeps what it sampled for the same settings alone", () =>
  withTemporary(async (folder) => {
    const ops = await bestOps();
    const model = loadModel(ops, writeCheckpoint(join(folder, "model"), tinyLlama));
    const out = join(folder, "out");
    const own = makeRowSet([[1, 2, 3]]);
    const first = await sampleIntoRows(ops, model, own, options, out);
    expect(numRows(first)).toBe(71);
    expect([...rowIds(first, 0)]).toEqual([1, 2, 3]);
    const [file] = readdirSync(out);
    const kept = await sampleIntoRows(ops, { ...model, backbone: model.backbone }, own, options, out);
    expect(kept.ids).toEqual(first.ids);
    const other = await sampleIntoRows(ops, model, own, { ...options, seed: 9 }, out);
    expect(other.ids).not.toEqual(first.ids);
    rmSync(join(out, file!));
    expect((await sampleIntoRows(ops, model, own, options, out)).ids).toEqual(first.ids);
    model.free();
  }));
