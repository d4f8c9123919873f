// The bundled model's recipe: sizes, tokens, rates, and the config files that follow from them.
// Knows neither how text is made nor how a step is computed.

import { markers } from "./corpus/chat.ts";

/** Everything that decides the result of a training run, besides the code. */
export interface Recipe {
  readonly seed: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** At most this many tokens in the vocabulary. */
  readonly vocabSize: number;
  /** Tokens to train on. */
  readonly tokens: number;
  /** Whole documents are added to a step until it holds at least this many tokens. */
  readonly tokensPerStep: number;
  readonly peakRate: number;
  readonly finalRateShare: number;
  readonly warmupSteps: number;
  readonly weightDecay: number;
  readonly clip: number;
  /** Deviation of a new matrix times the root of its number of inputs, and of the embeddings. */
  readonly initScale: number;
  readonly embeddingScale: number;
}

export const tinyRecipe: Recipe = {
  seed: 1,
  hiddenSize: 96,
  intermediateSize: 192,
  numLayers: 10,
  numHeads: 4,
  numKvHeads: 2,
  headDim: 32,
  vocabSize: 2048,
  tokens: 9_000_000,
  tokensPerStep: 1024,
  peakRate: 3e-3,
  finalRateShare: 0.02,
  warmupSteps: 100,
  weightDecay: 0.1,
  clip: 1,
  initScale: 0.6,
  embeddingScale: 0.05,
};

/** Longest context of the model; documents are far shorter. */
export const maxPositions = 512;

/** Special tokens in the order of their ids. */
export const specialTokens: readonly string[] = [
  markers.begin,
  markers.end,
  markers.user,
  markers.assistant,
  markers.system,
];
export const beginId = 0;
export const endId = 1;

/** config.json: a Qwen3 model with tied embeddings. */
export function configJson(recipe: Recipe, vocabSize: number): Record<string, unknown> {
  return {
    architectures: ["Qwen3ForCausalLM"],
    attention_bias: false,
    attention_dropout: 0.0,
    bos_token_id: beginId,
    eos_token_id: endId,
    head_dim: recipe.headDim,
    hidden_act: "silu",
    hidden_size: recipe.hiddenSize,
    initializer_range: 0.02,
    intermediate_size: recipe.intermediateSize,
    max_position_embeddings: maxPositions,
    model_type: "qwen3",
    num_attention_heads: recipe.numHeads,
    num_hidden_layers: recipe.numLayers,
    num_key_value_heads: recipe.numKvHeads,
    rms_norm_eps: 1e-6,
    rope_scaling: null,
    rope_theta: 10000,
    sliding_window: null,
    tie_word_embeddings: true,
    torch_dtype: "bfloat16",
    use_cache: true,
    use_sliding_window: false,
    vocab_size: vocabSize,
  };
}

/** Jinja source of a conversation: marker, text, end mark; then the assistant's marker. */
const chatTemplate =
  `{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}` +
  `{% if not loop.last or add_generation_prompt or message['role'] != 'assistant' %}{{ '${markers.end}' }}{% endif %}` +
  `{% endfor %}{% if add_generation_prompt %}{{ '${markers.assistant}' }}{% endif %}`;

export function tokenizerConfigJson(): Record<string, unknown> {
  const added = specialTokens.map((content, id) => [
    String(id),
    { content, lstrip: false, normalized: false, rstrip: false, single_word: false, special: true },
  ]);
  return {
    add_bos_token: true,
    add_prefix_space: false,
    added_tokens_decoder: Object.fromEntries(added),
    bos_token: markers.begin,
    chat_template: chatTemplate,
    clean_up_tokenization_spaces: false,
    eos_token: markers.end,
    model_max_length: maxPositions,
    tokenizer_class: "PreTrainedTokenizerFast",
  };
}

export function generationConfigJson(): Record<string, unknown> {
  return {
    bos_token_id: beginId,
    eos_token_id: endId,
    do_sample: true,
    temperature: 0.7,
    top_p: 0.9,
    max_new_tokens: 200,
  };
}
