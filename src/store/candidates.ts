// Table candidates: every hybrid a search has scored, which makes a search resumable and its trajectory drawable.

import type { Database } from "bun:sqlite";
import { fromJson, toJson } from "./json.ts";

/** One scored candidate of a search. */
export interface CandidateRecord {
  readonly search: string;
  /** 1, 2, ...: how many layers are replaced by strategies that replace one a round. */
  readonly round: number;
  /** The layer replaced in this round, or a running number in strategies without one. */
  readonly layer: number;
  /** The whole hybrid that was scored, one entry per layer. */
  readonly layers: readonly (string | null)[];
  readonly score: number;
  readonly numDocuments: number;
  readonly seconds: number;
  /** Whether the round ended with this one. */
  readonly chosen: boolean;
}

interface Row {
  search: string;
  round: number;
  layer: number;
  mask_json: string;
  score: number;
  num_documents: number;
  seconds: number;
  chosen: number;
}

/** The table. */
export class Candidates {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** In the order round, layer. */
  list(search: string): CandidateRecord[] {
    const sql = "SELECT * FROM candidates WHERE search = ? ORDER BY round, layer";
    return this.#database.query<Row, [string]>(sql).all(search).map(record);
  }

  /** Stores a score; scoring the same candidate again changes nothing. */
  add(candidate: Omit<CandidateRecord, "chosen">): void {
    this.#database
      .query(
        `INSERT INTO candidates (search, round, layer, mask_json, score, num_documents, seconds)
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
      )
      .run(
        candidate.search,
        candidate.round,
        candidate.layer,
        toJson(candidate.layers),
        candidate.score,
        candidate.numDocuments,
        candidate.seconds,
      );
  }

  /** The round ended with this layer. */
  choose(search: string, round: number, layer: number): void {
    const sql = "UPDATE candidates SET chosen = (layer = ?) WHERE search = ? AND round = ?";
    this.#database.query(sql).run(layer, search, round);
  }
}

function record(row: Row): CandidateRecord {
  return {
    search: row.search,
    round: row.round,
    layer: row.layer,
    layers: fromJson(row.mask_json),
    score: row.score,
    numDocuments: row.num_documents,
    seconds: row.seconds,
    chosen: row.chosen === 1,
  };
}
