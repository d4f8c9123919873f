// The thread that encodes long texts: an entry point by itself, started by background_encoder.ts.
import { type SpecialTokens, Tokenizer } from "./tokenizer.ts";

/** A text to encode with the tokenizer of a directory. */
export interface EncodeRequest {
  readonly id: number;
  readonly directory: string;
  readonly text: string;
  readonly special: SpecialTokens;
}

/** Its ids, or why there are none. */
export type EncodeReply =
  | { readonly id: number; readonly ids: Int32Array }
  | { readonly id: number; readonly ids: null; readonly error: string };

declare const self: {
  onmessage: ((event: MessageEvent<EncodeRequest>) => void) | null;
  postMessage(message: EncodeReply): void;
};

const loaded = new Map<string, Tokenizer>();

function tokenizerOf(directory: string): Tokenizer {
  const known = loaded.get(directory) ?? Tokenizer.load(directory);
  if (known === null) throw new Error(`No tokenizer in "${directory}"`);
  loaded.set(directory, known);
  return known;
}

self.onmessage = ({ data: { id, directory, text, special } }) => {
  try {
    self.postMessage({ id, ids: Int32Array.from(tokenizerOf(directory).encode(text, special)) });
  } catch (error) {
    self.postMessage({ id, ids: null, error: error instanceof Error ? error.message : String(error) });
  }
};
