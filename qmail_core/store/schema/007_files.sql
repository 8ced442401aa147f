-- The file-transfer API: its tokens, PINs and keys, sealed files, uploads under way, downloads, and sent mail by recipient.
-- Secrets are here as hashes, or wrapped under something that is not here. Ids are 16-byte blobs, times Unix seconds.

CREATE TABLE transfer_token (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    user       INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    name       TEXT    NOT NULL,
    hash       BLOB    NOT NULL UNIQUE,        -- SHA-256
    created_at INTEGER NOT NULL
);

CREATE TABLE transfer_vault (
    user    INTEGER PRIMARY KEY REFERENCES user (id) ON DELETE CASCADE,
    public  BLOB    NOT NULL,                  -- X25519: file keys are sealed to it
    salt    BLOB    NOT NULL,
    cost    INTEGER NOT NULL,                  -- scrypt's N
    wrapped BLOB    NOT NULL                   -- the private half under the key the PIN gives
);

CREATE TABLE transfer_guess (                  -- PINs that were tried and not right
    user INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    at   INTEGER NOT NULL
);
CREATE INDEX transfer_guess_by_user ON transfer_guess (user, at);

CREATE TABLE transfer_pin_key (
    hash       BLOB    PRIMARY KEY,            -- SHA-256
    user       INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    wrapped    BLOB    NOT NULL,               -- the private half under this key
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE transfer_file (
    number     INTEGER PRIMARY KEY,
    id         BLOB    NOT NULL UNIQUE,
    user       INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    filename   TEXT    NOT NULL,               -- without extension
    extension  TEXT    NOT NULL,
    type       TEXT    NOT NULL,
    size       INTEGER NOT NULL,
    sha256     BLOB    NOT NULL,
    crc32      INTEGER NOT NULL,
    sealed     BLOB    NOT NULL,               -- the file's key, to the user's public key
    created_at INTEGER NOT NULL,
    trashed    INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX transfer_file_by_user ON transfer_file (user, trashed, number);

CREATE TABLE transfer_upload (
    id         BLOB    PRIMARY KEY,
    user       INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    token      INTEGER NOT NULL,               -- goes on only with the token it began with
    name       TEXT    NOT NULL,
    type       TEXT    NOT NULL,
    length     INTEGER,                        -- NULL: not said yet
    size       INTEGER NOT NULL,               -- plain bytes that are safe
    segments   INTEGER NOT NULL,               -- of those, in the file
    tail       BLOB    NOT NULL,               -- the rest, under the file's key
    wrapped    BLOB    NOT NULL,               -- the file's key, under the token
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE transfer_download (
    id         BLOB    PRIMARY KEY,
    user       INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    files      BLOB    NOT NULL,               -- their ids, one behind the other
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ended      TEXT    NOT NULL DEFAULT ''     -- why it is over
) WITHOUT ROWID;

CREATE TABLE transfer_download_key (
    hash       BLOB    PRIMARY KEY,            -- SHA-256
    download   BLOB    NOT NULL,
    wrapped    BLOB    NOT NULL,               -- the keys of its files, under this key
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX transfer_download_key_by_download ON transfer_download_key (download);

-- Sent mail, one row for each recipient, kept beside the receipts it comes from.
CREATE TABLE transfer_mail (
    id        BLOB    NOT NULL UNIQUE DEFAULT (randomblob(16)),
    guid      BLOB    NOT NULL,
    position  INTEGER NOT NULL,
    subject   TEXT    NOT NULL,
    recipient TEXT    NOT NULL,
    denomination INTEGER NOT NULL,
    serial    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    sent_at   INTEGER NOT NULL,                -- 0: not yet
    status    TEXT    NOT NULL,                -- queued, sending, success, failed
    PRIMARY KEY (guid, position)
);
CREATE INDEX transfer_mail_by_time ON transfer_mail (created_at);

CREATE VIEW transfer_mail_now AS
    SELECT r.guid AS guid, j.key AS position,
        coalesce(json_extract(CAST(r.body AS TEXT), '$.upload.subject'), '') AS subject,
        json_extract(j.value, '$.address') AS recipient,
        json_extract(j.value, '$.denomination') AS denomination,
        json_extract(j.value, '$.serial_number') AS serial,
        json_extract(CAST(r.body AS TEXT), '$.created_at') AS created_at,
        CASE json_extract(j.value, '$.status') WHEN 'sent' THEN json_extract(j.value, '$.finished_at') ELSE 0 END
            AS sent_at,
        CASE WHEN json_extract(j.value, '$.status') = 'sent' THEN 'success'
             WHEN r.upload_status = 'failed' OR json_extract(j.value, '$.status') = 'failed' THEN 'failed'
             WHEN json_extract(j.value, '$.status') = 'queued' THEN 'queued'
             ELSE 'sending' END AS status
    FROM receipt r, json_each(CAST(r.body AS TEXT), '$.tell.recipients') j;

INSERT INTO transfer_mail (guid, position, subject, recipient, denomination, serial, created_at, sent_at, status)
    SELECT guid, position, subject, recipient, denomination, serial, created_at, sent_at, status
    FROM transfer_mail_now;

CREATE TRIGGER receipt_added AFTER INSERT ON receipt BEGIN
    INSERT INTO transfer_mail (guid, position, subject, recipient, denomination, serial, created_at, sent_at, status)
        SELECT guid, position, subject, recipient, denomination, serial, created_at, sent_at, status
        FROM transfer_mail_now WHERE guid = NEW.guid;
END;
-- All rows are there, so this only changes them: an upsert reads the document once, where an UPDATE would for each row.
CREATE TRIGGER receipt_changed AFTER UPDATE OF body ON receipt BEGIN
    INSERT INTO transfer_mail (guid, position, subject, recipient, denomination, serial, created_at, sent_at, status)
        SELECT NEW.guid, j.key, '', '', 0, 0, 0,
            CASE json_extract(j.value, '$.status') WHEN 'sent' THEN json_extract(j.value, '$.finished_at') ELSE 0 END,
            CASE WHEN json_extract(j.value, '$.status') = 'sent' THEN 'success'
                 WHEN NEW.upload_status = 'failed' OR json_extract(j.value, '$.status') = 'failed' THEN 'failed'
                 WHEN json_extract(j.value, '$.status') = 'queued' THEN 'queued'
                 ELSE 'sending' END
        FROM json_each(CAST(NEW.body AS TEXT), '$.tell.recipients') j WHERE true
        ON CONFLICT (guid, position) DO UPDATE SET sent_at = excluded.sent_at, status = excluded.status
            WHERE sent_at <> excluded.sent_at OR status <> excluded.status;
END;
