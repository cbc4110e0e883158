-- The store of every runtime: samples, forget requests, generations of weights, cost records.
-- user_version is set to 1 by the runtime that creates it; a runtime refuses a newer one.

-- What the store belongs to: name, weights_sha256 (of the bundle it began with), classes (JSON array),
-- input (JSON array C, H, W).
CREATE TABLE IF NOT EXISTS bundle (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS samples (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256   TEXT NOT NULL,      -- of the pixels, hex
    label    INTEGER NOT NULL,   -- index of the class
    height   INTEGER NOT NULL,
    width    INTEGER NOT NULL,
    channels INTEGER NOT NULL,
    pixels   BLOB NOT NULL,      -- uint8, height * width * channels, row by row
    added    TEXT NOT NULL,      -- UTC, ISO 8601, as every time here
    UNIQUE (label, sha256)
);

CREATE TABLE IF NOT EXISTS requests (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    label    INTEGER NOT NULL,
    class    TEXT NOT NULL,
    status   TEXT NOT NULL
        CHECK (status IN ('queued', 'running', 'verifying', 'done', 'failed', 'cancelled')),
    seed     INTEGER NOT NULL,
    scalars  TEXT NOT NULL,      -- JSON object: every scalar of the method as this request uses it
    reason   TEXT,               -- why it failed, or what else is to be told
    evidence TEXT,               -- JSON object
    created  TEXT NOT NULL,
    finished TEXT
);

-- The samples of a request, frozen when it is created; position is what random numbers are drawn for.
CREATE TABLE IF NOT EXISTS request_samples (
    request_id INTEGER NOT NULL REFERENCES requests (id),
    position   INTEGER NOT NULL,
    sample_id  INTEGER NOT NULL REFERENCES samples (id),
    PRIMARY KEY (request_id, position)
) WITHOUT ROWID;

-- request_id is null for the weights that came with the bundle.
CREATE TABLE IF NOT EXISTS generations (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id INTEGER REFERENCES requests (id),
    file       TEXT NOT NULL UNIQUE,  -- name in the folder of generations
    sha256     TEXT NOT NULL,
    created    TEXT NOT NULL,
    serving    INTEGER NOT NULL CHECK (serving IN (0, 1))
);

-- At most one generation serves: a swap changes both rows in one transaction.
CREATE UNIQUE INDEX IF NOT EXISTS one_serving ON generations (serving) WHERE serving = 1;

CREATE TABLE IF NOT EXISTS records (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id INTEGER NOT NULL REFERENCES requests (id),
    phase      TEXT NOT NULL,
    record     TEXT NOT NULL     -- JSON object, contract/cost.schema.json
);
