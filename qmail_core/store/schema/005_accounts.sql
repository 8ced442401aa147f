-- Accounts: who may log in to a user's mailboxes and how, the addresses that mean a user, and what was tried.
-- No secret is here in the clear: passwords are Argon2id, application passwords are hashed and second factors sealed
-- with a key that lies beside the store, of tokens only the SHA-256 is kept.

ALTER TABLE user ADD COLUMN password     TEXT    NOT NULL DEFAULT '';      -- empty: there is none, nothing opens it
ALTER TABLE user ADD COLUMN password_at  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE user ADD COLUMN recipients   INTEGER NOT NULL DEFAULT 0;       -- per day; 0: the service's default
ALTER TABLE user ADD COLUMN forwards     INTEGER NOT NULL DEFAULT 0;       -- per day; 0: the service's default
ALTER TABLE user ADD COLUMN forward      TEXT    NOT NULL DEFAULT '';      -- address all mail is forwarded to
ALTER TABLE user ADD COLUMN target_url   TEXT    NOT NULL DEFAULT '';      -- where all mail is posted to
ALTER TABLE user ADD COLUMN activated    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE user ADD COLUMN disabled     INTEGER NOT NULL DEFAULT 0;
ALTER TABLE user ADD COLUMN totp_seed    BLOB;                             -- sealed
ALTER TABLE user ADD COLUMN totp_enabled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE user ADD COLUMN totp_step    INTEGER NOT NULL DEFAULT 0;       -- last one accepted; none is accepted twice
ALTER TABLE user ADD COLUMN updated_at   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE user ADD COLUMN meta         BLOB    NOT NULL DEFAULT x'7b7d'; -- JSON, for whoever made the user
CREATE UNIQUE INDEX user_by_name ON user (replace(username, '.', ''));     -- dots do not make another name

-- Numbers of users are never used again, so nothing left over can belong to somebody else.
CREATE TABLE user_number (id INTEGER PRIMARY KEY AUTOINCREMENT);
INSERT INTO user_number (id) SELECT max(id) FROM user;

CREATE TABLE address (
    id         INTEGER PRIMARY KEY,
    oid        BLOB    NOT NULL UNIQUE,
    user       INTEGER NOT NULL REFERENCES user (id),
    address    TEXT    NOT NULL UNIQUE,        -- in the one form all spellings of it come to
    main       INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX address_main ON address (user) WHERE main;
CREATE INDEX address_by_user ON address (user, address);

CREATE TABLE asp (
    id          INTEGER PRIMARY KEY,
    oid         BLOB    NOT NULL UNIQUE,
    user        INTEGER NOT NULL REFERENCES user (id),
    selector    BLOB    NOT NULL,              -- finds the row; tells nothing of the password without the key
    hash        BLOB    NOT NULL,
    description TEXT    NOT NULL,
    scopes      BLOB    NOT NULL,              -- JSON
    created_at  INTEGER NOT NULL,
    used_at     INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX asp_by_selector ON asp (user, selector);

CREATE TABLE authlog (
    id         INTEGER PRIMARY KEY,
    oid        BLOB    NOT NULL UNIQUE,
    user       INTEGER NOT NULL REFERENCES user (id),
    action     TEXT    NOT NULL,
    detail     BLOB    NOT NULL,               -- JSON
    created_at INTEGER NOT NULL
);
CREATE INDEX authlog_by_user ON authlog (user, oid);
CREATE INDEX authlog_by_time ON authlog (created_at);

CREATE TABLE token (
    id          INTEGER PRIMARY KEY,
    oid         BLOB    NOT NULL UNIQUE,
    user        INTEGER REFERENCES user (id),  -- NULL: not bound to a user
    hash        BLOB    NOT NULL,              -- SHA-256 of the secret part
    description TEXT    NOT NULL,
    scopes      BLOB    NOT NULL,              -- JSON
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER                        -- NULL: never
);
CREATE INDEX token_by_user ON token (user);

CREATE TABLE throttle (
    gate     TEXT    PRIMARY KEY,              -- what is counted, and of whom
    failures INTEGER NOT NULL,
    until    INTEGER NOT NULL                  -- when counting starts again
) WITHOUT ROWID;
