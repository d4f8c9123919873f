// Running compiled grammars over texts and byte strings, without tokens.

import { RequestError } from "../../src/errors.ts";
import { type CompiledGrammar, compileGrammar, type GrammarSpec } from "../../src/grammar/compile.ts";
import { DEAD, GrammarMachine } from "../../src/grammar/machine.ts";

/** What a grammar makes of a text: "yes" as a whole, "begins" as a beginning, or "no". */
export type Verdict = "yes" | "begins" | "no";

export function judge(grammar: CompiledGrammar, text: string | Uint8Array): Verdict {
  const machine = new GrammarMachine(grammar);
  let at = machine.start().id;
  for (const byte of typeof text === "string" ? new TextEncoder().encode(text) : text) {
    at = machine.step(at, machine.classOf[byte]!);
    if (at === DEAD) return "no";
  }
  return machine.configuration(at).complete ? "yes" : "begins";
}

export function schemaGrammar(schema: unknown): CompiledGrammar {
  return compileGrammar({ kind: "json_schema", schema });
}

/** The message with which a grammar is refused; "" where it is taken. */
export function refusal(spec: GrammarSpec): string {
  try {
    compileGrammar(spec);
  } catch (error) {
    if (error instanceof RequestError && error.code === "invalid_schema") return error.message;
    throw error;
  }
  return "";
}
