// The vocabulary of a model directory, from its tokenizer.
import { RequestError } from "../errors.ts";
import { Tokenizer } from "../text/tokenizer.ts";
import { buildVocabulary } from "./build_vocabulary.ts";
import type { VocabularyData } from "./vocabulary.ts";

/**
 * Reads the tokenizer and prepares its tokens; takes seconds where there are many.
 * @param vocabSize the model's own, which may be padded beyond the tokenizer's
 * @throws RequestError where there is no tokenizer, or its tokens are no texts by themselves
 */
export function modelVocabulary(modelDir: string, vocabSize: number): VocabularyData {
  const tokenizer = Tokenizer.load(modelDir);
  if (tokenizer === null) {
    throw new RequestError("no_tokenizer", "This model has no tokenizer: its texts cannot follow a grammar");
  }
  if (tokenizer.pieceBytes(0) === null) {
    throw new RequestError("unsupported_constraint", "This model's tokens are no texts by themselves: no grammar fits");
  }
  const { specialIds, bosId, eosId, unkId, padId } = tokenizer;
  const marks = new Set([...specialIds, bosId, eosId, unkId, padId]);
  return buildVocabulary({ vocabSize, bytesOf: (id) => (marks.has(id) ? null : tokenizer.pieceBytes(id)) });
}
