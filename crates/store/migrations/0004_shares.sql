-- How users and projects share the farm (docs/decisions/010); those without a row share it like everybody.
CREATE TABLE shares (
    kind TEXT NOT NULL CHECK (kind IN ('user', 'project')),
    name TEXT NOT NULL,
    weight INTEGER NOT NULL,
    max_slots INTEGER,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- What the farm has only so many of.
CREATE TABLE limits (
    name TEXT PRIMARY KEY,
    total INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The pools that a worker was put in, as a JSON list of their names.
ALTER TABLE workers ADD COLUMN pools TEXT NOT NULL DEFAULT '[]';
