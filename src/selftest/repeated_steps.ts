// Whether an engine's decode steps are what they are when every op is called in its turn: recorded, begun before the tokens
// of the step before are known, over all kinds of layers. Prints nothing.
import { parseModelConfig } from "../../models/parse_config.ts";
import { createRandomModel, createRandomPool } from "../../models/random_model.ts";
import { createEngine } from "../engine/create.ts";
import type { EngineOptions } from "../engine/types.ts";
import type { Ops } from "../ops/ops.ts";
import { range } from "./case.ts";
import type { SelftestResult } from "./selftest.ts";

const VARIANTS = ["gla", "gdn", "jet"] as const;
const TOKENS = 14;

const config = parseModelConfig({
  ...{ model_type: "llama", hidden_act: "silu", vocab_size: 96, hidden_size: 64, intermediate_size: 64 },
  ...{ num_hidden_layers: 4, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 32 },
  ...{ max_position_embeddings: 64, rms_norm_eps: 1e-5, rope_theta: 10_000, tie_word_embeddings: true },
});

/** Generates the same texts both ways. */
export function repeatedSteps(ops: Ops): SelftestResult {
  const name = `decode steps of 4 layers, ${TOKENS} tokens: repeated and begun ahead`;
  const result = (passed: boolean, error: number | null, detail: string) => ({ name, error, limit: 0, passed, detail });
  try {
    const plain = texts(ops, { recordSteps: false, runAhead: false });
    const repeated = texts(ops, { recordSteps: true, runAhead: true });
    const wrong = plain.findIndex((text, i) => text !== repeated[i]);
    return wrong < 0 ? result(true, 0, "tokens") : result(false, 1, `text ${wrong} is another`);
  } catch (cause) {
    return result(false, null, (cause as Error).message);
  }
}

/** One text of the checkpoint's own layers, and two of a hybrid with every kind of layer. */
function texts(ops: Ops, options: EngineOptions): string[] {
  const model = createRandomModel(ops, config);
  const pools = VARIANTS.map((variant) => createRandomPool(ops, model, variant));
  const sizes = { maxSequences: 4, prefixCacheBytes: 0, pageSize: 4, kvBytes: 1 << 20, stateBytes: 1 << 21 };
  const engine = createEngine(ops, model, { ...sizes, ...options });
  try {
    for (const pool of pools) engine.addPool(pool);
    engine.registerHybrid({ name: "mixed", layers: [...VARIANTS, null] });
    const requests = ["base", "mixed", "mixed"].map((hybrid, i) => ({
      hybrid,
      promptIds: range(3 + 2 * i),
      maxTokens: TOKENS,
      sampling: { temperature: i === 0 ? 0 : 1, seed: i },
    }));
    return engine.generate(requests).map(({ tokenIds }) => tokenIds.join());
  } finally {
    engine.close();
    for (const pool of pools) pool.free();
    model.free();
  }
}
