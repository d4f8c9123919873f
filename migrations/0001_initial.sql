-- Times are milliseconds since 1970-01-01 UTC. Columns named *_json hold JSON text.

CREATE TABLE models (
  name         TEXT PRIMARY KEY,
  path         TEXT NOT NULL,
  architecture TEXT,
  num_layers   INTEGER,
  fingerprint  TEXT,
  created_at   INTEGER NOT NULL
) STRICT;

-- One pool of linear counterparts per backbone and variant: the one converted last.
CREATE TABLE pools (
  backbone    TEXT NOT NULL REFERENCES models (name) ON DELETE CASCADE,
  variant     TEXT NOT NULL CHECK (variant IN ('gla', 'gdn', 'jet')),
  path        TEXT NOT NULL,
  recipe_json TEXT NOT NULL DEFAULT '{}',
  created_at  INTEGER NOT NULL,
  PRIMARY KEY (backbone, variant)
) STRICT;

-- A mask over the backbone: layers_json is one entry per layer, null for full attention or the variant's name.
CREATE TABLE hybrids (
  backbone     TEXT NOT NULL REFERENCES models (name) ON DELETE CASCADE,
  name         TEXT NOT NULL,
  layers_json  TEXT NOT NULL,
  task         TEXT,
  search       TEXT,
  metrics_json TEXT NOT NULL DEFAULT '{}',
  alias        TEXT UNIQUE,
  is_default   INTEGER NOT NULL DEFAULT 0 CHECK (is_default IN (0, 1)),
  created_at   INTEGER NOT NULL,
  PRIMARY KEY (backbone, name)
) STRICT;
CREATE UNIQUE INDEX hybrids_one_default ON hybrids (backbone) WHERE is_default = 1;

CREATE TABLE tasks (
  name          TEXT PRIMARY KEY,
  path          TEXT NOT NULL,
  sha256        TEXT NOT NULL,
  kind          TEXT NOT NULL,
  num_documents INTEGER NOT NULL,
  created_at    INTEGER NOT NULL
) STRICT;

-- A job is this row and, while it runs, a process that holds the lock file of the job.
CREATE TABLE jobs (
  id               TEXT PRIMARY KEY,
  kind             TEXT NOT NULL,
  origin           TEXT NOT NULL CHECK (origin IN ('server', 'terminal')),
  args_json        TEXT NOT NULL,
  subject_json     TEXT NOT NULL DEFAULT '{}',
  state            TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
  attempts         INTEGER NOT NULL DEFAULT 0,
  pid              INTEGER,
  stop_requested   TEXT CHECK (stop_requested IN ('cancel', 'pause')),
  progress_json    TEXT,
  result_json      TEXT,
  error            TEXT,
  created_at       INTEGER NOT NULL,
  started_at       INTEGER,
  finished_at      INTEGER
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, created_at);

CREATE TABLE job_events (
  job       TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  seq       INTEGER NOT NULL,
  time      INTEGER NOT NULL,
  kind      TEXT NOT NULL,
  data_json TEXT NOT NULL,
  PRIMARY KEY (job, seq)
) STRICT, WITHOUT ROWID;

-- A search shares its id with its job.
CREATE TABLE searches (
  id          TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
  backbone    TEXT NOT NULL,
  variant     TEXT NOT NULL,
  task        TEXT NOT NULL,
  task_sha256 TEXT NOT NULL,
  metric      TEXT NOT NULL,
  strategy    TEXT NOT NULL,
  stop_json   TEXT NOT NULL,
  base_score  REAL,
  best_json   TEXT,
  opt_json    TEXT,
  created_at  INTEGER NOT NULL,
  finished_at INTEGER
) STRICT;

-- Every scored candidate: `layer` is the one replaced in this round, mask_json the whole hybrid that was scored.
CREATE TABLE candidates (
  search        TEXT NOT NULL REFERENCES searches (id) ON DELETE CASCADE,
  round         INTEGER NOT NULL,
  layer         INTEGER NOT NULL,
  mask_json     TEXT NOT NULL,
  score         REAL NOT NULL,
  num_documents INTEGER NOT NULL,
  seconds       REAL NOT NULL,
  chosen        INTEGER NOT NULL DEFAULT 0 CHECK (chosen IN (0, 1)),
  PRIMARY KEY (search, round, layer)
) STRICT, WITHOUT ROWID;

CREATE TABLE evaluations (
  id            INTEGER PRIMARY KEY,
  backbone      TEXT NOT NULL,
  layers_json   TEXT NOT NULL,
  task          TEXT NOT NULL,
  task_sha256   TEXT NOT NULL,
  metric        TEXT NOT NULL,
  score         REAL NOT NULL,
  num_documents INTEGER NOT NULL,
  details_json  TEXT NOT NULL DEFAULT '{}',
  created_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX evaluations_by_task ON evaluations (backbone, task);
