// Finds the known word nearest to a mistyped one, for "did you mean" in refusals. Knows nothing of flags or commands.

/**
 * The candidate nearest to `word`, or null when none is near enough to be a likely slip
 * (edits with transpositions, at most a third of the longer word and never more than 3; a prefix always counts).
 */
export function nearest(word: string, candidates: Iterable<string>): string | null {
  let best: string | null = null;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const isPrefix = word.length >= 2 && candidate.startsWith(word);
    const distance = isPrefix ? 0.5 : editDistance(word.toLowerCase(), candidate.toLowerCase());
    const limit = Math.min(3, Math.ceil(Math.max(word.length, candidate.length) / 3));
    if (distance <= limit && distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** ` (did you mean "x"?)`, or an empty string when nothing is near. */
export function suggestion(word: string, candidates: Iterable<string>): string {
  const found = nearest(word, candidates);
  return found === null ? "" : ` (did you mean "${found}"?)`;
}

/** Optimal string alignment distance: insert, delete, replace, swap of neighbours, each at cost 1. */
export function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let cost = Math.min(previous[j]! + 1, current[j - 1]! + 1, replace);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, beforePrevious[j - 2]! + 1);
      }
      current.push(cost);
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[b.length]!;
}
