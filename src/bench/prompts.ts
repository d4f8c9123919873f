// Prompts of random ids: no two alike, so that nothing can be shared between them.
import { CounterRandom } from "../tensor/random.ts";

/** `count` prompts of `length` ids each, uniform over the vocabulary. */
export function randomPrompts(vocabSize: number, count: number, length: number, seed = 1): Int32Array[] {
  return Array.from({ length: count }, (_, s) => {
    const random = new CounterRandom(seed, s);
    return Int32Array.from({ length }, (_, i) => Math.floor(random.uniform(i) * vocabSize));
  });
}
