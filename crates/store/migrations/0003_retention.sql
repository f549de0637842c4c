-- What is kept, and until when (docs/decisions/009). Times are unix milliseconds.

ALTER TABLE jobs ADD COLUMN archived_ms INTEGER;
-- Outputs up to this sequence are on the disk of the person who asked for them, since this time.
ALTER TABLE jobs ADD COLUMN fetched_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN fetched_ms INTEGER;
-- Since then it needs its bundles no more, and can render nothing more.
ALTER TABLE jobs ADD COLUMN inputs_gone_ms INTEGER;
-- Outputs up to this sequence are needed no more, since this time; the records of them stay.
ALTER TABLE jobs ADD COLUMN outputs_gone_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN outputs_gone_ms INTEGER;
-- The logs of attempts that had ended by then are gone.
ALTER TABLE jobs ADD COLUMN logs_gone_ms INTEGER;

-- When somebody last made it, and whether no job has been made of it since.
ALTER TABLE bundles ADD COLUMN used_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE bundles ADD COLUMN waits INTEGER NOT NULL DEFAULT 1;
UPDATE bundles
SET used_ms = created_ms, waits = NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.bundle = bundles.id);

-- The bundles that jobs need.
CREATE VIEW needed_bundles (job, bundle) AS
    SELECT id, bundle FROM jobs WHERE inputs_gone_ms IS NULL
    UNION ALL
    SELECT job, steps.bundle FROM steps JOIN jobs ON jobs.id = job
    WHERE steps.bundle IS NOT NULL AND inputs_gone_ms IS NULL;

-- The last names of workers that were removed: what they did is told under them.
CREATE TABLE former_workers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL
) STRICT;
