// Finds and reads a model directory's tokenizer: tokenizer.json, or vocab.json + merges.txt assembled into the same form.
// Knows file layouts only; tokenizer.ts gives them meaning.
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";

/** A parsed JSON object of unknown content. */
export type Json = Record<string, unknown>;

/** A tokenizer as two JSON objects: the definition, and the settings around it. */
export interface TokenizerFiles {
  readonly definition: Json;
  readonly config: Json;
}

/** Larger than any tokenizer known (Gemma's is 34 MB). */
const MAX_FILE_BYTES = 1 << 28;

const QWEN2_PATTERN =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** @returns null where the directory holds no tokenizer. @throws CheckpointError where it holds a broken one. */
export function readTokenizerFiles(directory: string): TokenizerFiles | null {
  const config = readJson(join(directory, "tokenizer_config.json")) ?? {};
  const special = readJson(join(directory, "special_tokens_map.json")) ?? {};
  const settings = { ...special, ...config };
  const definition = readJson(join(directory, "tokenizer.json")) ?? assemble(directory, settings);
  return definition === null ? null : { definition, config: settings };
}

/** One JSON object, or null where there is no such file. @throws CheckpointError */
export function readJson(path: string): Json | null {
  if (!existsSync(path)) return null;
  const bytes = statSync(path).size;
  if (bytes > MAX_FILE_BYTES) {
    throw new CheckpointError(`Cannot read "${path}": ${bytes} bytes, at most ${MAX_FILE_BYTES} expected`);
  }
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new CheckpointError(`Cannot read "${path}": not valid JSON`, { cause });
  }
  if (!isObject(value)) throw new CheckpointError(`Cannot read "${path}": not a JSON object`);
  return value;
}

/** Whether a parsed value is an object and no array. */
export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The text of a special token, given as a string or as an added-token object. */
export function tokenContent(value: unknown): string | null {
  if (typeof value === "string") return value;
  return isObject(value) && typeof value.content === "string" ? value.content : null;
}

/** GPT-2's and Qwen2's older form. The pre-tokenizer follows the tokenizer class that the settings name. */
function assemble(directory: string, settings: Json): Json | null {
  const vocab = readJson(join(directory, "vocab.json"));
  const mergesPath = join(directory, "merges.txt");
  if (vocab === null || !existsSync(mergesPath)) return null;
  const merges = readFileSync(mergesPath, "utf8")
    .split(/\r?\n/)
    .filter((line, i) => line !== "" && !(i === 0 && line.startsWith("#version")));
  const isQwen2 = String(settings.tokenizer_class ?? "").startsWith("Qwen2");
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false };
  return {
    version: "1.0",
    added_tokens: addedTokens(directory, settings, vocab),
    normalizer: isQwen2 ? { type: "NFC" } : null,
    pre_tokenizer: isQwen2
      ? {
          type: "Sequence",
          pretokenizers: [
            { type: "Split", pattern: { Regex: QWEN2_PATTERN }, behavior: "Isolated", invert: false },
            { ...byteLevel, use_regex: false },
          ],
        }
      : { ...byteLevel, use_regex: true },
    post_processor: null,
    decoder: { ...byteLevel, use_regex: true },
    model: { type: "BPE", vocab, merges, unk_token: null, byte_fallback: false, fuse_unk: false },
  };
}

function addedTokens(directory: string, settings: Json, vocab: Json): Json[] {
  const plain = { lstrip: false, rstrip: false, single_word: false, normalized: false };
  const byId = new Map<number, Json>();
  const byName = readJson(join(directory, "added_tokens.json")) ?? {};
  for (const [content, id] of Object.entries(byName)) byId.set(Number(id), { ...plain, content, special: false });
  const decoder = isObject(settings.added_tokens_decoder) ? settings.added_tokens_decoder : {};
  for (const [id, token] of Object.entries(decoder)) {
    if (isObject(token)) byId.set(Number(id), { ...plain, special: false, ...token });
  }
  for (const key of ["bos_token", "eos_token", "unk_token", "pad_token"]) {
    const content = tokenContent(settings[key]);
    if (content !== null && typeof vocab[content] === "number" && !byId.has(vocab[content])) {
      byId.set(vocab[content], { ...plain, content, special: true });
    }
  }
  const endOfText = vocab["<|endoftext|>"];
  if (byId.size === 0 && typeof endOfText === "number") {
    byId.set(endOfText, { ...plain, content: "<|endoftext|>", special: true });
  }
  return [...byId].sort(([a], [b]) => a - b).map(([id, token]) => ({ ...token, id }));
}
