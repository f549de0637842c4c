-- The bundle that a step made: of a bake, the job's files with the caches in them.
ALTER TABLE steps ADD COLUMN bundle BLOB;
CREATE INDEX steps_by_bundle ON steps (bundle) WHERE bundle IS NOT NULL;
-- When its last task ended, where all have.
ALTER TABLE steps ADD COLUMN ended_ms INTEGER;
