// Checks posted documents as a task file and keeps them in the data folder. Knows no route.

import { createHash } from "node:crypto";
import { join } from "node:path";
import { parseTask, type Task } from "../../eval/task.ts";
import type { Store } from "../../store/database.ts";
import { writeFileAtomically } from "../../store/files.ts";
import type { TaskRecord } from "../../store/tasks.ts";
import { HttpError } from "../errors.ts";

/** JSON Lines out of a list of documents. */
export function jsonLines(documents: readonly unknown[]): string {
  return documents.map((document) => `${JSON.stringify(document)}\n`).join("");
}

/**
 * Keeps `text` as task `name`; the same name may be posted again and then means the new documents.
 * @throws HttpError 400 naming the line at fault, StoreError when it cannot be written
 */
export function addTask(store: Store, name: string, text: string): TaskRecord {
  const task = checkedTask(name, text);
  const sha256 = createHash("sha256").update(text).digest("hex");
  // A folder per content: a search that runs keeps reading what it began with.
  const path = join(store.dir.tasks, sha256.slice(0, 16), `${name}.jsonl`);
  writeFileAtomically(path, text);
  store.transaction(() =>
    store.tasks.put({ name, path, sha256, kind: task.kind, numDocuments: task.documents.length }),
  );
  return store.tasks.get(name)!;
}

function checkedTask(name: string, text: string): Task {
  try {
    return parseTask(text, name, name);
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) {
      throw new HttpError(400, "invalid_task", error.message, "documents");
    }
    throw error;
  }
}
