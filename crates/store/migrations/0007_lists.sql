-- Lists of jobs, newest first, by what they are filtered by: what is passed over is not looked at.
DROP INDEX jobs_by_owner;
CREATE INDEX jobs_by_state ON jobs (archived_ms IS NOT NULL, state, id);
CREATE INDEX jobs_by_owner ON jobs (owner, archived_ms IS NOT NULL, state, id);
CREATE INDEX jobs_by_project ON jobs (project, archived_ms IS NOT NULL, state, id);
CREATE INDEX jobs_by_both ON jobs (owner, project, archived_ms IS NOT NULL, state, id);
