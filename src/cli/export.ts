// graft export: a registered hybrid as a stand-alone Hugging Face directory. Writing it is models/export.ts.
import { resolve } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import { exportHybrid } from "../../models/export.ts";
import { RequestError } from "../errors.ts";
import { Store } from "../store/database.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, JSON_FLAG, type ParsedArgs, UsageError } from "./config.ts";
import { resolveModel } from "./model_argument.ts";

const FLAGS = { "data-dir": DATA_DIR_FLAG, json: JSON_FLAG } as const;

export const exportCommand = defineCommand(
  {
    name: "export",
    summary: "Writes a hybrid as a stand-alone Hugging Face directory",
    positionals: ["MODEL:HYBRID", "OUT"],
    flags: FLAGS,
    details: `The directory holds the complete model: the backbone's own tensors, the linear layers in place of the attention
they replace, layer_types in config.json, tokenizer files. graft loads it back to the same logits.`,
    examples: ["graft export tiny1m:recall ./tiny1m-recall"],
  },
  async ({ flags, positionals }: ParsedArgs<typeof FLAGS>) => {
    const store = Store.open(flags["data-dir"]);
    try {
      const target = resolveModel(store, positionals[0]!);
      if (target.hybrid === null) throw new UsageError("Name the hybrid to export: MODEL:HYBRID");
      const hybrid = store.hybrids.get(target.name, target.hybrid);
      if (hybrid === null) {
        const known = store.hybrids.list(target.name).map(({ name }) => name);
        const hint = known.length === 0 ? "none is registered" : `registered are ${known.join(", ")}`;
        throw new RequestError("unknown_hybrid", `Cannot find hybrid "${target.hybrid}" of "${target.name}": ${hint}`);
      }
      const layers = hybrid.layers as (Variant | null)[];
      const pools = new Map<Variant, string>();
      for (const variant of new Set(layers)) {
        const pool = variant === null ? null : store.pools.get(target.name, variant);
        if (variant !== null && pool !== null) pools.set(variant, pool.path);
      }
      const outDirectory = resolve(positionals[1]!);
      const notes = { source_model: target.name, task: hybrid.task, search: hybrid.search, metrics: hybrid.metrics };
      exportHybrid({ modelDirectory: target.path, pools, layers, outDirectory, notes });
      const result = { model: target.name, hybrid: target.hybrid, layers, directory: outDirectory };
      process.stdout.write(
        flags.json
          ? `${JSON.stringify(result, null, 2)}\n`
          : `Wrote ${target.name}:${target.hybrid} to ${outDirectory}\n`,
      );
      return 0;
    } finally {
      store.close();
    }
  },
);
