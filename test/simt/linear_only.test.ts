// A checkpoint without any attention layer: its decode steps repeat and run ahead however long the context is.
import { expect, test } from "bun:test";
import { openEngine } from "../../src/engine/load.ts";
import { tinyHybrid, withTemporary, writeCheckpoint } from "../support/checkpoints.ts";
import { emulator } from "../support/emulator.ts";

test("decode steps of linear layers alone are one program beyond the first page too", () =>
  withTemporary(async (folder) => {
    const config = { ...tinyHybrid, layer_types: ["linear_attention", "linear_attention"] };
    const modelDir = writeCheckpoint(folder, config);
    const opened = await openEngine({ ...emulator, modelDir, pageSize: 8, maxSequences: 2, maxBatchTokens: 16 });
    try {
      opened.engine.generate([{ promptIds: [3, 4, 5, 6], maxTokens: 30 }]);
      const { stepsAhead, stepsReplayed } = opened.engine.stats();
      expect(stepsAhead).toBeGreaterThan(24);
      expect(stepsReplayed).toBeGreaterThan(22);
    } finally {
      opened.close();
    }
  }));
