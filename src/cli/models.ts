// graft models: the backbones this data folder knows; add one, forget one.

import { existsSync } from "node:fs";
import { RequestError } from "../errors.ts";
import { Store } from "../store/database.ts";
import type { ModelRecord } from "../store/models.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, JSON_FLAG, UsageError } from "./config.ts";
import { resolveModel } from "./model_argument.ts";
import { type Column, printRows } from "./table.ts";
import { formatAge } from "./terminal.ts";

type Row = ModelRecord & { readonly pools: string; readonly hybrids: number };

const columns: readonly Column<Row>[] = [
  { title: "NAME", cell: (row) => row.name },
  { title: "ARCHITECTURE", cell: (row) => row.architecture },
  { title: "LAYERS", align: "right", cell: (row) => row.numLayers },
  { title: "POOLS", cell: (row) => row.pools },
  { title: "HYBRIDS", align: "right", cell: (row) => row.hybrids },
  { title: "ADDED", cell: (row) => formatAge(Date.now() - row.createdAt) },
  { title: "PATH", cell: (row) => (existsSync(row.path) ? row.path : `${row.path} (missing)`) },
];

export const modelsCommand = defineCommand(
  {
    name: "models",
    summary: "Lists the models of this data folder",
    positionals: ["[ACTION]", "[MODEL]"],
    flags: { "data-dir": DATA_DIR_FLAG, json: JSON_FLAG },
    details:
      "ACTION is list (the default), add FOLDER, or rm NAME, which forgets a model with its hybrids; files stay.",
    examples: ["graft models", "graft models add ./Qwen2.5-1.5B", "graft models rm Qwen2.5-1.5B"],
  },
  async ({ flags, positionals }) => {
    const [action = "list", argument] = positionals;
    const store = Store.open(flags["data-dir"]);
    try {
      if (action === "add" && argument !== undefined) add(store, argument);
      else if (action === "rm" && argument !== undefined) remove(store, argument);
      else if (action !== "list")
        throw new UsageError(`Expected list, add FOLDER or rm NAME, got "${positionals.join(" ")}"`);
      if (action === "list") printRows(columns, rows(store), flags.json);
      return 0;
    } finally {
      store.close();
    }
  },
);

function rows(store: Store): Row[] {
  return store.models.list().map((model) => ({
    ...model,
    pools:
      store.pools
        .list(model.name)
        .map((pool) => pool.variant)
        .join(",") || "-",
    hybrids: store.hybrids.list(model.name).length,
  }));
}

function add(store: Store, folder: string): void {
  const { name, path } = resolveModel(store, folder);
  const known = store.models.get(name);
  if (known === null) store.models.put({ name, path, architecture: null, numLayers: null, fingerprint: null });
  process.stdout.write(`${name}\n`);
}

function remove(store: Store, name: string): void {
  if (store.models.remove(name)) return;
  throw new RequestError("unknown_model", `There is no model "${name}"; graft models lists them`);
}
