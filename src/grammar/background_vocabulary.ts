// Prepares a model's vocabulary in a thread of its own, so that neither HTTP nor the engine waits for it.
import { RequestError } from "../errors.ts";
import { workerUrl } from "../text/worker_url.ts";
import type { VocabularyData } from "./vocabulary.ts";
import type { VocabularyReply, VocabularyRequest } from "./vocabulary_worker.ts";

/** As modelVocabulary(). @throws RequestError, Error where the thread fails */
export async function prepareVocabulary(modelDir: string, vocabSize: number): Promise<VocabularyData> {
  const worker = new Worker(workerUrl(import.meta.url, "vocabulary_worker.ts", "grammar/vocabulary_worker.ts"));
  worker.unref();
  try {
    return await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<VocabularyReply>) => {
        if (data.vocabulary !== null) resolve(data.vocabulary);
        else reject(data.code === null ? new Error(data.error) : new RequestError(data.code, data.error));
      };
      worker.onerror = (event) => reject(new Error(`Cannot prepare the vocabulary: ${event.message}`));
      worker.postMessage({ modelDir, vocabSize } satisfies VocabularyRequest);
    });
  } finally {
    worker.terminate();
  }
}
