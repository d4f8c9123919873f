// Opens the one database of a data folder: write-ahead log, waiting writers, foreign keys, newest schema.
// The tables themselves are one file each; SQL appears nowhere outside this folder.

import { Database } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { Candidates } from "./candidates.ts";
import { type DataDir, dataDir } from "./data_dir.ts";
import { Evaluations } from "./evaluations.ts";
import { Hybrids } from "./hybrids.ts";
import { JobEvents } from "./job_events.ts";
import { Jobs } from "./jobs.ts";
import { migrate } from "./migrate.ts";
import { migrations } from "./migrations.ts";
import { Models } from "./models.ts";
import { Pools } from "./pools.ts";
import { Searches } from "./searches.ts";
import { explained, StoreError } from "./store_error.ts";
import { Tasks } from "./tasks.ts";

const BUSY_TIMEOUT_MS = 5000;

/** One connection to a data folder, with an object per table. Several processes may hold one each. */
export class Store {
  readonly dir: DataDir;
  readonly models: Models;
  readonly pools: Pools;
  readonly hybrids: Hybrids;
  readonly tasks: Tasks;
  readonly jobs: Jobs;
  readonly events: JobEvents;
  readonly searches: Searches;
  readonly candidates: Candidates;
  readonly evaluations: Evaluations;
  readonly #database: Database;

  private constructor(dir: DataDir, database: Database) {
    this.dir = dir;
    this.#database = database;
    this.models = new Models(database);
    this.pools = new Pools(database);
    this.hybrids = new Hybrids(database);
    this.tasks = new Tasks(database);
    this.jobs = new Jobs(database);
    this.events = new JobEvents(database);
    this.searches = new Searches(database);
    this.candidates = new Candidates(database);
    this.evaluations = new Evaluations(database);
  }

  /**
   * Opens (and on first use makes) the data folder at `root`; without one, ~/.graft.
   * @throws StoreError in one line when the folder or database cannot be used
   */
  static open(root: string | undefined): Store {
    const dir = dataDir(root);
    return explained(dir.root, () => {
      mkdirSync(dir.root, { recursive: true });
      const database = new Database(dir.database, { create: true, readwrite: true, strict: true });
      try {
        database.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
        database.run("PRAGMA journal_mode = WAL");
        database.run("PRAGMA synchronous = FULL");
        database.run("PRAGMA foreign_keys = ON");
        migrate(database, migrations);
        return new Store(dir, database);
      } catch (error) {
        database.close();
        throw error;
      }
    });
  }

  /**
   * Looks through the whole database for damage.
   * @throws StoreError saying what is damaged
   */
  check(): void {
    explained(this.dir.database, () => {
      const row = this.#database.query<{ quick_check: string }, []>("PRAGMA quick_check(1)").get();
      if (row?.quick_check === "ok") return;
      throw new StoreError(
        "corrupt",
        `Cannot use "${this.dir.database}": ${row?.quick_check ?? "no answer to the check"}`,
      );
    });
  }

  /** Changes whenever another connection, in this process or another, commits; not on our own commits. */
  foreignVersion(): number {
    return this.#database.query<{ data_version: number }, []>("PRAGMA data_version").get()?.data_version ?? 0;
  }

  /**
   * Runs `body` in one write transaction: all of it is stored or nothing.
   * @throws StoreError when the disk is full or failing
   */
  transaction<T>(body: () => T): T {
    return explained(this.dir.root, () => this.#database.transaction(body).immediate());
  }

  close(): void {
    this.#database.close();
  }
}
