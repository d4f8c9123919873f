// Each table through its object: what is put comes back typed, and what is refused leaves nothing.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Store } from "../../src/store/database.ts";

let root: string;
let store: Store;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "graft-store-"));
  store = Store.open(root);
  store.models.put({ name: "m", path: "/m", architecture: "LlamaForCausalLM", numLayers: 2, fingerprint: "f" }, 10);
});
afterEach(() => {
  store.close();
  rmSync(root, { recursive: true, force: true });
});

test("models are found by name and path, changed in place, and take their own with them", () => {
  expect(store.models.get("m")).toEqual({
    name: "m",
    path: "/m",
    architecture: "LlamaForCausalLM",
    numLayers: 2,
    fingerprint: "f",
    createdAt: 10,
  });
  expect(store.models.findByPath("/m")?.name).toBe("m");
  store.models.put({ name: "m", path: "/new", architecture: null, numLayers: null, fingerprint: null }, 20);
  expect(store.models.list()).toMatchObject([{ path: "/new", createdAt: 10 }]);
  store.pools.put({ backbone: "m", variant: "gla", path: "/p", recipe: { tokens: 5 } }, 1);
  store.hybrids.put({ backbone: "m", name: "h", layers: [null, "gla"] });
  expect(store.models.remove("m")).toBe(true);
  expect([store.pools.list(), store.hybrids.list(), store.models.remove("m")]).toEqual([[], [], false]);
});

test("a pool belongs to a known model and variant, the newest wins", () => {
  store.pools.put({ backbone: "m", variant: "gla", path: "/p1", recipe: {} }, 1);
  store.pools.put({ backbone: "m", variant: "gla", path: "/p2", recipe: { tokens: 5 } }, 2);
  store.pools.put({ backbone: "m", variant: "jet", path: "/p3", recipe: {} }, 3);
  expect(store.pools.list("m").map(({ variant, path, createdAt }) => [variant, path, createdAt])).toEqual([
    ["gla", "/p2", 2],
    ["jet", "/p3", 3],
  ]);
  expect(store.pools.get("m", "gla")?.recipe).toEqual({ tokens: 5 });
  expect(() => store.pools.put({ backbone: "m", variant: "mamba", path: "/", recipe: {} })).toThrow();
  expect(() => store.pools.put({ backbone: "none", variant: "gla", path: "/", recipe: {} })).toThrow();
  expect([store.pools.remove("m", "jet"), store.pools.remove("m", "jet")]).toEqual([true, false]);
});

test("hybrids keep mask, metrics and alias; there is one default at most", () => {
  const mask = [null, "gla"];
  store.hybrids.put({ backbone: "m", name: "a", layers: mask, task: "t", metrics: { score: 0.5 }, alias: "x" }, 1);
  store.hybrids.put({ backbone: "m", name: "b", layers: ["gla", "gla"] }, 2);
  store.hybrids.setDefault("m", "a");
  store.hybrids.setDefault("m", "b");
  expect(store.hybrids.list().map(({ name, isDefault }) => [name, isDefault])).toEqual([
    ["a", false],
    ["b", true],
  ]);
  expect(store.hybrids.findByAlias("x")).toEqual({
    backbone: "m",
    name: "a",
    layers: mask,
    task: "t",
    search: null,
    metrics: { score: 0.5 },
    alias: "x",
    isDefault: false,
    createdAt: 1,
  });
  // Redirected, a hybrid stays the default and keeps its alias.
  store.hybrids.setDefault("m", "a");
  store.hybrids.put({ backbone: "m", name: "a", layers: ["gla", null] }, 3);
  expect(store.hybrids.get("m", "a")).toMatchObject({ layers: ["gla", null], alias: "x", isDefault: true });
  expect(() => store.hybrids.put({ backbone: "m", name: "c", layers: mask, alias: "x" })).toThrow();
  store.hybrids.setDefault("m", null);
  expect(store.hybrids.list().some(({ isDefault }) => isDefault)).toBe(false);
});

test("events are numbered per job without gaps, also by two connections", () => {
  for (const id of ["j1", "j2"])
    store.jobs.add({ id, kind: "search", origin: "server", args: ["a"], subject: { x: 1 } });
  const other = Store.open(root);
  try {
    expect(store.events.append("j1", "a", { n: 1 }, 5)).toBe(1);
    expect(other.events.append("j1", "b", {}, 6)).toBe(2);
    expect(store.events.append("j2", "a", {}, 7)).toBe(1);
    expect(store.events.append("j1", "c", {}, 8)).toBe(3);
  } finally {
    other.close();
  }
  expect(store.events.after("j1", 1).map(({ seq, kind }) => [seq, kind])).toEqual([
    [2, "b"],
    [3, "c"],
  ]);
  expect(store.events.after("j1", 0, 1)).toEqual([{ job: "j1", seq: 1, time: 5, kind: "a", data: { n: 1 } }]);
  expect(() => store.events.append("none", "a", {})).toThrow();
});

test("a finished job keeps its first ending, and a cancel is never weakened", () => {
  store.jobs.add({ id: "j", kind: "search", origin: "server", args: ["a", "--b"], subject: { task: "t" } }, 1);
  store.jobs.markRunning("j", 2);
  store.jobs.requestStop("j", "cancel");
  store.jobs.requestStop("j", "pause");
  expect(store.jobs.stopRequested("j")).toBe("cancel");
  expect(store.jobs.markFinished("j", "done", { result: { ok: true } }, 3)).toBe(true);
  expect(store.jobs.markFinished("j", "failed", { error: "late" }, 4)).toBe(false);
  expect(store.jobs.get("j")).toEqual({
    id: "j",
    kind: "search",
    origin: "server",
    args: ["a", "--b"],
    subject: { task: "t" },
    state: "done",
    attempts: 1,
    pid: null,
    stopRequested: "cancel",
    progress: null,
    result: { ok: true },
    error: null,
    createdAt: 1,
    startedAt: 2,
    finishedAt: 3,
  });
});

test("candidates are scored once and read in order; scores may be infinite", () => {
  store.jobs.add({ id: "s", kind: "search", origin: "server", args: [], subject: {} });
  const common = { backbone: "m", variant: "gla", task: "t", taskSha256: "h", metric: "acc", strategy: "greedy" };
  store.searches.begin({ id: "s", ...common, stop: { maxDrop: 0.05 } }, 1);
  store.searches.begin({ id: "s", ...common, stop: { all: true } }, 2);
  expect(store.searches.get("s")).toMatchObject({ stop: { maxDrop: 0.05 }, createdAt: 1, best: null });
  const candidate = { search: "s", round: 1, numDocuments: 3, seconds: 0.5 };
  store.candidates.add({ ...candidate, layer: 1, layers: [null, "gla"], score: Number.NEGATIVE_INFINITY });
  store.candidates.add({ ...candidate, layer: 0, layers: ["gla", null], score: 0.25 });
  store.candidates.add({ ...candidate, layer: 0, layers: ["gla", null], score: 0.75 });
  store.candidates.choose("s", 1, 0);
  expect(store.candidates.list("s").map(({ layer, score, chosen }) => [layer, score, chosen])).toEqual([
    [0, 0.25, true],
    [1, Number.NEGATIVE_INFINITY, false],
  ]);
  store.jobs.remove("s");
  expect([store.searches.list(), store.candidates.list("s")]).toEqual([[], []]);
});

test("evaluations are listed newest first", () => {
  const one = { backbone: "m", layers: [null, null], task: "t", taskSha256: "h", metric: "acc", numDocuments: 4 };
  store.evaluations.add({ ...one, score: 0.5, details: { stderr: 0.1 } }, 1);
  store.evaluations.add({ ...one, task: "u", score: 0.6, details: {} }, 2);
  store.evaluations.add({ ...one, score: 0.7, details: {} }, 3);
  expect(store.evaluations.list("m").map(({ score }) => score)).toEqual([0.7, 0.6, 0.5]);
  expect(store.evaluations.list("m", "t").map(({ score }) => score)).toEqual([0.7, 0.5]);
});

test("another connection's commit is seen as a new version, one's own is not", () => {
  const other = Store.open(root);
  try {
    const version = store.foreignVersion();
    store.models.put({ name: "n", path: "/n", architecture: null, numLayers: null, fingerprint: null });
    expect(store.foreignVersion()).toBe(version);
    other.models.remove("n");
    expect(store.foreignVersion()).not.toBe(version);
  } finally {
    other.close();
  }
});
