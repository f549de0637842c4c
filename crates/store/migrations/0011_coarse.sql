-- The frame order "preview" is called "coarse": a preview is the thumbnail of an output.
UPDATE jobs SET spec = json_replace(spec, '$.order', 'coarse') WHERE json_extract(spec, '$.order') = 'preview';
UPDATE steps SET spec = json_replace(spec, '$.order', 'coarse') WHERE json_extract(spec, '$.order') = 'preview';
