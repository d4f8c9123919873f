// /v1/conversions: distil a pool of counterparts in the background, follow it, cancel it.

import { statSync } from "node:fs";
import { resolve } from "node:path";
import { Elysia, type Static } from "elysia";
import type { ServerContext } from "../context.ts";
import { HttpError, invalidField } from "../errors.ts";
import { existingJob, jobEventsResponse, jobView } from "../job_view.ts";
import { conversionBody } from "./schema.ts";

type ConversionBody = Static<typeof conversionBody>;
const KIND = "convert";

export function conversionRoutes(context: ServerContext) {
  const { backbone } = context.hybrids;
  const view = (id: string) => ({ ...jobView(context.store.jobs.get(id)!), object: "conversion" });
  return new Elysia({ normalize: false, prefix: "/v1/conversions", detail: { tags: ["conversions"] } })
    .get("", () => ({ object: "list", data: context.store.jobs.list(KIND).map((job) => view(job.id)) }))
    .post(
      "",
      ({ body, set }) => {
        if (body.model !== undefined && body.model !== backbone) {
          throw new HttpError(404, "model_not_found", `Conversions run on the served backbone "${backbone}"`, "model");
        }
        const files = body.data.map(dataFile);
        const job = context.jobs.submit(KIND, conversionArguments(backbone, body, files), {
          backbone,
          variant: body.variant,
        });
        set.status = 202;
        set.headers.location = `/v1/conversions/${job.id}`;
        return view(job.id);
      },
      { parse: "json", body: conversionBody },
    )
    .get("/:id", ({ params }) => view(existingJob(context, KIND, params.id).id))
    .get("/:id/events", ({ params, request }) =>
      jobEventsResponse(context, existingJob(context, KIND, params.id), request),
    )
    .delete("/:id", ({ params }) => {
      existingJob(context, KIND, params.id);
      return view(context.jobs.cancel(params.id).id);
    });
}

/** The absolute form of a file or folder, with its slice: `stories.json[100:]`. */
function dataFile(given: string, at: number): string {
  const [, path = given, slice = ""] = /^(.*?)(\[[^\]]*\])?$/s.exec(given) ?? [];
  const found = path.includes("\0") ? undefined : statSync(resolve(path), { throwIfNoEntry: false });
  if (found !== undefined) return resolve(path) + slice;
  const shown = JSON.stringify(path.slice(0, 200));
  throw invalidField(`data[${at}]`, `Invalid "data[${at}]": there is no file ${shown} on the server's machine`);
}

function conversionArguments(backbone: string, body: ConversionBody, files: readonly string[]): string[] {
  const words = [backbone, "--variant", body.variant, ...files.flatMap((file) => ["--data", file])];
  if (body.tokens !== undefined) words.push("--tokens", String(body.tokens));
  if (body.seed !== undefined) words.push("--seed", String(body.seed));
  return words;
}
