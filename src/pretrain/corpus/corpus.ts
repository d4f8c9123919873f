// The training text: document `index` of seed `seed`, always the same, and the curriculum that orders it.
// Knows nothing of tokens; the caller adds the begin and end marks.

import { mixSeeds, Random } from "../random.ts";
import { chatDocument } from "./chat.ts";
import { drawFacts, echoDocument, factsDocument, pickRelations, retoldDocument } from "./facts.ts";
import type { Text } from "./grammar.ts";
import { localDocument } from "./local.ts";
import { story, storyDocument } from "./story.ts";

/**
 * Shares of the training tokens at which a stage ends. Rows of words said again come first and alone: copying is learned
 * from them within a few hundred thousand tokens, looking up facts grows out of it within as many again, and either would
 * take many times longer in the full mixture from the start.
 */
const stages = { echo: 0.04, lookUp: 0.16, growth: 0.5 };

/** One document for the share 0..1 of the training that is done. The full mixture is that of share 1. */
export function document(seed: number, index: number, progress = 1): Text {
  const random = new Random(mixSeeds(seed, index));
  if (progress < stages.echo) return echoDocument(random, random.between(4, 16));
  if (progress < stages.lookUp) return lookUp(random, 6, 0.3, 0.3);
  const growth = Math.min(1, (progress - stages.lookUp) / (stages.growth - stages.lookUp));
  const kind = random.real();
  if (kind < 0.5) return lookUp(random, Math.round(7 + 5 * growth), 0.06, 0.1);
  const learned =
    kind < 0.68
      ? storyDocument(random)
      : kind < 0.82
        ? localDocument(random, random.between(3, 10))
        : chatDocument(random);
  return { given: "", learned };
}

/**
 * A passage to recall from, of at most `most` people. What is told first is a matter of chance and mostly not predicted,
 * so that answers make up most of the loss.
 */
function lookUp(random: Random, most: number, echoes: number, retold: number): Text {
  const kind = random.real();
  if (kind < echoes) return echoDocument(random, random.between(4, 16));
  if (kind < echoes + retold) return retoldDocument(random, random.between(2, most));
  if (most <= 6)
    return factsDocument(random, drawFacts(random, random.between(2, most), pickRelations(random, 1, false)), "");
  const facts = random.chance(0.45)
    ? drawFacts(random, random.between(2, most), pickRelations(random, 1, false))
    : drawFacts(random, random.between(2, Math.ceil(most / 2)), pickRelations(random, 2, random.chance(0.85)));
  const text = factsDocument(random, facts, distraction(random));
  return random.chance(0.8) ? text : { given: "", learned: `${text.given} ${text.learned}` };
}

/** Often nothing, else sentences that have nothing to do with the facts they stand among. */
function distraction(random: Random): string {
  const kind = random.real();
  if (kind < 0.6) return "";
  if (kind < 0.88) return localDocument(random, random.between(1, 4));
  const stories = Array.from({ length: kind < 0.96 ? 1 : random.between(2, 4) }, () => story(random).text);
  return stories.join(" ");
}
