-- Times are unix milliseconds. Ids of 64 bits are stored as SQLite's signed integers, bit for bit.
-- Texts of states are those of kiln-types.

-- One row: the reign of the brain, and the highest job id ever given (ids are never used again).
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL,
    last_job INTEGER NOT NULL
) STRICT;
INSERT INTO meta (id, epoch, last_job) VALUES (1, 0, 0);

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    spec TEXT NOT NULL,
    session BLOB NOT NULL,
    bundle BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    started_ms INTEGER,
    ended_ms INTEGER,
    reason TEXT
) STRICT;
CREATE INDEX jobs_unfinished ON jobs (id) WHERE state IN ('queued', 'running', 'paused');
CREATE INDEX jobs_by_owner ON jobs (owner, project, id);
CREATE INDEX jobs_by_bundle ON jobs (bundle);

CREATE TABLE notices (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    text TEXT NOT NULL,
    attempt_epoch INTEGER,
    attempt_counter INTEGER,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (job, text)
) STRICT, WITHOUT ROWID;

CREATE TABLE steps (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    kind TEXT NOT NULL,
    count INTEGER NOT NULL,
    after TEXT NOT NULL,
    task_order TEXT NOT NULL,
    -- Spans of cancelled tasks, as JSON: [[first, last], ...].
    cancelled TEXT NOT NULL DEFAULT '[]',
    done INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, step)
) STRICT, WITHOUT ROWID;

-- Sparse: a task without a row waits in generation 0, so a million frames cost nothing until they are done.
CREATE TABLE tasks (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    state TEXT NOT NULL,
    -- Why it failed, where it did.
    reason TEXT,
    PRIMARY KEY (job, step, idx)
) STRICT, WITHOUT ROWID;

-- The steps' counts follow the tasks by themselves: lists of jobs never count rows.
CREATE TRIGGER tasks_inserted AFTER INSERT ON tasks BEGIN
    UPDATE steps
    SET done = done + (NEW.state = 'done'), failed = failed + (NEW.state = 'failed')
    WHERE job = NEW.job AND step = NEW.step;
END;
CREATE TRIGGER tasks_updated AFTER UPDATE OF state ON tasks WHEN OLD.state <> NEW.state BEGIN
    UPDATE steps
    SET done = done + (NEW.state = 'done') - (OLD.state = 'done'),
        failed = failed + (NEW.state = 'failed') - (OLD.state = 'failed')
    WHERE job = NEW.job AND step = NEW.step;
END;

CREATE TABLE attempts (
    epoch INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    worker INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    state TEXT NOT NULL,
    -- Whether the task remembers it, should it fail or lapse: not after the task was reopened.
    counts INTEGER NOT NULL DEFAULT 1,
    opened_ms INTEGER NOT NULL,
    started_ms INTEGER,
    ended_ms INTEGER,
    failure TEXT,
    seconds REAL,
    peak_memory INTEGER,
    PRIMARY KEY (epoch, counter)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_by_task ON attempts (job, step, idx);
CREATE INDEX attempts_open ON attempts (job) WHERE state IN ('assigned', 'running', 'lapsed');
CREATE INDEX attempts_counting ON attempts (job, step, idx) WHERE counts = 1 AND state IN ('failed', 'lapsed');

-- A row a file. The sequence only grows, in the order of the commits.
CREATE TABLE outputs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    attempt_epoch INTEGER NOT NULL,
    attempt_counter INTEGER NOT NULL,
    frame INTEGER NOT NULL,
    path TEXT NOT NULL,
    role TEXT NOT NULL,
    hash BLOB NOT NULL,
    size INTEGER NOT NULL,
    format TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    committed_ms INTEGER NOT NULL,
    -- Whether no later generation of the task is done.
    current INTEGER NOT NULL DEFAULT 1,
    -- Every generation is committed once.
    UNIQUE (job, step, idx, generation, path)
) STRICT;
CREATE INDEX outputs_by_job ON outputs (job, seq);
CREATE INDEX outputs_by_path ON outputs (job, path);
CREATE INDEX outputs_by_frame ON outputs (job, frame);

CREATE TABLE workers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    info TEXT NOT NULL,
    wish TEXT NOT NULL,
    first_seen_ms INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE bundles (
    id BLOB NOT NULL,
    owner TEXT NOT NULL,
    project TEXT NOT NULL,
    size INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (id, owner, project)
) STRICT, WITHOUT ROWID;

CREATE TABLE bundle_blobs (
    bundle BLOB NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (bundle, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    job INTEGER,
    worker INTEGER,
    kind TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_job ON events (job, number) WHERE job IS NOT NULL;
