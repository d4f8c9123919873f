// graft bench random: what it writes loads, gives the values of the same model drawn in memory, and is registered.
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import { loadPool } from "../../models/pool.ts";
import { createRandomModel, createRandomPool } from "../../models/random_model.ts";
import { shapeConfig } from "../../models/shapes.ts";
import { writeRandom } from "../../src/cli/bench_random.ts";
import { UsageError } from "../../src/cli/config.ts";
import { createEngine } from "../../src/engine/create.ts";
import { RequestError } from "../../src/errors.ts";
import { Ops } from "../../src/ops/ops.ts";
import { Store } from "../../src/store/database.ts";
import { isas } from "../support/kernels.ts";

const root = mkdtempSync(join(tmpdir(), "graft-random-"));
const store = Store.open(join(root, "data"));
afterAll(() => {
  store.close();
  rmSync(root, { recursive: true });
});

const wanted = { shape: undefined, model: undefined, variant: [], "max-context": undefined, seed: 3 };

test("a drawn model and its pool are served as if they had been created in memory", async () => {
  const directory = join(root, "drawn");
  const names = writeRandom(store, directory, { ...wanted, shape: "tiny", variant: ["gdn"], "max-context": 1024 });
  expect(names).toEqual(["drawn", "drawn:gdn-half", "drawn:gdn-all"]);
  expect(store.hybrids.get("drawn", "gdn-half")!.layers.filter((layer) => layer === "gdn").length).toBe(5);

  const ops = await Ops.load({ isa: isas.at(-1)!, threads: 1 });
  const scores = (model: ReturnType<typeof loadModel>, pool: ReturnType<typeof loadPool>) => {
    const engine = createEngine(ops, model);
    engine.addPool(pool);
    engine.registerHybrid({ name: "half", layers: store.hybrids.get("drawn", "gdn-half")!.layers as ("gdn" | null)[] });
    const [score] = engine.score([{ hybrid: "half", contextIds: [1, 2, 3], continuationIds: [4, 5, 6, 7] }]);
    engine.close();
    return [...score!.logprobs];
  };
  const model = loadModel(ops, directory);
  expect(model.config.maxPositions).toBe(1024);
  const stored = scores(model, loadPool(ops, join(directory, "pools", "gdn"), { dtype: "bf16" }));
  const own = createRandomModel(ops, shapeConfig("tiny"), { seed: 3 });
  expect(stored).toEqual(scores(own, createRandomPool(ops, own, "gdn", { seed: 3 })));
});

test("counterparts alone are registered for the model they are drawn for", () => {
  const names = writeRandom(store, join(root, "more"), { ...wanted, model: "drawn", variant: ["gla"] });
  expect(names).toEqual(["drawn", "drawn:gla-half", "drawn:gla-all"]);
  expect(store.pools.get("drawn", "gla")!.path).toBe(join(root, "more", "gla"));
});

test("what is in the way or unnamed is refused", () => {
  expect(() => writeRandom(store, join(root, "drawn"), { ...wanted, shape: "tiny" })).toThrow(RequestError);
  expect(() => writeRandom(store, join(root, "none"), wanted)).toThrow(UsageError);
  expect(() => writeRandom(store, join(root, "none"), { ...wanted, model: "drawn" })).toThrow(
    "--model needs a --variant",
  );
});
