-- What is remarkable in the pixels of a file: 'black' or 'transparent' where the whole picture is, and how many pixels
-- are not numbers, or infinite. Files of before were not looked at so.
ALTER TABLE outputs ADD COLUMN blank TEXT;
ALTER TABLE outputs ADD COLUMN not_finite INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outputs_suspicious ON outputs (job, step, idx)
    WHERE current = 1 AND (blank IS NOT NULL OR not_finite > 0);
