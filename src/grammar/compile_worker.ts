// The thread that compiles grammars: an entry point by itself, started by background_compiler.ts.
import { RequestError } from "../errors.ts";
import { type CompiledGrammar, compileGrammar } from "./compile.ts";

/** A GrammarSpec as JSON text. */
export interface CompileRequest {
  readonly text: string;
}

/** The grammar, or why there is none; `refused`: because of the spec. */
export type CompileReply =
  | { readonly grammar: CompiledGrammar }
  | { readonly grammar: null; readonly refused: boolean; readonly error: string };

declare const self: {
  onmessage: ((event: MessageEvent<CompileRequest>) => void) | null;
  postMessage(message: CompileReply): void;
};

self.onmessage = ({ data }) => {
  try {
    self.postMessage({ grammar: compileGrammar(JSON.parse(data.text)) });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    // Nothing but the spec decides how deep and large things get.
    const refused = error instanceof RequestError || error instanceof RangeError;
    self.postMessage({ grammar: null, refused, error: refused ? message : `Cannot compile the grammar: ${message}` });
  }
};
