"""The tables of the journal, and the numbered migrations that make them."""

import sqlite3

#: "PWWD" in the file's header, by which file(1) and we recognise a journal
#: (sqlite.org/pragma.html#pragma_application_id).
APPLICATION_ID = 0x50575744

_V1 = """
CREATE TABLE job (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  rule          TEXT NOT NULL,
  state         TEXT NOT NULL,
  source        BLOB NOT NULL,     -- absolute path, the file system's bytes
  relative      BLOB NOT NULL,     -- below the inbox
  inode         INTEGER NOT NULL,
  size          INTEGER NOT NULL,  -- bytes
  mtime_ns      INTEGER NOT NULL,
  kind          TEXT NOT NULL,
  url           TEXT,
  sha256        TEXT,
  format        TEXT,
  width         INTEGER,
  height        INTEGER,
  type          INTEGER NOT NULL,
  return_type   INTEGER NOT NULL,
  sync          INTEGER NOT NULL,
  task_id       TEXT,
  attempts      INTEGER NOT NULL DEFAULT 0,
  refusals      INTEGER NOT NULL DEFAULT 0,
  error_code    TEXT,
  error_message TEXT,
  result        TEXT,              -- JSON: format, width, height, size, sha256
  output        BLOB,
  original      TEXT NOT NULL DEFAULT 'present',
  note          TEXT,
  answer        TEXT,              -- JSON: PicWish's last answer without the image
  flood         INTEGER NOT NULL DEFAULT 0,  -- came in a flood: waits for `approve`
  pay_again     INTEGER NOT NULL DEFAULT 0,  -- a person said retry: if the old task is gone, submit anew
  result_sha256 TEXT GENERATED ALWAYS AS (json_extract(result, '$.sha256')) VIRTUAL,
  task_seconds  REAL,              -- how long PicWish worked
  not_before    REAL,
  created_at    REAL NOT NULL,     -- Unix seconds
  submitted_at  REAL,
  completed_at  REAL
) STRICT;
CREATE INDEX job_turn    ON job (state, rule, id);
CREATE INDEX job_source  ON job (source, id);
CREATE INDEX job_content ON job (sha256, rule);
CREATE INDEX job_result  ON job (result_sha256) WHERE result IS NOT NULL;
CREATE INDEX job_task    ON job (task_id) WHERE task_id IS NOT NULL;
CREATE INDEX job_output  ON job (output) WHERE output IS NOT NULL;
CREATE INDEX job_waiting ON job (rule, id) WHERE original = 'waiting';
CREATE INDEX job_speed   ON job (type, id) WHERE task_seconds IS NOT NULL;

CREATE TABLE event (
  id      INTEGER PRIMARY KEY,
  job     INTEGER NOT NULL REFERENCES job (id),
  at      REAL NOT NULL,
  state   TEXT NOT NULL,
  message TEXT NOT NULL
) STRICT;
CREATE INDEX event_job ON event (job, id);

-- The ledger: one row for each submission.
CREATE TABLE charge (
  id      INTEGER PRIMARY KEY,
  job     INTEGER NOT NULL REFERENCES job (id),
  rule    TEXT NOT NULL,
  at      REAL NOT NULL,           -- of the submission: the day that it counts for
  credits INTEGER NOT NULL,
  state   TEXT NOT NULL            -- reserved, spent, doubtful, released
) STRICT;
CREATE INDEX charge_job ON charge (job, id);
CREATE INDEX charge_day ON charge (at);

-- The last settings of each rule, for tasks whose rule leaves the configuration.
CREATE TABLE rule (
  name     TEXT PRIMARY KEY,
  settings TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Folders that were written to: never made again, only waited for.
CREATE TABLE folder (
  path BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- What the running daemon says of itself, for `status`.
CREATE TABLE report (
  id   INTEGER PRIMARY KEY CHECK (id = 1),
  text TEXT NOT NULL
) STRICT;
"""

_V2 = """
-- JSON: format, width, height, size of what was sent, where that is not the source itself (oversize: downscale).
ALTER TABLE job ADD COLUMN sent TEXT;
-- The mount that a folder was last accepted on; NULL: not known yet.
ALTER TABLE folder ADD COLUMN mount_point BLOB;
ALTER TABLE folder ADD COLUMN mount_kind TEXT;
-- Of a flood there are few or none; they are counted each second, beside any number of queued jobs.
CREATE INDEX job_flood ON job (rule) WHERE flood = 1;
"""

#: Migration n leads from user_version n to n + 1.
MIGRATIONS = (_V1, _V2)
VERSION = len(MIGRATIONS)

#: Indexes that only make queries faster. They need no migration: a writer creates missing ones when it opens the
#: journal.
INDEXES = {
    # The next job of a rule, among any number of images that a flood holds.
    "job_next": "job (state, rule, id) WHERE flood = 0",
    # How many images arrived recently, for `budget.burst`.
    "job_arrival": "job (rule, created_at) WHERE flood = 0 AND sha256 IS NOT NULL",
    # The queued jobs that were tried and wait.
    "job_paused": "job (state, rule) WHERE not_before IS NOT NULL",
    # The first queued job of a content, for which its copies wait, among any number of copies.
    "job_same": "job (sha256, rule, id) WHERE state = 'queued'",
}


def add_indexes(connection: sqlite3.Connection) -> None:
    """Create the missing ones of `INDEXES` in one transaction, which takes milliseconds with 10,000 jobs."""
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    missing = INDEXES.keys() - names
    if missing:
        connection.execute("BEGIN IMMEDIATE")
        for name in sorted(missing):
            connection.execute(f"CREATE INDEX {name} ON {INDEXES[name]}")
        connection.execute("COMMIT")


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Run the migrations from ``version`` on, within the caller's transaction."""
    for step in MIGRATIONS[version:]:
        for statement in step.split(";\n"):
            if statement.strip():
                connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
