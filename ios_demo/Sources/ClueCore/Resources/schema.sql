-- The store of every runtime: samples, forget requests, generations of weights, receipts, cost records.
-- docs/runtime-contract.md says what the rows mean and when they change. user_version is 2; a runtime migrates an
-- older store when it opens it and refuses a newer one. Times are UTC, ISO 8601, whole seconds; nothing is ordered by
-- them: a clock may go backwards, ids do not.

-- What the store belongs to: name, manifest_sha256, weights_sha256 (of the bundle that was adopted last), classes
-- (JSON array), input (JSON array C, H, W).
CREATE TABLE IF NOT EXISTS bundle (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- The key itself is the file keys/ID.key (32 bytes), never in the database: destroying the file makes every copy of the
-- samples whose keys it wraps unreadable, those in old pages and in the write-ahead log too.
CREATE TABLE IF NOT EXISTS keys (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id INTEGER REFERENCES requests (id),
    label      INTEGER,          -- an intake key: of this class's samples that no request has; else null
    created    TEXT NOT NULL,
    destroyed  TEXT              -- from then on the file must not exist
);

CREATE UNIQUE INDEX IF NOT EXISTS one_intake ON keys (label) WHERE label IS NOT NULL AND destroyed IS NULL;

-- Each sample has a key of its own, which is kept wrapped: taking a sample to another key rewrites 60 bytes, not its pixels.
CREATE TABLE IF NOT EXISTS samples (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256   TEXT NOT NULL,      -- of the pixels, hex
    label    INTEGER NOT NULL,   -- index of the class
    height   INTEGER NOT NULL,
    width    INTEGER NOT NULL,
    channels INTEGER NOT NULL,
    key_id   INTEGER NOT NULL REFERENCES keys (id),
    wrapped  BLOB NOT NULL,      -- the sample's key, 32 bytes: nonce (12), AES-256-GCM by the key key_id, tag (16)
    added    TEXT NOT NULL,
    UNIQUE (label, sha256)
);

CREATE INDEX IF NOT EXISTS samples_of_key ON samples (key_id);

-- Apart from samples, so that counting and listing these reads no pixels.
CREATE TABLE IF NOT EXISTS pixels (
    sample_id INTEGER PRIMARY KEY REFERENCES samples (id),
    content   BLOB NOT NULL      -- uint8 height * width * channels, row by row: nonce, AES-256-GCM by the sample's key, tag
);

CREATE TABLE IF NOT EXISTS requests (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        TEXT NOT NULL CHECK (kind IN ('class', 'samples')),
    label       INTEGER,         -- index of the class; null for kind 'samples'
    class       TEXT,
    status      TEXT NOT NULL CHECK (status IN
        ('queued', 'running', 'verifying', 'paused', 'done', 'failed', 'cancelled')),
    seed        INTEGER NOT NULL,
    scalars     TEXT NOT NULL,   -- JSON object: every scalar of the method as this request uses it
    options     TEXT NOT NULL DEFAULT '{}',  -- JSON object: accuracy_at_most, max_seconds, max_joules, checkpoint_steps ...
    samples     INTEGER NOT NULL,            -- how many it has; stays when they are erased
    retry_of    INTEGER REFERENCES requests (id),
    base_generation INTEGER REFERENCES generations (id),  -- the weights that it began with
    reason      TEXT,            -- why it failed or paused, or what else is to be told
    evidence    TEXT,            -- JSON object
    created     TEXT NOT NULL,
    started     TEXT,
    finished    TEXT,
    rolled_back TEXT,            -- when a rollback or a new bundle took its effect away; null again when it has effect again
    seal_began  TEXT,            -- sealing is carried on at the next open when sealed is still null
    sealed      TEXT
);

-- The samples of a request, frozen when it is created; position is what random numbers are drawn for.
CREATE TABLE IF NOT EXISTS request_samples (
    request_id INTEGER NOT NULL REFERENCES requests (id),
    position   INTEGER NOT NULL,
    sample_id  INTEGER NOT NULL REFERENCES samples (id),
    PRIMARY KEY (request_id, position)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS requests_of_sample ON request_samples (sample_id);

-- request_id and parent are null for weights that came with a bundle.
CREATE TABLE IF NOT EXISTS generations (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id INTEGER REFERENCES requests (id),
    parent     INTEGER REFERENCES generations (id),
    file       TEXT UNIQUE,      -- name in the folder generations; null once erased
    sha256     TEXT NOT NULL,
    created    TEXT NOT NULL,
    erased     TEXT,
    erased_for INTEGER REFERENCES requests (id),  -- the request whose sealing erased it
    serving    INTEGER NOT NULL CHECK (serving IN (0, 1))
);

-- At most one generation serves: a swap changes both rows in one transaction.
CREATE UNIQUE INDEX IF NOT EXISTS one_serving ON generations (serving) WHERE serving = 1;

-- One request runs at a time.
CREATE UNIQUE INDEX IF NOT EXISTS one_running ON requests ((1)) WHERE status IN ('running', 'verifying');

CREATE TABLE IF NOT EXISTS receipts (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id INTEGER REFERENCES requests (id),
    kind       TEXT NOT NULL CHECK (kind IN ('forget', 'rollback', 'seal', 'adopt')),
    receipt    TEXT NOT NULL     -- canonical JSON, contract/receipt.schema.json
);

CREATE TABLE IF NOT EXISTS records (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id INTEGER NOT NULL REFERENCES requests (id),
    phase      TEXT NOT NULL,
    record     TEXT NOT NULL     -- JSON object, contract/cost.schema.json
);
