// A small random Llama and id documents for it, written to a folder: enough for a conversion of a second or two.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { CounterRandom } from "../../src/tensor/random.ts";
import { type Config, tinyLlama, writeCheckpoint } from "../support/checkpoints.ts";

export const convertLlama: Config = { ...tinyLlama, num_hidden_layers: 3, bos_token_id: 1 };

/** Documents of 40 ids that follow a rule, so that there is something to learn. */
export function idDocuments(count: number, seed: number): number[][] {
  const random = new CounterRandom(seed);
  return Array.from({ length: count }, (_, d) => {
    const start = Math.floor(random.uniform(2 * d) * 38);
    const step = 1 + Math.floor(random.uniform(2 * d + 1) * 5);
    return [1, ...Array.from({ length: 39 }, (_, i) => 2 + ((start + i * step) % 38))];
  });
}

/** Writes model/ and ids.jsonl below `folder`. */
export function writeConvertFiles(folder: string, numLayers = 3): { model: string; data: string } {
  const config = { ...convertLlama, num_hidden_layers: numLayers };
  const data = join(folder, "ids.jsonl");
  writeFileSync(
    data,
    idDocuments(200, 5)
      .map((ids) => `${JSON.stringify({ ids })}\n`)
      .join(""),
  );
  return { model: writeCheckpoint(join(folder, "model"), config), data };
}
