-- What a step does is stored with it. Until here it was derived from the job: a bake where it had simulations to bake,
-- and its frames.
ALTER TABLE steps ADD COLUMN spec TEXT NOT NULL DEFAULT '{}';
UPDATE steps SET spec = CASE
    WHEN kind = 'bake' THEN json_object(
        'kind', 'bake', 'space', 'one', 'order', task_order, 'opens', 'copy', 'product', 'bundle')
    WHEN after = '[]' THEN json_object(
        'kind', kind, 'space', 'frames', 'order', task_order, 'opens', 'job', 'renders', json('true'),
        'product', 'output')
    ELSE json_object(
        'kind', kind, 'space', 'frames', 'order', task_order, 'after', json(after),
        'opens', json_object('step', json_extract(after, '$[0]')), 'renders', json('true'), 'product', 'output')
END;
ALTER TABLE steps DROP COLUMN kind;
ALTER TABLE steps DROP COLUMN after;
ALTER TABLE steps DROP COLUMN task_order;
