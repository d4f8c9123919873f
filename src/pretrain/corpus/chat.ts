// Conversations: a question about facts or a story in the message, sums and other things known by heart, greetings.
// The markers are those of the chat template in tokenizer_config.json.

import type { Random } from "../random.ts";
import { drawFacts, questionAndAnswer, statement } from "./facts.ts";
import { expand } from "./grammar.ts";
import { localQuestion } from "./local.ts";
import { story } from "./story.ts";
import { animals, names } from "./words.ts";

export const markers = {
  begin: "<|begin|>",
  end: "<|end|>",
  user: "<|user|>",
  assistant: "<|assistant|>",
  system: "<|system|>",
};

interface Turn {
  readonly question: string;
  readonly answer: string;
}

const greetings: readonly Turn[] = [
  { question: "[Hello!|Hello.|Hello|Hi|Hi!|Good day!]", answer: "Hello! How can I help you?" },
  { question: "[Hello, I am {n}.|My name is {n}.|Hi, I am {n}!]", answer: "Hello, {n}! How can I help you?" },
  { question: "[Thank you!|Thank you.|Thank you]", answer: "You are welcome!" },
  {
    question: "[Who are you?|What are you?]",
    answer: "I am a little model. I know stories, sums and facts that you tell me.",
  },
  { question: "[How are you?|How are you today?]", answer: "I am happy today. How can I help you?" },
];

function factTurns(random: Random): Turn[] {
  const facts = drawFacts(random, random.between(1, 6), random.between(1, 2));
  const told = facts.map((fact) => statement(random, fact)).join(" ");
  const asked = random.sample(facts, Math.min(facts.length, random.between(1, 3)));
  return asked.map((fact, i) => {
    const { question, answer } = questionAndAnswer(random, fact);
    return { question: i === 0 ? `${told} ${question}` : question, answer };
  });
}

function storyTurns(random: Random): Turn[] {
  if (random.chance(0.4)) {
    const told = story(random);
    const { question, answer } = random.pick(told.asked);
    return [{ question: `${told.text} ${question}`, answer }];
  }
  const hero = random.pick(names);
  const { animal } = random.pick(animals);
  const slots = { n: hero, animal };
  const question = expand(random, "Tell me a story[| about {n}| about {n} and a {animal}| about a {animal}].", slots);
  const fixed = {
    ...(question.includes(hero) ? pronouns(hero) : {}),
    ...(question.includes(animal) ? { animal } : {}),
  };
  return [{ question, answer: story(random, fixed).text }];
}

function pronouns(hero: string): Record<string, string> {
  const girl = names.indexOf(hero) < names.length / 2;
  return girl
    ? { hero, he: "she", He: "She", his: "her", His: "Her", him: "her", kid: "girl" }
    : { hero, he: "he", He: "He", his: "his", His: "His", him: "him", kid: "boy" };
}

function smallTalk(random: Random): Turn[] {
  return Array.from({ length: random.between(1, 3) }, () => {
    if (random.chance(0.75)) return localQuestion(random);
    const { question, answer } = random.pick(greetings);
    const slots = { n: random.pick(names) };
    return { question: expand(random, question, slots), answer: expand(random, answer, slots) };
  });
}

/** A conversation with its markers; the last one is the end-of-text mark that every document gets. */
export function chatDocument(random: Random): string {
  const kind = random.real();
  const turns = kind < 0.5 ? factTurns(random) : kind < 0.75 ? storyTurns(random) : smallTalk(random);
  const system = random.chance(0.1) ? `${markers.system}You are a little model.${markers.end}` : "";
  const spoken = turns.map(
    ({ question, answer }) => `${markers.user}${question}${markers.end}${markers.assistant}${answer}`,
  );
  return system + spoken.join(markers.end);
}
