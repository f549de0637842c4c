-- More of the records in the words of docs/glossary.md.

-- An attempt whose lease ended without news has expired; one that its worker gave back was returned.
DROP INDEX attempts_open;
DROP INDEX attempts_counting;
DROP INDEX attempts_failed;
UPDATE attempts SET state = 'expired' WHERE state = 'lapsed';
UPDATE attempts SET state = 'returned' WHERE state = 'handed-back';
CREATE INDEX attempts_open ON attempts (job) WHERE state IN ('assigned', 'running', 'expired');
CREATE INDEX attempts_counting ON attempts (job, step, idx) WHERE counts = 1 AND state IN ('failed', 'expired');
CREATE INDEX attempts_failed ON attempts (job, epoch, counter) WHERE state IN ('failed', 'expired');
UPDATE events SET data = json_replace(data, '$.state', 'expired')
WHERE kind = 'attempt-ended' AND data ->> 'state' = 'lapsed';
UPDATE events SET data = json_replace(data, '$.state', 'returned')
WHERE kind = 'attempt-ended' AND data ->> 'state' = 'handed-back';

-- A job has scheduling options and requirements.
UPDATE jobs SET spec = json_remove(json_set(spec, '$.scheduling', spec -> '$.standing'), '$.standing')
WHERE json_type(spec, '$.standing') IS NOT NULL;
UPDATE jobs SET spec = json_remove(json_set(spec, '$.requirements', spec -> '$.needs'), '$.needs')
WHERE json_type(spec, '$.needs') IS NOT NULL;
UPDATE events SET data = json_remove(json_set(data, '$.scheduling', data -> '$.standing'), '$.standing')
WHERE kind = 'job-changed';

-- A worker has a desired state.
ALTER TABLE workers RENAME COLUMN wish TO desired;
UPDATE workers
SET desired = CASE desired WHEN 'work' THEN 'active' WHEN 'pause' THEN 'paused' WHEN 'drain' THEN 'draining' ELSE 'stopped' END;
