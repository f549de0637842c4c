-- The frame order "preview" is called "coarse": a preview is the thumbnail of an output.
UPDATE jobs SET spec = json_replace(spec, '$.order', 'coarse') WHERE json_extract(spec, '$.order') = 'preview';
UPDATE steps SET spec = json_replace(spec, '$.order', 'coarse') WHERE json_extract(spec, '$.order') = 'preview';

-- A dependency of a step says more than its step. Until here a step had one at most.
UPDATE steps
SET spec = json_set(spec, '$.after', json_array(json_object('step', json_extract(spec, '$.after[0]'))))
WHERE json_extract(spec, '$.after[0]') IS NOT NULL;

-- No query uses it.
DROP INDEX outputs_by_frame;

-- The quarantine of a worker, in the words of the scheduler.
ALTER TABLE workers RENAME COLUMN sickness TO quarantine;
UPDATE workers
SET quarantine = json_object('reason', json_extract(quarantine, '$.why'), 'failed_probes', json_extract(quarantine, '$.trials'))
WHERE quarantine IS NOT NULL;

-- Events name the step of their task. Until here one without a frame was of a bake.
UPDATE events
SET data = json_set(data, '$.step_kind', CASE WHEN json_extract(data, '$.frame') IS NULL THEN 'bake' ELSE 'render' END)
WHERE kind IN ('task-started', 'task-done', 'task-failed', 'task-reopened', 'attempt-ended');
