// The thread that prepares one model's vocabulary: an entry point by itself, started by background_vocabulary.ts.
import { RequestError } from "../errors.ts";
import { modelVocabulary } from "./model_vocabulary.ts";
import { arraysOf, type VocabularyData } from "./vocabulary.ts";

/** The arguments of modelVocabulary(). */
export interface VocabularyRequest {
  readonly modelDir: string;
  readonly vocabSize: number;
}

/** The vocabulary, or why there is none; `code` null: for no reason that lies in the model. */
export type VocabularyReply =
  | { readonly vocabulary: VocabularyData }
  | { readonly vocabulary: null; readonly code: string | null; readonly error: string };

declare const self: {
  onmessage: ((event: MessageEvent<VocabularyRequest>) => void) | null;
  postMessage(message: VocabularyReply, transfer?: ArrayBufferLike[]): void;
};

self.onmessage = ({ data: { modelDir, vocabSize } }) => {
  try {
    const vocabulary = modelVocabulary(modelDir, vocabSize);
    self.postMessage({ vocabulary }, arraysOf(vocabulary));
  } catch (error) {
    const code = error instanceof RequestError ? error.code : null;
    self.postMessage({ vocabulary: null, code, error: error instanceof Error ? error.message : String(error) });
  }
};
