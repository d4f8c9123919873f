// Expands a sentence pattern: {slot} takes a bound word, [a|b|c] takes one of its parts. Knows no words of its own.

import type { Random } from "../random.ts";

/** Words bound to the slots of a pattern. */
export type Slots = Readonly<Record<string, string>>;

/**
 * The sentence of a pattern. Brackets nest no deeper than one level; "a" before a vowel becomes "an".
 * @throws RangeError for a slot that is not bound.
 */
export function expand(random: Random, pattern: string, slots: Slots): string {
  const chosen = pattern.replace(/\[([^\]]*)\]/g, (_, parts: string) => random.pick(parts.split("|")));
  const filled = chosen.replace(/\{(\w+)\}/g, (_, slot: string) => {
    const word = slots[slot];
    if (word === undefined) throw new RangeError(`Cannot expand "${pattern}": slot "${slot}" is not bound`);
    return word;
  });
  return filled
    .replace(/\b([Aa]) (?=[aeiou])/g, "$1n ")
    .replace(/\s+/g, " ")
    .trim();
}

/** With a capital first letter. */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A document in two parts: `given` is read without being predicted (it may be empty), `learned` is predicted. */
export interface Text {
  readonly given: string;
  readonly learned: string;
}
