// graft tasks: the tasks of this data folder; add a file, forget one.

import { readFileSync } from "node:fs";
import { RequestError } from "../errors.ts";
import { taskNameOf } from "../eval/task.ts";
import { addTask } from "../server/tasks/add_task.ts";
import { Store } from "../store/database.ts";
import { explained } from "../store/store_error.ts";
import type { TaskRecord } from "../store/tasks.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, JSON_FLAG, UsageError } from "./config.ts";
import { checkedName } from "./names.ts";
import { type Column, printRows } from "./table.ts";
import { formatAge } from "./terminal.ts";

const columns: readonly Column<TaskRecord>[] = [
  { title: "NAME", cell: (row) => row.name },
  { title: "KIND", cell: (row) => row.kind },
  { title: "DOCUMENTS", align: "right", cell: (row) => row.numDocuments },
  { title: "SHA256", cell: (row) => row.sha256.slice(0, 12) },
  { title: "ADDED", cell: (row) => formatAge(Date.now() - row.createdAt) },
];

export const tasksCommand = defineCommand(
  {
    name: "tasks",
    summary: "Lists the tasks of this data folder",
    positionals: ["[ACTION]", "[TASK]"],
    flags: {
      name: { type: "string", value: "NAME", help: "name of the added task (default: from the file's)" },
      "data-dir": DATA_DIR_FLAG,
      json: JSON_FLAG,
    },
    details: "ACTION is list (the default), add FILE.jsonl, or rm NAME.",
    examples: ["graft tasks", "graft tasks add recall.jsonl", "graft tasks rm recall"],
  },
  async ({ flags, positionals }) => {
    const [action = "list", argument] = positionals;
    const store = Store.open(flags["data-dir"]);
    try {
      if (action === "add" && argument !== undefined) {
        const name = checkedName(flags.name ?? taskNameOf(argument), "task");
        const text = explained(argument, () => readFileSync(argument, "utf8"));
        process.stdout.write(`${addTask(store, name, text).name}\n`);
      } else if (action === "rm" && argument !== undefined) {
        if (!store.tasks.remove(argument)) {
          throw new RequestError("unknown_task", `There is no task "${argument}"; graft tasks lists them`);
        }
      } else if (action !== "list") {
        throw new UsageError(`Expected list, add FILE or rm NAME, got "${positionals.join(" ")}"`);
      }
      if (action === "list") printRows(columns, store.tasks.list(), flags.json);
      return 0;
    } finally {
      store.close();
    }
  },
);
