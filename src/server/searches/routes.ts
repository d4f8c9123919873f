// /v1/searches: start one in the background, follow it, cancel it. When it ends its hybrid is served at once.

import { Elysia, type Static } from "elysia";
import { metricsOf } from "../../eval/evaluate.ts";
import type { Task } from "../../eval/task.ts";
import type { SearchRecord } from "../../store/searches.ts";
import type { TaskRecord } from "../../store/tasks.ts";
import type { ServerContext } from "../context.ts";
import { HttpError, invalidField } from "../errors.ts";
import { existingJob, jobEventsResponse, jobView } from "../job_view.ts";
import { hybridName } from "../names.ts";
import { addTask, jsonLines } from "../tasks/add_task.ts";
import { searchBody } from "./schema.ts";

type SearchBody = Static<typeof searchBody>;
const KIND = "search";

export function searchRoutes(context: ServerContext) {
  return new Elysia({ normalize: false, prefix: "/v1/searches", detail: { tags: ["searches"] } })
    .get("", () => ({
      object: "list",
      data: context.store.jobs.list(KIND).map((job) => searchView(context, job.id, false)),
    }))
    .post(
      "",
      ({ body, set }) => {
        checkModel(context, body.model);
        const stop = stopRule(body);
        checkPool(context, body.variant);
        checkReplace(context, body.replace);
        hybridName(body.task ?? "", context.hybrids.backbone, "task");
        const task = taskOf(context, body);
        checkMetric(task, body.metric);
        const subject = { backbone: context.hybrids.backbone, task: task.name, variant: body.variant };
        const job = context.jobs.submit(KIND, searchArguments(context, body, task, stop), subject);
        set.status = 202;
        set.headers.location = `/v1/searches/${job.id}`;
        return searchView(context, job.id, true);
      },
      { parse: "json", body: searchBody },
    )
    .get("/:id", ({ params }) => {
      existingJob(context, KIND, params.id);
      return searchView(context, params.id, true);
    })
    .get("/:id/events", ({ params, request }) =>
      jobEventsResponse(context, existingJob(context, KIND, params.id), request),
    )
    .delete("/:id", ({ params }) => {
      existingJob(context, KIND, params.id);
      context.jobs.cancel(params.id);
      return searchView(context, params.id, true);
    });
}

function checkModel(context: ServerContext, model: string | undefined): void {
  if (model === undefined || model === context.hybrids.backbone) return;
  throw new HttpError(
    404,
    "model_not_found",
    `Searches run on the served backbone "${context.hybrids.backbone}"`,
    "model",
  );
}

function checkPool(context: ServerContext, variant: string): void {
  const { backbone } = context.hybrids;
  if (context.store.pools.get(backbone, variant) !== null) return;
  const message = `There is no pool of "${variant}" counterparts for "${backbone}": post to /v1/conversions first`;
  throw new HttpError(409, "pool_missing", message, "variant");
}

function checkReplace(context: ServerContext, replace: number | undefined): void {
  const { numLayers } = context.engine.info;
  if (replace === undefined || replace <= numLayers) return;
  throw invalidField("replace", `Invalid "replace": got ${replace}, the model has ${numLayers} layers`);
}

function checkMetric(task: TaskRecord, metric: string | undefined): void {
  const known: readonly string[] = metricsOf(task.kind as Task["kind"]);
  if (metric === undefined || known.includes(metric)) return;
  throw invalidField("metric", `Invalid "metric": got "${metric}", task "${task.name}" has ${known.join(", ")}`);
}

/** The flags of the one stop rule that the body names. */
function stopRule(body: SearchBody): string[] {
  const rules = (["max_drop", "replace", "all"] as const).filter(
    (field) => body[field] !== undefined && body[field] !== false,
  );
  if (rules.length !== 1) {
    const message = `Give exactly one of "max_drop", "replace" and "all", got ${rules.length === 0 ? "none" : rules.join(" and ")}`;
    throw new HttpError(400, "invalid_value", message, rules[1] ?? "max_drop");
  }
  if (rules[0] === "max_drop") return ["--max-drop", String(body.max_drop)];
  return rules[0] === "replace" ? ["--replace", String(body.replace)] : ["--all"];
}

function taskOf(context: ServerContext, body: SearchBody): TaskRecord {
  if (body.task === undefined)
    throw invalidField("task", 'Missing parameter "task": name a posted task, or give documents with a name');
  if (body.documents !== undefined) return addTask(context.store, body.task, jsonLines(body.documents));
  const task = context.store.tasks.get(body.task);
  if (task !== null) return task;
  const known = context.store.tasks.list().map((one) => one.name);
  const hint = known.length === 0 ? "none is posted yet" : `posted: ${known.slice(0, 8).join(", ")}`;
  throw new HttpError(404, "unknown_task", `There is no task "${body.task}" (${hint})`, "task");
}

function searchArguments(
  context: ServerContext,
  body: SearchBody,
  task: TaskRecord,
  stop: readonly string[],
): string[] {
  const named = ["--task", task.path, "--name", task.name];
  const words = [context.hybrids.backbone, ...named, "--variant", body.variant, ...stop];
  if (body.strategy !== undefined) words.push("--strategy", body.strategy);
  if (body.metric !== undefined) words.push("--metric", body.metric);
  if (body.seed !== undefined) words.push("--seed", String(body.seed));
  return words;
}

function searchView(context: ServerContext, id: string, withTrajectory: boolean) {
  const job = context.store.jobs.get(id)!;
  const search = context.store.searches.get(id);
  return {
    ...jobView(job),
    object: "search",
    ...(search === null ? {} : foundView(search)),
    ...(withTrajectory ? { trajectory: trajectory(context, id) } : {}),
  };
}

function foundView(search: SearchRecord) {
  return {
    backbone: search.backbone,
    task: search.task,
    task_sha256: search.taskSha256,
    variant: search.variant,
    metric: search.metric,
    strategy: search.strategy,
    stop: search.stop,
    base_score: search.baseScore,
    best: search.best,
    optimal: search.opt,
  };
}

/** Candidates by round, in the order they were scored. */
function trajectory(context: ServerContext, id: string) {
  const rounds = new Map<number, { round: number; chosen: number | null; candidates: object[] }>();
  for (const one of context.store.candidates.list(id)) {
    const round = rounds.get(one.round) ?? { round: one.round, chosen: null, candidates: [] };
    round.candidates.push({
      layer: one.layer,
      score: one.score,
      num_documents: one.numDocuments,
      seconds: one.seconds,
    });
    if (one.chosen) round.chosen = one.layer;
    rounds.set(one.round, round);
  }
  return [...rounds.values()];
}
