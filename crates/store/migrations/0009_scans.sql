-- No request walks through a whole table: what is asked for by its hash, its age or its state is found by an index.

-- The outputs and the files of bundles that a blob is.
CREATE INDEX outputs_by_hash ON outputs (hash, job);
CREATE INDEX bundle_blobs_by_hash ON bundle_blobs (hash);
-- The attempts of a job, newest first, and those of them that failed.
CREATE INDEX attempts_by_job ON attempts (job, epoch, counter);
CREATE INDEX attempts_failed ON attempts (job, epoch, counter) WHERE state IN ('failed', 'lapsed');
-- The failed tasks of a step, however many are done.
CREATE INDEX tasks_failed ON tasks (job, step, idx) WHERE state = 'failed';
