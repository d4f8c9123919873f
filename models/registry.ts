// The backbone families: a literal table.
import type { Architecture } from "./config.ts";
import type { Family } from "./family.ts";
import { gpt2 } from "./gpt2.ts";
import { llama } from "./llama.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

/** Family by `model_type` (of a hybrid: `base_model_type`). */
export const families: Readonly<Record<Architecture, Family>> = { llama, qwen2, qwen3, gpt2 };
