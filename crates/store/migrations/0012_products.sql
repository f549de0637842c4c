-- Files that steps make and that are not the artist's: intermediates, which later steps use, and previews. A preview
-- stays as long as the output of its frame; the rows of an intermediate go with its bytes.
CREATE TABLE products (
    -- Grows with each commit.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    -- 'intermediate' or 'preview'.
    kind TEXT NOT NULL,
    -- The position of its frame among those of the job, if its step is about frames.
    position INTEGER,
    path TEXT NOT NULL,
    hash BLOB NOT NULL,
    size INTEGER NOT NULL,
    committed_ms INTEGER NOT NULL,
    UNIQUE (job, step, idx, generation, path)
) STRICT;
CREATE INDEX products_by_step ON products (job, step, seq);

-- The steps that use what a step makes. Those that use the files of their own frame alone have `per_frame` tasks for it.
CREATE VIEW step_users (job, step, user, per_frame, is_done, ended_ms) AS
    SELECT user.job, after.value ->> 'step', user.step,
        CASE WHEN after.value ->> 'scope' = 'frame' THEN coalesce(user.spec ->> '$.space.parts', 1) END,
        user.done = user.count, user.ended_ms
    FROM steps AS user, json_each(user.spec, '$.after') AS after;

-- An attempt that streams is on no slot.
ALTER TABLE attempts RENAME COLUMN slot TO old_slot;
ALTER TABLE attempts ADD COLUMN slot INTEGER;
UPDATE attempts SET slot = old_slot;
ALTER TABLE attempts DROP COLUMN old_slot;
