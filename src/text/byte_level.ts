// GPT-2's byte-level pre-tokenizer with its pattern written out. The library's own copy of the pattern takes JavaScript's
// white space, which counts U+FEFF and not U+0085; a written-out pattern it reads with Unicode's, as Hugging Face does.
import { isObject, type Json } from "./tokenizer_files.ts";

const PATTERN = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** The definition with every byte-level step that splits by itself turned into a split and a step that does not. */
export function withExplicitByteLevel(definition: Json): Json {
  return "pre_tokenizer" in definition
    ? { ...definition, pre_tokenizer: rewrite(definition.pre_tokenizer) }
    : definition;
}

function rewrite(step: unknown): unknown {
  if (!isObject(step)) return step;
  if (step.type === "Sequence" && Array.isArray(step.pretokenizers)) {
    return { ...step, pretokenizers: step.pretokenizers.map(rewrite) };
  }
  // With a prefix space the text changes before it is split.
  if (step.type !== "ByteLevel" || step.use_regex === false || step.add_prefix_space === true) return step;
  const split = { type: "Split", pattern: { Regex: PATTERN }, behavior: "Isolated", invert: false };
  return { type: "Sequence", pretokenizers: [split, { ...step, use_regex: false }] };
}
