// Constraints from compiled grammars for one model, whose vocabulary is asked for when the first request wants it.
import type { CompiledGrammar } from "../grammar/grammar.ts";
import { GrammarConstraints } from "../grammar/token_constraint.ts";
import { TokenVocabulary, type VocabularyData } from "../grammar/vocabulary.ts";
import type { ConstraintFactory } from "./constraint.ts";

/** A factory for CompiledGrammar records. @param vocabulary called once; what it throws refuses the request */
export function grammarConstraints(vocabulary: () => VocabularyData): ConstraintFactory {
  let constraints: GrammarConstraints | null = null;
  return (spec, stopIds) => {
    constraints ??= new GrammarConstraints(new TokenVocabulary(vocabulary()));
    return constraints.create(spec as CompiledGrammar, stopIds);
  };
}
