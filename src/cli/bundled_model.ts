// The tiny model inside the executable: written once to the data folder, where everything else treats it like any other
// model. Does not know how it was made (graft pretrain, models/tiny/README.md).
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import config from "../../models/tiny/config.json" with { type: "file" };
import generationConfig from "../../models/tiny/generation_config.json" with { type: "file" };
import weights from "../../models/tiny/model.safetensors" with { type: "file" };
import localReport from "../../models/tiny/tasks/local/report.jsonl" with { type: "file" };
import localSearch from "../../models/tiny/tasks/local/search.jsonl" with { type: "file" };
import recallReport from "../../models/tiny/tasks/recall/report.jsonl" with { type: "file" };
import recallSearch from "../../models/tiny/tasks/recall/search.jsonl" with { type: "file" };
import tokenizer from "../../models/tiny/tokenizer.json" with { type: "file" };
import tokenizerConfig from "../../models/tiny/tokenizer_config.json" with { type: "file" };
import { writeFileAtomically } from "../store/files.ts";

/** The name under which the bundled model is found where no model of that name is registered. */
export const BUNDLED_NAME = "tiny";

/** Its two tasks, each with documents to search on and others to report on. */
export const bundledTasks = ["recall", "local"] as const;

// The bundler gives a path for each, whatever the types of JSON modules say.
const files: Readonly<Record<string, unknown>> = {
  "model.safetensors": weights,
  "tokenizer.json": tokenizer,
  "tokenizer_config.json": tokenizerConfig,
  "generation_config.json": generationConfig,
  "tasks/recall/search.jsonl": recallSearch,
  "tasks/recall/report.jsonl": recallReport,
  "tasks/local/search.jsonl": localSearch,
  "tasks/local/report.jsonl": localReport,
  "config.json": config,
};

/**
 * Writes the model below `dataDir` unless this very version is there, and returns its folder. config.json comes last, so
 * that a folder that has one is complete.
 */
export function extractBundledModel(dataDir: string): string {
  const contents = Object.entries(files).map(([name, path]) => [name, readFileSync(path as string)] as const);
  const version = createHash("sha256");
  for (const [, bytes] of contents) version.update(bytes);
  const folder = join(dataDir, "models", `tiny-${version.digest("hex").slice(0, 8)}`);
  if (existsSync(join(folder, "config.json"))) return folder;
  for (const [name, bytes] of contents) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileAtomically(join(folder, name), bytes);
  }
  return folder;
}
