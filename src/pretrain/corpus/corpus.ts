// The training text: document `index` of seed `seed`, always the same, and the curriculum that orders it.
// Knows nothing of tokens; the caller adds the begin and end marks.

import { mixSeeds, Random } from "../random.ts";
import { chatDocument } from "./chat.ts";
import { drawFacts, factsDocument, pairsDocument, piecesDocument, retoldDocument } from "./facts.ts";
import type { Text } from "./grammar.ts";
import { localDocument } from "./local.ts";
import { story, storyDocument } from "./story.ts";

/**
 * Shares of the training tokens at which a stage ends. Pieces of word rows come first and alone: "what followed this word
 * before follows it again" is learned from them within 300,000 tokens; pairs make it a matter of who has what; statements
 * and questions grow out of that. Begun with the full mixture, none of it had been learned after three million.
 */
const stages = { pieces: 0.035, pairs: 0.07, lookUp: 0.2, growth: 0.5 };

/** One document for the share 0..1 of the training that is done. The full mixture is that of share 1. */
export function document(seed: number, index: number, progress = 1): Text {
  const random = new Random(mixSeeds(seed, index));
  if (progress < stages.pieces) return piecesDocument(random, random.between(4, 14));
  if (progress < stages.pairs) return pairsDocument(random, random.between(2, 8));
  if (progress < stages.lookUp) return lookUp(random, 6, { pieces: 0.2, pairs: 0.2, retold: 0.2, twofold: 0 });
  const growth = Math.min(1, (progress - stages.lookUp) / (stages.growth - stages.lookUp));
  const kind = random.real();
  if (kind < 0.5) {
    return lookUp(random, Math.round(7 + 5 * growth), { pieces: 0.04, pairs: 0.04, retold: 0.08, twofold: 0.4 });
  }
  const learned =
    kind < 0.68
      ? storyDocument(random)
      : kind < 0.82
        ? localDocument(random, random.between(3, 10))
        : chatDocument(random);
  return { given: "", learned };
}

/** Shares of simpler documents, and of two or three facts a person among the passages with questions. */
interface LookUpShares {
  readonly pieces: number;
  readonly pairs: number;
  readonly retold: number;
  readonly twofold: number;
}

/**
 * A passage to recall from, of at most `most` people. What is told first is a matter of chance and mostly not predicted,
 * so that answers make up most of the loss.
 */
function lookUp(random: Random, most: number, { pieces, pairs, retold, twofold }: LookUpShares): Text {
  const kind = random.real();
  if (kind < pieces) return piecesDocument(random, random.between(4, 14));
  if (kind < pieces + pairs) return pairsDocument(random, random.between(2, 8));
  if (kind < pieces + pairs + retold) return retoldDocument(random, random.between(2, most));
  const facts = random.chance(twofold)
    ? drawFacts(random, random.between(2, Math.ceil(most / 2)), random.between(2, 3))
    : drawFacts(random, random.between(2, most), 1);
  const text = factsDocument(random, facts, most <= 6 ? "" : distraction(random));
  return most <= 6 || random.chance(0.8) ? text : { given: "", learned: `${text.given} ${text.learned}` };
}

/** Often nothing, else sentences that have nothing to do with the facts they stand among. */
function distraction(random: Random): string {
  const kind = random.real();
  if (kind < 0.6) return "";
  if (kind < 0.88) return localDocument(random, random.between(1, 4));
  const stories = Array.from({ length: kind < 0.96 ? 1 : random.between(2, 4) }, () => story(random).text);
  return stories.join(" ");
}
