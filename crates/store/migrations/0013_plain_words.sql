-- The records in the words of docs/glossary.md.
UPDATE workers SET info = json_remove(json_set(info, '$.unavailable', info -> '$.resting'), '$.resting')
WHERE json_type(info, '$.resting') IS NOT NULL;
UPDATE events SET data = json_replace(data, '$.state', 'unavailable')
WHERE kind = 'worker-state' AND data ->> 'state' = 'resting';
UPDATE events SET data = json_replace(data, '$.state', 'quarantined')
WHERE kind = 'worker-state' AND data ->> 'state' = 'sick';
