-- What the task of an attempt that ran out of memory was found to need of a machine, in bytes; NULL of all others.
ALTER TABLE attempts ADD COLUMN outgrew INTEGER;
