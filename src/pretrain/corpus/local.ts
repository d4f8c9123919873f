// Sentences that need only their own words: counting, sums, days, opposites, what animals say, agreement, colors.
// What they ask for is known by heart or stands a few words before; nothing is recalled from further back.

import type { Random } from "../random.ts";
import { capital, expand } from "./grammar.ts";
import { animals, colorOf, colors, days, numbers, opposites, verbs } from "./words.ts";

/** A sentence cut before its last word, that word, and words of the same class that would be wrong. */
export interface LocalItem {
  readonly kind: string;
  readonly start: string;
  readonly end: string;
  readonly wrong: readonly string[];
}

function others(all: readonly string[], right: string): string[] {
  return all.filter((word) => word !== right);
}

function counting(random: Random): LocalItem {
  const up = random.chance(0.7);
  const length = random.between(3, 5);
  const first = up ? random.between(1, 20 - length) : random.between(length, 20);
  const run = Array.from({ length: length + 1 }, (_, i) => numbers[up ? first + i : first - i]!);
  const end = run[length]!;
  const start = `${capital(run.slice(0, length).join(", "))},`;
  return { kind: "counting", start, end, wrong: others(numbers, end).filter((word) => !run.includes(word)) };
}

function sum(random: Random): LocalItem {
  const a = random.between(1, 9);
  const b = random.between(1, 9);
  const plus = random.chance(0.6);
  const [x, y, z] = plus ? [a, b, a + b] : [a + b, a, b];
  const start = `${capital(numbers[x]!)} ${plus ? "plus" : "minus"} ${numbers[y]!} is`;
  return { kind: "sum", start, end: numbers[z]!, wrong: others(numbers, numbers[z]!) };
}

function day(random: Random): LocalItem {
  const i = random.below(7);
  const after = random.chance(0.5);
  const end = days[(i + (after ? 1 : 6)) % 7]!;
  const start = `The day ${after ? "after" : "before"} ${days[i]!} is`;
  return { kind: "day", start, end, wrong: others(days, end).filter((word) => word !== days[i]) };
}

function opposite(random: Random): LocalItem {
  const pair = random.pick(opposites);
  const [given, end] = random.chance(0.5) ? pair : [pair[1], pair[0]];
  const wrong = opposites.flat().filter((word) => word !== given && word !== end);
  return { kind: "opposite", start: `The opposite of ${given} is`, end, wrong };
}

function sound(random: Random): LocalItem {
  const { animal, sound: end } = random.pick(animals);
  const wrong = others(animals.map((entry) => entry.sound), end); // biome-ignore format: one line
  return { kind: "sound", start: `The ${animal} says`, end, wrong };
}

function colorFact(random: Random): LocalItem {
  const [what, end] = random.pick(colorOf);
  return { kind: "color", start: `The color of ${what} is`, end, wrong: others(colors, end) };
}

function agreement(random: Random): LocalItem {
  const { animal, plural } = random.pick(animals);
  const [one, many] = random.pick(verbs);
  const singular = random.chance(0.5);
  const nature = random.pick(["", "old ", "big ", "little ", "hungry "]);
  const other = random.pick(verbs.filter(([word]) => word !== one));
  const start = `${singular ? "One" : "Two"} ${nature}${singular ? animal : plural} ${singular ? other[0] : other[1]} and`;
  const wrong = verbs.map((verb) => verb[singular ? 1 : 0]);
  return { kind: "agreement", start, end: singular ? one : many, wrong };
}

const kinds = [counting, counting, sum, sum, sum, day, opposite, sound, colorFact, agreement, agreement];

export function drawLocal(random: Random): LocalItem {
  return random.pick(kinds)(random);
}

/** The whole sentence. */
export function localSentence(random: Random): string {
  const { start, end } = drawLocal(random);
  return `${start} ${end}.`;
}

/** Several such sentences one after the other. */
export function localDocument(random: Random, count: number): string {
  return Array.from({ length: count }, () => localSentence(random)).join(" ");
}

/** A question for a chat and its answer. */
export function localQuestion(random: Random): { question: string; answer: string } {
  const item = random.pick([sum, sum, day, opposite, sound, colorFact])(random);
  const asked: Record<string, string> = {
    sum: "What is {s}?",
    day: "What is {s}?",
    opposite: "What is {s}?",
    sound: "What does {s} say?",
    color: "What is {s}?",
  };
  const subject = item.start.replace(/ (is|says)$/, "");
  const plain = /^The /.test(subject) ? `the ${subject.slice(4)}` : subject.charAt(0).toLowerCase() + subject.slice(1);
  const question = expand(random, asked[item.kind]!, { s: plain });
  return { question, answer: `${item.start} ${item.end}.` };
}
