// Where the messages of a rendered conversation end, found in its ids: works for any template, without knowing it.
import type { Tokenizer } from "./tokenizer.ts";

/**
 * Token counts right behind the ids that end a turn; in a prompt without any, behind every special id. A prompt without
 * special ids has none.
 * @param stopIds ids that end the model's own texts
 */
export function messageEnds(
  ids: readonly number[],
  stopIds: readonly number[],
  tokenizer: Pick<Tokenizer, "specialIds"> | null,
): number[] {
  const ends = endsBehind(ids, new Set(stopIds));
  return ends.length > 0 || tokenizer === null ? ends : endsBehind(ids, tokenizer.specialIds);
}

function endsBehind(ids: readonly number[], marks: ReadonlySet<number>): number[] {
  const ends: number[] = [];
  ids.forEach((id, i) => {
    if (marks.has(id)) ends.push(i + 1);
  });
  return ends;
}
