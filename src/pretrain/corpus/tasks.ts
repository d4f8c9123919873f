// The two bundled multiple-choice tasks. "recall" asks for one of many facts told earlier in the text, all four choices
// being facts of that text; "local" ends in a sentence that decides its own last word. Knows no model and no tokens.

import { mixSeeds, Random } from "../random.ts";
import { drawFacts, openQuestion, statement } from "./facts.ts";
import { drawLocal, localSentence } from "./local.ts";

/** One line of a task file. The choice is scored as the continuation " " + choice of the context. */
export interface TaskDocument {
  readonly id: string;
  readonly context: string;
  readonly choices: readonly string[];
  readonly gold: number;
}

export const taskNames = ["recall", "local"] as const;
export type TaskName = (typeof taskNames)[number];

function arrange(random: Random, id: string, context: string, right: string, wrong: readonly string[]): TaskDocument {
  const choices = random.shuffle([right, ...random.sample(wrong, 3)]);
  return { id, context, choices, gold: choices.indexOf(right) };
}

/** 10 to 12 people with one fact each, or 5 or 6 with two each, a few other sentences, and a question. */
function recallTask(random: Random, id: string): TaskDocument {
  const facts = random.chance(0.5)
    ? drawFacts(random, random.between(10, 12), 1)
    : drawFacts(random, random.between(5, 6), 2);
  const told = facts.map((fact) => statement(random, fact));
  const distraction = Array.from({ length: random.between(0, 3) }, () => localSentence(random));
  told.splice(random.between(Math.floor(told.length / 2), told.length), 0, ...distraction);
  const fact = random.pick(facts);
  const { question, start } = openQuestion(random, fact);
  const wrong = facts.filter((other) => other.relation === fact.relation && other !== fact).map((other) => other.value);
  return arrange(random, id, `${told.join(" ")} ${question} ${start}`, fact.value, wrong);
}

/** A few sentences that do not matter and one that is to be ended. */
function localTask(random: Random, id: string): TaskDocument {
  const before = Array.from({ length: random.between(4, 8) }, () => localSentence(random));
  const item = drawLocal(random);
  return arrange(random, id, [...before, item.start].join(" "), item.end, item.wrong);
}

/** `count` different documents of a task, none of whose contexts is in `taken`; adds their contexts to it. */
export function taskDocuments(task: TaskName, seed: number, count: number, taken: Set<string>): TaskDocument[] {
  const random = new Random(mixSeeds(seed, task === "recall" ? 1 : 2));
  const documents: TaskDocument[] = [];
  while (documents.length < count) {
    const id = `${task}-${documents.length}`;
    const document = task === "recall" ? recallTask(random, id) : localTask(random, id);
    if (taken.has(document.context)) continue;
    taken.add(document.context);
    documents.push(document);
  }
  return documents;
}
