// The scores of a search in the store's tables: what makes it resumable and its trajectory drawable.
import type { Evaluation } from "../eval/evaluate.ts";
import type { Store } from "../store/database.ts";
import type { Proposal } from "./algorithm1.ts";
import type { ScoreLog } from "./search.ts";

/** Stored in place of minus infinity, which a table has no number for. */
const UNUSABLE = -1e300;

/** Log of the search with the given id; candidates are looked up by their set of linear layers. */
export class StoreLog implements ScoreLog {
  readonly #store: Store;
  readonly #search: string;
  readonly #mask: (layers: readonly number[]) => readonly (string | null)[];
  readonly #scores = new Map<string, number>();

  constructor(store: Store, search: string, mask: (layers: readonly number[]) => readonly (string | null)[]) {
    this.#store = store;
    this.#search = search;
    this.#mask = mask;
    for (const { layers, score } of store.candidates.list(search)) {
      this.#scores.set(keyOf(layers), score === UNUSABLE ? Number.NEGATIVE_INFINITY : score);
    }
  }

  lookUp(layers: readonly number[]): number | undefined {
    return this.#scores.get(keyOf(this.#mask(layers)));
  }

  record(proposal: Proposal, score: number, evaluation: Evaluation): void {
    const layers = this.#mask(proposal.layers);
    this.#scores.set(keyOf(layers), score);
    this.#store.candidates.add({
      search: this.#search,
      round: proposal.round,
      layer: proposal.layer ?? -1,
      layers,
      score: Number.isFinite(score) ? score : UNUSABLE,
      numDocuments: evaluation.numDocuments,
      seconds: evaluation.seconds,
    });
    if (proposal.round === 0) this.#store.searches.setBaseScore(this.#search, score);
  }
}

function keyOf(layers: readonly (string | null)[]): string {
  return layers.map((variant) => variant ?? "-").join();
}
