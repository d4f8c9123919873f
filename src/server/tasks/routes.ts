// /v1/tasks: post, list, delete.

import { Elysia } from "elysia";
import type { TaskRecord } from "../../store/tasks.ts";
import type { ServerContext } from "../context.ts";
import { HttpError } from "../errors.ts";
import { addTask, jsonLines } from "./add_task.ts";
import { taskBody, taskQuery } from "./schema.ts";

export function taskRoutes(context: ServerContext) {
  const { store } = context;
  return new Elysia({ normalize: false, prefix: "/v1/tasks", detail: { tags: ["tasks"] } })
    .get("", () => ({ object: "list", data: store.tasks.list().map(taskView) }))
    .post(
      "",
      ({ body, query, set }) => {
        const name = typeof body === "string" ? query.name : body.name;
        if (name === undefined) {
          throw new HttpError(
            400,
            "missing_parameter",
            'Missing parameter "name": post to /v1/tasks?name=NAME',
            "name",
          );
        }
        const record = addTask(store, name, typeof body === "string" ? body : jsonLines(body.documents));
        set.status = 201;
        return taskView(record);
      },
      { parse: ["json", "text"], body: taskBody, query: taskQuery },
    )
    .get("/:name", ({ params }) => taskView(existing(context, params.name)))
    .delete("/:name", ({ params }) => {
      existing(context, params.name);
      store.transaction(() => store.tasks.remove(params.name));
      return { id: params.name, object: "task", deleted: true };
    });
}

function existing(context: ServerContext, name: string): TaskRecord {
  const record = context.store.tasks.get(name);
  if (record !== null) return record;
  throw new HttpError(404, "unknown_task", `There is no task "${name.slice(0, 200)}"`);
}

function taskView(task: TaskRecord) {
  return {
    id: task.name,
    object: "task",
    kind: task.kind,
    num_documents: task.numDocuments,
    sha256: task.sha256,
    created_at: Math.floor(task.createdAt / 1000),
  };
}
