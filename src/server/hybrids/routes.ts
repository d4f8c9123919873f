// /v1/hybrids: list, register, set default, load, unload, delete. A change is served from the next request on.

import { Elysia, t } from "elysia";
import { BASE_HYBRID, type HybridInfo } from "../../engine/types.ts";
import type { HybridRecord } from "../../store/hybrids.ts";
import type { ServerContext } from "../context.ts";
import { HttpError, invalidField } from "../errors.ts";
import { hybridName } from "../names.ts";
import { maskOf } from "./mask.ts";
import { defaultBody, loadBody, newHybridBody } from "./schema.ts";

export function hybridRoutes(context: ServerContext) {
  const { store, hybrids } = context;
  const { backbone } = hybrids;
  return new Elysia({ normalize: false, prefix: "/v1/hybrids", detail: { tags: ["hybrids"] } })
    .get("", async () => ({ object: "list", backbone, data: await list(context) }))
    .post(
      "",
      async ({ body, set }) => {
        const name = hybridName(body.name, backbone, "name");
        checkAlias(context, body.alias, name);
        const layers = maskOf(body, context.engine.info.numLayers, store);
        const search = body.search ?? null;
        const task = body.task ?? (search === null ? null : (store.searches.get(search)?.task ?? null));
        await register(context, { backbone, name, layers, task, search, alias: body.alias ?? null });
        if (body.default === true) store.transaction(() => store.hybrids.setDefault(backbone, name));
        set.status = 201;
        return find(context, name);
      },
      { parse: "json", body: newHybridBody },
    )
    .put(
      "/default",
      async ({ body }) => {
        const name = body.name.startsWith(`${backbone}:`) ? body.name.slice(backbone.length + 1) : body.name;
        if (name !== BASE_HYBRID && name !== backbone) existing(context, name);
        const target = name === BASE_HYBRID || name === backbone ? null : name;
        store.transaction(() => store.hybrids.setDefault(backbone, target));
        return { object: "list", backbone, data: await list(context) };
      },
      { parse: "json", body: defaultBody },
    )
    .post(
      "/:name/load",
      async ({ params, body }) => {
        const name = known(context, params.name);
        await context.engine.loadHybrid(name, body?.keep_alive);
        return find(context, name);
      },
      { parse: "json", body: t.Optional(loadBody) },
    )
    .post("/:name/unload", async ({ params }) => {
      const name = known(context, params.name);
      await context.engine.unloadHybrid(name);
      return find(context, name);
    })
    .get("/:name", ({ params }) => find(context, params.name))
    .delete("/:name", async ({ params }) => {
      const name = hybridName(params.name, backbone, "name");
      existing(context, name);
      store.transaction(() => store.hybrids.remove(backbone, name));
      await hybrids.sync();
      return { id: `${backbone}:${name}`, object: "hybrid", deleted: true };
    });
}

/** Stores and serves a hybrid; one that the engine refuses is not kept. */
async function register(context: ServerContext, hybrid: Parameters<ServerContext["store"]["hybrids"]["put"]>[0]) {
  const { store, hybrids } = context;
  const before = store.hybrids.get(hybrid.backbone, hybrid.name);
  store.transaction(() => store.hybrids.put(hybrid));
  await hybrids.sync();
  const problem = hybrids.problems.get(hybrid.name);
  if (problem === undefined) return;
  store.transaction(() => {
    store.hybrids.remove(hybrid.backbone, hybrid.name);
    if (before !== null) store.hybrids.put(before, before.createdAt);
    if (before?.isDefault === true) store.hybrids.setDefault(before.backbone, before.name);
  });
  await hybrids.sync();
  throw new HttpError(400, "hybrid_refused", `Cannot serve this hybrid: ${problem}`);
}

function checkAlias(context: ServerContext, alias: string | undefined, name: string): void {
  if (alias === undefined) return;
  const holder = context.hybrids.names().find((served) => served.id === alias);
  if (holder === undefined || (holder.record?.alias === alias && holder.hybrid === name)) return;
  throw invalidField("alias", `Invalid "alias": "${alias}" already means hybrid "${holder.hybrid}"`);
}

/** The engine's name of a hybrid that is served. */
function known(context: ServerContext, given: string): string {
  const { backbone, problems } = context.hybrids;
  const name = given.startsWith(`${backbone}:`) ? given.slice(backbone.length + 1) : given;
  if (name !== BASE_HYBRID) existing(context, name);
  const problem = problems.get(name);
  if (problem !== undefined) throw new HttpError(503, "hybrid_unavailable", `Cannot load hybrid "${name}": ${problem}`);
  return name;
}

function existing(context: ServerContext, name: string): HybridRecord {
  const record = context.store.hybrids.get(context.hybrids.backbone, name);
  if (record !== null) return record;
  throw new HttpError(
    404,
    "unknown_hybrid",
    `There is no hybrid "${name.slice(0, 200)}" of "${context.hybrids.backbone}"`,
  );
}

async function find(context: ServerContext, given: string) {
  const { backbone } = context.hybrids;
  const name = given.startsWith(`${backbone}:`) ? given.slice(backbone.length + 1) : given;
  const found = (await list(context)).find((hybrid) => hybrid.name === name);
  if (found !== undefined) return found;
  return existing(context, name);
}

async function list(context: ServerContext) {
  const { backbone, problems } = context.hybrids;
  const infos = new Map((await context.engine.hybrids()).map((info) => [info.name, info]));
  const records = context.store.hybrids.list(backbone);
  const view = (name: string, record: HybridRecord | null) => {
    const info = infos.get(name);
    return {
      id: `${backbone}:${name}`,
      object: "hybrid",
      name,
      backbone,
      layers: layerTypes(context, record?.layers ?? null),
      num_linear: info?.numLinear ?? null,
      kv_bytes_per_token: info?.kvBytesPerToken ?? null,
      state_bytes: info?.stateBytes ?? null,
      ...residenceOf(info),
      task: record?.task ?? null,
      search: record?.search ?? null,
      metrics: record?.metrics ?? {},
      alias: record?.alias ?? null,
      default: record === null ? !records.some((one) => one.isDefault) : record.isDefault,
      served: info !== undefined && !problems.has(name),
      problem: problems.get(name) ?? null,
      created_at: record === null ? null : Math.floor(record.createdAt / 1000),
    };
  };
  return [view(BASE_HYBRID, null), ...records.map((record) => view(record.name, record))];
}

/** Where the counterparts of a hybrid are; times as Unix seconds. */
function residenceOf(info: HybridInfo | undefined) {
  const { state, totalBytes, loadedBytes, lastUsed, expiresAt } = info?.residence ?? NOWHERE;
  const seconds = (at: number | null) => (at === null ? null : Math.floor(at / 1000));
  return {
    residence: state,
    counterpart_bytes: totalBytes,
    loaded_bytes: loadedBytes,
    last_used_at: seconds(lastUsed),
    expires_at: seconds(expiresAt),
  };
}

const NOWHERE = { state: "unloaded", totalBytes: null, loadedBytes: 0, lastUsed: null, expiresAt: null } as const;

/** What each layer of a mask really runs: the checkpoint's own mixer where the mask is silent. */
function layerTypes(context: ServerContext, mask: HybridRecord["layers"] | null): string[] {
  return context.engine.info.layerTypes.map((own, layer) => mask?.[layer] ?? own);
}
