// What a text may be, as users say it, to a compiled grammar. Bounded in time and size; what cannot be honoured exactly is
// refused and named.
import { Budget, refuse } from "./budget.ts";
import type { CompiledGrammar } from "./grammar.ts";
import { schemaPiece } from "./json_schema.ts";
import { anyObject } from "./json_text.ts";
import { oneOfTexts, type Piece, written } from "./pieces.ts";
import { regexDfa } from "./regex.ts";
import { Rules } from "./rules.ts";
import { type Tag, taggedPiece } from "./tagged.ts";

export type { CompiledGrammar } from "./grammar.ts";
export type { Tag } from "./tagged.ts";

/** What a text must be. */
export type GrammarSpec =
  | { readonly kind: "json_object" }
  /** `strict` is what the client said; a schema is always followed. */
  | { readonly kind: "json_schema"; readonly schema: unknown; readonly strict?: boolean }
  /** The whole text matches. */
  | { readonly kind: "regex"; readonly pattern: string }
  | { readonly kind: "choice"; readonly choices: readonly string[] }
  /** Free text with marked parts; `required`: it begins with one and holds nothing else; `multiple`: more than one. */
  | { readonly kind: "tagged"; readonly tags: readonly Tag[]; readonly required: boolean; readonly multiple: boolean };

const MAX_CHOICES = 20_000;

/**
 * Compiles a grammar: within about two seconds and some megabytes, or not at all.
 * @throws RequestError ("invalid_schema") naming the place and what is not supported there or too large
 */
export function compileGrammar(spec: GrammarSpec): CompiledGrammar {
  const rules = new Rules(new Budget());
  const root = rules.declare(spec.kind === "json_schema" ? "#" : "");
  rules.define(root, pieceOf(spec, rules));
  return rules.compile(root);
}

function pieceOf(spec: GrammarSpec, rules: Rules): Piece {
  switch (spec.kind) {
    case "json_object":
      return anyObject(rules);
    case "json_schema":
      return schemaPiece(spec.schema, rules);
    case "regex":
      return written(regexDfa(spec.pattern, "whole", rules.budget), "raw", rules.share);
    case "choice": {
      const { choices } = spec;
      if (choices.length === 0 || choices.length > MAX_CHOICES) refuse("", `1 to ${MAX_CHOICES} choices are needed`);
      return oneOfTexts(choices);
    }
    case "tagged":
      return taggedPiece(spec.tags, spec.required, spec.multiple, rules);
  }
}
