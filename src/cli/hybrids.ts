// graft hybrids: the hybrids of this data folder as strips of layers; choose the default, forget one.

import { RequestError } from "../errors.ts";
import { Store } from "../store/database.ts";
import type { HybridRecord } from "../store/hybrids.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, JSON_FLAG, UsageError } from "./config.ts";
import { askServer, findServer } from "./running_server.ts";
import { suggestion } from "./suggest.ts";
import { type Column, printRows } from "./table.ts";
import { formatAge, formatBytes } from "./terminal.ts";

/** A hybrid, and where its weights are if a server serves it. */
interface Row extends HybridRecord {
  readonly residence: string | null;
  readonly loaded_bytes: number | null;
}

const columns: readonly Column<Row>[] = [
  { title: "NAME", cell: (row) => `${row.backbone}:${row.name}${row.isDefault ? " *" : ""}` },
  { title: "LAYERS", cell: (row) => layerStrip(row.layers) },
  { title: "REPLACED", align: "right", cell: (row) => `${numReplaced(row)}/${row.layers.length}` },
  { title: "TASK", cell: (row) => row.task },
  { title: "SCORE", align: "right", cell: (row) => score(row, "score") },
  { title: "BASE", align: "right", cell: (row) => score(row, "base_score") },
  { title: "MEMORY", align: "right", cell: memory },
  { title: "ALIAS", cell: (row) => row.alias },
  { title: "MADE", cell: (row) => formatAge(Date.now() - row.createdAt) },
];

export const hybridsCommand = defineCommand(
  {
    name: "hybrids",
    summary: "Lists the hybrids of this data folder",
    positionals: ["[ACTION]", "[HYBRID]"],
    flags: {
      "api-key": { type: "string", value: "KEY", help: "key of the running server, if it wants one" },
      "data-dir": DATA_DIR_FLAG,
      json: JSON_FLAG,
    },
    details: `ACTION is list (the default), default BACKBONE:NAME (BACKBONE:base for the full backbone), or rm BACKBONE:NAME.
A strip shows one letter a layer: F full attention, a GLA, d GDN, j JetBlock. * is what the bare name means.
MEMORY is what a running server holds of a hybrid's counterparts: layers in memory count for every hybrid they are part of.`,
    examples: ["graft hybrids", "graft hybrids default tiny:recall", "graft hybrids rm tiny:recall"],
  },
  async ({ flags, positionals }) => {
    const [action = "list", argument] = positionals;
    const store = Store.open(flags["data-dir"]);
    try {
      if (action === "default" && argument !== undefined) setDefault(store, argument);
      else if (action === "rm" && argument !== undefined) remove(store, argument);
      else if (action !== "list") {
        throw new UsageError(`Expected list, default HYBRID or rm HYBRID, got "${positionals.join(" ")}"`);
      }
      if (action === "list") printRows(columns, await rows(store, flags["api-key"]), flags.json);
      return 0;
    } finally {
      store.close();
    }
  },
);

async function rows(store: Store, apiKey: string | undefined): Promise<Row[]> {
  const info = findServer(store);
  const answer = info === null ? null : await askServer<{ data: ServedHybrid[] }>(info, "/v1/hybrids", apiKey);
  const served = new Map((answer?.value?.data ?? []).map((one) => [one.id, one]));
  return store.hybrids.list().map((record) => {
    const one = served.get(`${record.backbone}:${record.name}`);
    return { ...record, residence: one?.residence ?? null, loaded_bytes: one?.loaded_bytes ?? null };
  });
}

interface ServedHybrid {
  readonly id: string;
  readonly residence: string;
  readonly loaded_bytes: number;
}

function memory({ residence, loaded_bytes: bytes }: Row): string | null {
  if (residence === null || bytes === null) return null;
  return residence === "loaded" ? formatBytes(bytes) : residence;
}

const LETTERS: Readonly<Record<string, string>> = { gla: "a", gdn: "d", jet: "j" };

/** One letter per layer. */
export function layerStrip(layers: readonly (string | null)[]): string {
  return layers.map((layer) => (layer === null ? "F" : (LETTERS[layer] ?? "?"))).join("");
}

function numReplaced(row: HybridRecord): number {
  return row.layers.filter((layer) => layer !== null).length;
}

function score(row: HybridRecord, key: string): string | null {
  const value = row.metrics[key];
  return typeof value === "number" ? value.toFixed(4) : null;
}

function setDefault(store: Store, argument: string): void {
  const [backbone, name] = split(argument);
  if (name !== "base") existing(store, argument);
  store.transaction(() => store.hybrids.setDefault(backbone, name === "base" ? null : name));
}

function remove(store: Store, argument: string): void {
  existing(store, argument);
  store.transaction(() => store.hybrids.remove(...split(argument)));
}

function existing(store: Store, argument: string): void {
  if (store.hybrids.get(...split(argument)) !== null) return;
  const names = store.hybrids.list().map((hybrid) => `${hybrid.backbone}:${hybrid.name}`);
  throw new RequestError(
    "unknown_hybrid",
    `There is no hybrid "${argument}"${suggestion(argument, names)}; graft hybrids lists them`,
  );
}

function split(argument: string): [string, string] {
  const colon = argument.indexOf(":");
  if (colon <= 0) throw new UsageError(`Expected BACKBONE:NAME, got "${argument}"`);
  return [argument.slice(0, colon), argument.slice(colon + 1)];
}
