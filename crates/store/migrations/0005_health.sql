-- Workers that are set aside because they fail, or go down, where others deliver: why, as JSON; NULL where it is well.
ALTER TABLE workers ADD COLUMN sickness TEXT;
