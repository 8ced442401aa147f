-- Mail that leaves and mail that is sorted: the queue to the relay, daily limits, filters, answers of the absent,
-- webhooks. Webhooks have no queue: the journal is one, and each webhook remembers how far it was told.

CREATE TABLE relay (
    id           INTEGER PRIMARY KEY,
    oid          BLOB    NOT NULL UNIQUE,      -- the queue id
    user         INTEGER NOT NULL REFERENCES user (id),
    sender       TEXT    NOT NULL,             -- of the envelope; empty: nobody wants to know if it fails
    recipients   BLOB    NOT NULL,             -- JSON; those that are left
    raw          BLOB    NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_attempt INTEGER NOT NULL,
    created_at   INTEGER NOT NULL
);
CREATE INDEX relay_due ON relay (next_attempt);
CREATE INDEX relay_by_user ON relay (user);

CREATE TABLE allowance (
    user  INTEGER NOT NULL REFERENCES user (id),
    kind  TEXT    NOT NULL,                    -- recipients, forwards
    used  INTEGER NOT NULL,
    until INTEGER NOT NULL,                    -- when counting starts again
    PRIMARY KEY (user, kind)
) WITHOUT ROWID;

CREATE TABLE filter (
    id         INTEGER PRIMARY KEY,
    oid        BLOB    NOT NULL UNIQUE,
    user       INTEGER NOT NULL REFERENCES user (id),
    name       TEXT    NOT NULL,
    query      BLOB    NOT NULL,               -- JSON
    action     BLOB    NOT NULL,               -- JSON
    disabled   INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX filter_by_user ON filter (user, oid);

CREATE TABLE autoreply (
    user    INTEGER PRIMARY KEY REFERENCES user (id),
    status  INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    text    TEXT    NOT NULL,
    html    TEXT    NOT NULL,
    start   INTEGER,                           -- NULL: since ever
    "end"   INTEGER                            -- NULL: for ever
);
CREATE TABLE autoreplied (
    user    INTEGER NOT NULL REFERENCES user (id),
    address TEXT    NOT NULL,
    until   INTEGER NOT NULL,
    PRIMARY KEY (user, address)
) WITHOUT ROWID;

CREATE TABLE webhook (
    id           INTEGER PRIMARY KEY,
    oid          BLOB    NOT NULL UNIQUE,
    user         INTEGER REFERENCES user (id), -- NULL: of all users
    url          TEXT    NOT NULL,
    sealed       BLOB    NOT NULL,             -- the key of its signatures
    told         INTEGER NOT NULL,             -- number of the last journal entry it was told of
    attempts     INTEGER NOT NULL DEFAULT 0,   -- since it last answered
    next_attempt INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL
);
CREATE INDEX webhook_by_user ON webhook (user);
