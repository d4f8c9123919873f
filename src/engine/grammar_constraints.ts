// Constraints from compiled grammars for one model: its tokenizer is read and its vocabulary prepared when the first
// request wants it.
import { RequestError } from "../errors.ts";
import type { CompiledGrammar } from "../grammar/grammar.ts";
import { GrammarConstraints } from "../grammar/token_constraint.ts";
import { TokenVocabulary } from "../grammar/vocabulary.ts";
import { Tokenizer } from "../text/tokenizer.ts";
import type { ConstraintFactory } from "./constraint.ts";

/** A factory for CompiledGrammar records. @param vocabSize the model's own, which may be padded beyond the tokenizer's */
export function grammarConstraints(modelDir: string, vocabSize: number): ConstraintFactory {
  let constraints: GrammarConstraints | null = null;
  return (spec, stopIds) => {
    constraints ??= new GrammarConstraints(modelVocabulary(modelDir, vocabSize));
    return constraints.create(spec as CompiledGrammar, stopIds);
  };
}

/** @throws RequestError where the tokens are no texts by themselves */
function modelVocabulary(modelDir: string, vocabSize: number): TokenVocabulary {
  const tokenizer = Tokenizer.load(modelDir);
  if (tokenizer === null) {
    throw new RequestError("no_tokenizer", "This model has no tokenizer: its texts cannot follow a grammar");
  }
  if (tokenizer.pieceBytes(0) === null) {
    throw new RequestError("unsupported_constraint", "This model's tokens are no texts by themselves: no grammar fits");
  }
  const { specialIds, bosId, eosId, unkId, padId } = tokenizer;
  const marks = new Set([...specialIds, bosId, eosId, unkId, padId]);
  return new TokenVocabulary({ vocabSize, bytesOf: (id) => (marks.has(id) ? null : tokenizer.pieceBytes(id)) });
}
