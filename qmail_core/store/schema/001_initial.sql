-- One engine's memory: identity and wallet, sends under way, receipts, tells, messages.
-- Times are Unix seconds, GUIDs and message ids 16-byte blobs.

CREATE TABLE coin (
    denomination INTEGER NOT NULL,
    serial       INTEGER NOT NULL,
    wallet       TEXT    NOT NULL,
    ans          BLOB    NOT NULL,             -- 16 bytes per node
    PRIMARY KEY (denomination, serial)
) WITHOUT ROWID;
CREATE INDEX coin_by_wallet ON coin (wallet, denomination);

CREATE TABLE locker (
    code        TEXT    PRIMARY KEY,
    kind        INTEGER NOT NULL,              -- 0 upload, 1 inbox fee
    value       INTEGER NOT NULL,              -- whole CloudCoins
    state       INTEGER NOT NULL,              -- 0 available, 1 reserved, 2 consumed, 3 limbo, 4 funding
    wallet      TEXT    NOT NULL,
    funded_at   BLOB    NOT NULL DEFAULT x'',  -- bitmap of nodes that confirmed the coins, least significant bit first
    guid        BLOB,
    unit        INTEGER,                       -- upload: 0 the mail itself, 1.. attachments; inbox fee: recipient row
    node        INTEGER,                       -- upload: the server this locker pays
    created_at  INTEGER NOT NULL,
    consumed_at INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX locker_by_state ON locker (state, kind);
CREATE INDEX locker_by_guid ON locker (guid);

CREATE TABLE locker_coin (
    code         TEXT    NOT NULL REFERENCES locker (code),
    denomination INTEGER NOT NULL,
    serial       INTEGER NOT NULL,
    ans          BLOB    NOT NULL,             -- from before the coins moved, to repeat the move or take it back
    PRIMARY KEY (code, denomination, serial)
) WITHOUT ROWID;

CREATE TABLE send (
    guid       BLOB    PRIMARY KEY,
    job        BLOB    NOT NULL,               -- JSON, see engine/jobs.py
    stage      TEXT    NOT NULL,               -- upload, uploaded, tell, done, failed
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX send_by_stage ON send (stage);

CREATE TABLE send_object (
    guid      BLOB    NOT NULL REFERENCES send (guid),
    file_type INTEGER NOT NULL,
    data      BLOB    NOT NULL,
    PRIMARY KEY (guid, file_type)
) WITHOUT ROWID;

CREATE TABLE receipt (
    guid          BLOB    PRIMARY KEY,
    body          BLOB    NOT NULL,            -- JSON, the documented receipt
    upload_status TEXT    NOT NULL,
    tell_status   TEXT    NOT NULL,
    updated_at    INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE outgoing_tell (
    id           INTEGER PRIMARY KEY,
    guid         BLOB    NOT NULL,
    position     INTEGER NOT NULL,             -- row of the receipt's recipients
    beacon       INTEGER NOT NULL,
    status       TEXT    NOT NULL,             -- pending, sent, failed
    retry_count  INTEGER NOT NULL DEFAULT 0,
    last_error   TEXT    NOT NULL DEFAULT '',
    created_at   INTEGER NOT NULL,
    last_attempt INTEGER NOT NULL DEFAULT 0,
    next_attempt INTEGER NOT NULL,
    UNIQUE (guid, position)
);

CREATE TABLE repair (
    guid    BLOB    PRIMARY KEY,
    due     INTEGER NOT NULL,
    tries   INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE tell (
    id          INTEGER PRIMARY KEY,
    guid        BLOB    NOT NULL UNIQUE,
    record      BLOB    NOT NULL,              -- as the beacon served it
    received_at INTEGER NOT NULL,
    downloaded  INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE mailbox (
    folder      INTEGER PRIMARY KEY,           -- fixed folders of the node API
    name        TEXT    NOT NULL,
    uidvalidity INTEGER NOT NULL,
    uidnext     INTEGER NOT NULL DEFAULT 1,
    modseq      INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE message (
    id          BLOB    PRIMARY KEY,           -- the guid; for the second copy of a mail sent to oneself, derived from it
    guid        BLOB    NOT NULL,
    outgoing    INTEGER NOT NULL,              -- 1 sent by us, 0 received
    folder      INTEGER NOT NULL REFERENCES mailbox (folder),
    uid         INTEGER NOT NULL,
    modseq      INTEGER NOT NULL,
    subject     TEXT    NOT NULL,
    body        TEXT    NOT NULL,
    denomination INTEGER NOT NULL,             -- of the sender
    serial      INTEGER NOT NULL,
    sender_text TEXT    NOT NULL,
    recipients  BLOB    NOT NULL,              -- JSON
    received_at INTEGER NOT NULL,
    sent_at     INTEGER NOT NULL,
    is_read     INTEGER NOT NULL DEFAULT 0,
    is_starred  INTEGER NOT NULL DEFAULT 0,
    attachments INTEGER NOT NULL DEFAULT 0,
    inbox_fee   INTEGER NOT NULL DEFAULT 0,
    UNIQUE (folder, uid),
    UNIQUE (guid, outgoing)
);
CREATE INDEX message_by_time ON message (folder, received_at DESC);
CREATE INDEX message_unread ON message (folder) WHERE NOT is_read;

CREATE TABLE attachment (
    id       INTEGER PRIMARY KEY,
    message  BLOB    NOT NULL REFERENCES message (id),
    position INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    size     INTEGER NOT NULL,
    mode     INTEGER NOT NULL,                 -- 1 file on disk, 2 still on the network
    path     TEXT    NOT NULL DEFAULT '',
    UNIQUE (message, position)
);

CREATE TABLE contact (
    denomination INTEGER NOT NULL,
    serial       INTEGER NOT NULL,
    address      TEXT    NOT NULL,             -- how the user writes it
    beacon       INTEGER NOT NULL DEFAULT 11,
    second       INTEGER NOT NULL DEFAULT 14,
    inbox_fee    INTEGER NOT NULL DEFAULT 10,
    send_count   INTEGER NOT NULL DEFAULT 0,
    last_sent_at INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (denomination, serial)
) WITHOUT ROWID;
CREATE UNIQUE INDEX contact_by_address ON contact (lower(address));
CREATE INDEX contact_by_serial ON contact (serial);

INSERT INTO mailbox (folder, name, uidvalidity) VALUES
    (0, 'inbox', 1), (1, 'sent', 1), (2, 'drafts', 1), (3, 'trash', 1), (4, 'starred', 1), (5, 'archive', 1);
