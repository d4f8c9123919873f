// Short stories of a child, an animal and something lost, found, shared or traded, each told in a few varied ways.
// What is said early (who, where, which color) is said again later: prose that has to be remembered to be predicted.

import type { Random } from "../random.ts";
import { expand, type Slots } from "./grammar.ts";
import { animals, boys, colors, foods, girls, names, natures, places, things, weather } from "./words.ts";

/** A told story and what can be asked about it. */
export interface Story {
  readonly text: string;
  readonly asked: readonly { question: string; answer: string }[];
}

const openings = [
  "[One|On a] {weather} day {hero} went to the {place}.",
  "It was a {weather} day. {hero} was in the {place}.",
  "{hero} lived near the {place}. One {weather} day {he} took a walk.",
  "Once there was a [child|{kid}] named {hero}. {He} liked to play in the {place}.",
];

const possessions = [
  "{He} had a {color} {thing} and {food}.",
  "{He} carried a {color} {thing} in {his} bag.",
  "In {his} hand was a {color} {thing}.",
  "{His} mother gave {him} a {color} {thing}.",
];

const meetings = [
  "There {he} met a {nature} {animal}.",
  "Soon a {nature} {animal} came out of the {place2}.",
  "Near the {place2} {he} saw a {nature} {animal}.",
];

const plots: readonly (readonly string[])[] = [
  [
    '"Hello, {hero}," said the {animal}. "[I lost my|Did you see my] {color2} {thing2}?"',
    '[{hero} wanted to help.|"I will help you," said {hero}.]',
    "They looked in the {place2}, but the {thing2} was not there.",
    "Then they looked in the {place3}. There was the {color2} {thing2}!",
    '[The {animal} was so happy.|"Thank you, {hero}," said the {animal}.]',
  ],
  [
    '"I am hungry," said the {animal}. "Do you have {food}?"',
    "{hero} gave the {animal} {food}.",
    'The {animal} ate the {food} and was happy. "You are kind, {hero}."',
    "From then on the {animal} and {hero} were friends.",
  ],
  [
    '"What a fine {color} {thing}!" said the {animal}. "I have a {color2} {thing2}."',
    "{hero} gave the {animal} the {color} {thing}, and the {animal} gave {hero} the {color2} {thing2}.",
    "Now {hero} had a {color2} {thing2} and the {animal} had a {color} {thing}.",
    "[Both were happy.|It was a good trade.]",
  ],
  [
    "The {animal} took the {color} {thing} and ran to the {place2}.",
    '"Stop!" said {hero}. "That is my {thing}!"',
    "{hero} ran to the {place2} and looked for the {animal}.",
    "The {animal} was sorry and gave back the {color} {thing}.",
  ],
  [
    "{hero} and the {animal} played with the {color} {thing}.",
    "Then {friend} came from the {place3} with a {color2} {thing2}.",
    '"Can I play with you?" said {friend}. "Yes," said {hero}.',
    "{friend} played with the {color} {thing}, and {hero} played with the {color2} {thing2}.",
  ],
];

const endings = [
  "In the evening {hero} went home with the {thing}.",
  "{hero} told {his} mother about the {animal}.",
  "It was a good day for {hero} and the {animal}.",
  "Then {hero} and the {animal} went back to the {place}.",
  "That night {hero} slept well.",
];

function bind(random: Random): Slots {
  const girl = random.chance(0.5);
  const hero = random.pick(girl ? girls : boys);
  const [color, color2] = random.sample(colors, 2);
  const [thing, thing2] = random.sample(things, 2);
  const [place, place2, place3] = random.sample(places, 3);
  return {
    hero, color: color!, color2: color2!, thing: thing!, thing2: thing2!, place: place!, place2: place2!, place3: place3!,
    friend: random.pick(names.filter((name) => name !== hero)),
    animal: random.pick(animals).animal,
    nature: random.pick(natures), weather: random.pick(weather), food: random.pick(foods),
    kid: girl ? "girl" : "boy",
    he: girl ? "she" : "he", He: girl ? "She" : "He", his: girl ? "her" : "his", His: girl ? "Her" : "His",
    him: girl ? "her" : "him",
  }; // biome-ignore format: short slots side by side
}

/** A story; `fixed` sets some of its words (hero, animal). */
export function story(random: Random, fixed: Slots = {}): Story {
  const slots = { ...bind(random), ...fixed };
  const plot = random.below(plots.length);
  const patterns = [
    random.pick(openings),
    random.pick(possessions),
    random.pick(meetings),
    ...plots[plot]!,
    ...random.sample(endings, random.between(1, 2)),
  ];
  const text = patterns.map((pattern) => expand(random, pattern, slots)).join(" ");
  const say = (pattern: string): string => expand(random, pattern, slots);
  const asked = [
    { question: say("Who met the {animal}?"), answer: say("{hero} met the {animal}.") },
    { question: say("What was the color of the {thing}?"), answer: say("The {thing} was {color}.") },
    { question: say("What did {hero} have?"), answer: say("{hero} had a {color} {thing}.") },
  ];
  if (plot === 0)
    asked.push({ question: say("Where was the {thing2}?"), answer: say("The {thing2} was in the {place3}.") });
  if (plot === 1) asked.push({ question: say("What did the {animal} eat?"), answer: say("The {animal} ate {food}.") });
  return { text, asked };
}

/** A story and, most of the time, questions about it. */
export function storyDocument(random: Random): string {
  const { text, asked } = story(random);
  const talk = random.sample(asked, random.below(asked.length + 1));
  return [text, ...talk.map(({ question, answer }) => `${question} ${answer}`)].join(" ");
}
