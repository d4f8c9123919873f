// Facts about people: statements, questions that must be answered from the text, and passages of both.
// This is what makes the model recall: an answer is in the context and nowhere else.

import type { Random } from "../random.ts";
import { expand, type Text } from "./grammar.ts";
import { animals, colors, foods, jobs, names, numbers, places, things } from "./words.ts";

/** One kind of fact. In the patterns {n} is the person and {v} the value; an answer ends in the value. */
export interface Relation {
  readonly name: string;
  /** Different values for `count` people. */
  values(random: Random, count: number): string[];
  readonly statements: readonly string[];
  readonly questions: readonly string[];
  /** The start of the answer, up to the value. */
  readonly answer: string;
  readonly who: string;
  readonly whoAnswer: string;
}

export interface Fact {
  readonly relation: Relation;
  readonly person: string;
  readonly value: string;
}

const pairs = (random: Random, count: number): string[] => {
  const shades = random.sample(colors, Math.min(count, colors.length));
  return random.sample(things, count).map((thing, i) => `${shades[i % shades.length]!} ${thing}`);
};

export const relations: readonly Relation[] = [
  {
    name: "place",
    values: (random, count) => random.sample(places, count),
    statements: ["{n} is in the {v}.", "{n} is in the {v}.", "{n} went to the {v}.", "{n} waits in the {v}."],
    questions: ["Where is {n}?"],
    answer: "{n} is in the",
    who: "Who is in the {v}?",
    whoAnswer: "{n} is in the {v}.",
  },
  {
    name: "thing",
    values: pairs,
    statements: ["{n} has a {v}.", "{n} has a {v}.", "{n} found a {v}.", "{n} carries a {v}."],
    questions: ["What does {n} have?"],
    answer: "{n} has the",
    who: "Who has the {v}?",
    whoAnswer: "{n} has the {v}.",
  },
  {
    name: "food",
    values: (random, count) => random.sample(foods, count),
    statements: ["{n} likes {v}.", "{n} likes {v}.", "{n} eats {v} every day."],
    questions: ["What does {n} like?"],
    answer: "{n} likes",
    who: "Who likes {v}?",
    whoAnswer: "{n} likes {v}.",
  },
  {
    name: "job",
    values: (random, count) => random.sample(jobs, count),
    statements: ["{n} is a {v}.", "{n} works as a {v}."],
    questions: ["What is the job of {n}?"],
    answer: "{n} works as a",
    who: "Who works as a {v}?",
    whoAnswer: "{n} works as a {v}.",
  },
  {
    name: "age",
    values: (random, count) => random.sample(numbers.slice(3), count).map((word) => `${word} years old`),
    statements: ["{n} is {v}."],
    questions: ["How old is {n}?"],
    answer: "{n} is",
    who: "Who is {v}?",
    whoAnswer: "{n} is {v}.",
  },
  {
    name: "pet",
    values: (random, count) => random.sample(animals, count).map((entry) => entry.animal),
    statements: ["The pet of {n} is a {v}.", "{n} has a pet {v}."],
    questions: ["What is the pet of {n}?"],
    answer: "The pet of {n} is a",
    who: "Who has a pet {v}?",
    whoAnswer: "{n} has a pet {v}.",
  },
];

/** `people` people with one fact of each of `kinds` kinds, in random order. Values differ within a kind. */
export function drawFacts(random: Random, people: number, kinds: number): Fact[] {
  const persons = random.sample(names, people);
  const facts = random.sample(relations, kinds).flatMap((relation) => {
    const values = relation.values(random, people);
    return persons.map((person, i): Fact => ({ relation, person, value: values[i]! }));
  });
  return random.shuffle(facts);
}

export function statement(random: Random, { relation, person, value }: Fact): string {
  return expand(random, random.pick(relation.statements), { n: person, v: value });
}

/** "Where is Tom? Tom is in the", without the value. */
export function openQuestion(random: Random, { relation, person }: Fact): { question: string; start: string } {
  const slots = { n: person };
  return {
    question: expand(random, random.pick(relation.questions), slots),
    start: expand(random, relation.answer, slots),
  };
}

/** A question and its whole answer; now and then asked the other way round ("Who is in the garden?"). */
export function questionAndAnswer(random: Random, fact: Fact): { question: string; answer: string } {
  if (random.chance(0.25)) {
    const slots = { n: fact.person, v: fact.value };
    return {
      question: expand(random, fact.relation.who, slots),
      answer: expand(random, fact.relation.whoAnswer, slots),
    };
  }
  const { question, start } = openQuestion(random, fact);
  return { question, answer: expand(random, `${start} {v}.`, { v: fact.value }) };
}

/** Statements and then questions about them, all in one text. */
export function factsDocument(random: Random, facts: readonly Fact[], filler: string): Text {
  const told = facts.map((fact) => statement(random, fact));
  if (filler !== "") told.splice(random.below(told.length + 1), 0, filler);
  const asked = random.sample(facts, Math.min(facts.length, random.between(3, 8)));
  const talk = asked.map((fact) => {
    const { question, answer } = questionAndAnswer(random, fact);
    return `${question} ${answer}`;
  });
  return { given: told.join(" "), learned: talk.join(" ") };
}

/** Statements about several people, then the same statements again in another order, once or twice. */
export function retoldDocument(random: Random, people: number): Text {
  const facts = drawFacts(random, people, 1);
  const told = facts.map((fact) => statement(random, fact));
  const again = random.shuffle(told);
  const rounds = random.chance(0.5) ? [again] : [again, random.shuffle(told)];
  return { given: told.join(" "), learned: rounds.map((sentences) => `Again: ${sentences.join(" ")}`).join(" ") };
}

/** Names and values side by side, then the same pairs again in other orders. */
export function pairsDocument(random: Random, people: number): Text {
  const pairs = drawFacts(random, people, 1).map(({ person, value }) => `${person} ${value}.`);
  return { given: pairs.join(" "), learned: [...random.shuffle(pairs), ...random.shuffle(pairs)].join(" ") };
}

const rowWords = [...names, ...colors, ...things, ...places, ...foods, ...jobs, ...numbers];

/** A row of words, and then pieces of it that begin anywhere: what follows a word is what followed it before. */
export function piecesDocument(random: Random, count: number): Text {
  const row = random.sample(rowWords, count);
  const pieces = Array.from({ length: random.between(3, 6) }, () => {
    const start = random.below(count - 2);
    return `${row.slice(start, start + random.between(3, 6)).join(" ")}.`;
  });
  return { given: `Say after me: ${row.join(" ")}.`, learned: pieces.join(" ") };
}
