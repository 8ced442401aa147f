-- The one mail store: users, their mailboxes, messages however they came, and a journal of what changed.
-- User 1 is the engine's own identity; the node API sees that user's mailboxes as its fixed folders.
-- Object ids are 12 bytes, the first four the Unix time. Counters are kept by triggers, so no statement can forget them.

ALTER TABLE mailbox RENAME TO old_mailbox;
ALTER TABLE message RENAME TO old_message;
ALTER TABLE attachment RENAME TO old_attachment;
DROP INDEX message_by_time;
DROP INDEX message_unread;

CREATE TABLE user (
    id           INTEGER PRIMARY KEY,
    oid          BLOB    NOT NULL UNIQUE,
    username     TEXT    NOT NULL UNIQUE,
    name         TEXT    NOT NULL DEFAULT '',
    denomination INTEGER,                      -- RAIDA identity whose mail is delivered here
    serial       INTEGER,
    quota        INTEGER NOT NULL DEFAULT 0,   -- bytes; 0: the service's default
    used         INTEGER NOT NULL DEFAULT 0,   -- bytes of all messages
    retention    INTEGER NOT NULL DEFAULT 0,   -- ms for new mailboxes; 0: for ever
    language     TEXT    NOT NULL DEFAULT 'en',
    created_at   INTEGER NOT NULL DEFAULT (strftime('%s'))
);

CREATE TABLE mailbox (
    id          INTEGER PRIMARY KEY,
    oid         BLOB    NOT NULL UNIQUE,
    user        INTEGER NOT NULL REFERENCES user (id),
    path        TEXT    NOT NULL,
    special_use TEXT,                          -- \Sent, \Trash, \Drafts, \Junk, \Archive; NULL for INBOX and all others
    folder      INTEGER NOT NULL,              -- as the node API shows it: 0 inbox, 1 sent, 2 drafts, 3 trash, 5 archive
    uidvalidity INTEGER NOT NULL,
    uidnext     INTEGER NOT NULL DEFAULT 1,
    modseq      INTEGER NOT NULL DEFAULT 0,
    subscribed  INTEGER NOT NULL DEFAULT 1,
    retention   INTEGER NOT NULL DEFAULT 0,    -- ms; 0: for ever
    total       INTEGER NOT NULL DEFAULT 0,
    unseen      INTEGER NOT NULL DEFAULT 0,
    size        INTEGER NOT NULL DEFAULT 0,
    UNIQUE (user, path)
);

CREATE TABLE message (
    id           INTEGER PRIMARY KEY,
    oid          BLOB    NOT NULL UNIQUE,
    email_id     BLOB    NOT NULL UNIQUE,      -- 16 bytes: the guid, or derived from it or from the oid
    user         INTEGER NOT NULL REFERENCES user (id),
    mailbox      INTEGER NOT NULL REFERENCES mailbox (id),
    uid          INTEGER NOT NULL,
    modseq       INTEGER NOT NULL,
    guid         BLOB,                         -- came or went over RAIDA
    outgoing     INTEGER NOT NULL DEFAULT 0,
    thread       BLOB    NOT NULL,
    subject      TEXT    NOT NULL,
    preview      TEXT    NOT NULL,             -- the first 200 characters of the text
    from_name    TEXT    NOT NULL,
    from_address TEXT    NOT NULL,
    denomination INTEGER NOT NULL DEFAULT 0,   -- of a RAIDA sender
    serial       INTEGER NOT NULL DEFAULT 0,   -- 0: none
    recipients   BLOB    NOT NULL,             -- JSON
    received_at  INTEGER NOT NULL,
    sent_at      INTEGER NOT NULL,             -- what the message says itself
    size         INTEGER NOT NULL,
    seen         INTEGER NOT NULL DEFAULT 0,
    flagged      INTEGER NOT NULL DEFAULT 0,
    deleted      INTEGER NOT NULL DEFAULT 0,
    draft        INTEGER NOT NULL DEFAULT 0,
    answered     INTEGER NOT NULL DEFAULT 0,
    forwarded    INTEGER NOT NULL DEFAULT 0,
    attachments  INTEGER NOT NULL DEFAULT 0,
    inbox_fee    INTEGER NOT NULL DEFAULT 0,
    expires      INTEGER,
    UNIQUE (mailbox, uid)
);
CREATE UNIQUE INDEX message_by_guid ON message (guid, outgoing, user) WHERE guid IS NOT NULL;
CREATE INDEX message_by_time ON message (mailbox, received_at DESC, uid DESC);
CREATE INDEX message_unread ON message (mailbox, received_at DESC, uid DESC) WHERE NOT seen;
CREATE INDEX message_flagged ON message (user, received_at DESC) WHERE flagged;
CREATE INDEX message_by_thread ON message (user, thread);
CREATE INDEX message_expires ON message (expires) WHERE expires IS NOT NULL;

CREATE TABLE content (
    message    INTEGER PRIMARY KEY REFERENCES message (id),
    scope      TEXT    NOT NULL,               -- "u" and the user's number, "h" in trash and junk: what a search may look at
    subject    TEXT    NOT NULL,
    sender     TEXT    NOT NULL,
    recipients TEXT    NOT NULL,
    text       TEXT    NOT NULL,
    html       TEXT    NOT NULL DEFAULT '',
    headers    BLOB    NOT NULL DEFAULT x'7b7d', -- JSON: what a reader of the message is shown of its header
    structure  BLOB    NOT NULL DEFAULT x'5b5d'  -- JSON: parts of the raw message by offset
);
CREATE VIRTUAL TABLE search USING fts5 (
    scope, subject, sender, recipients, text,
    content='content', content_rowid='message', tokenize='unicode61 remove_diacritics 2', detail='column'
);

CREATE TABLE attachment (
    id           INTEGER PRIMARY KEY,
    message      INTEGER NOT NULL REFERENCES message (id),
    position     INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    content_type TEXT    NOT NULL DEFAULT 'application/octet-stream',
    size         INTEGER NOT NULL,
    mode         INTEGER NOT NULL,             -- 0 a part of the raw message, 1 file on disk, 2 still on the network
    path         TEXT    NOT NULL DEFAULT '',
    UNIQUE (message, position)
);

-- A raw message is a row of pieces; equal pieces are stored once.
CREATE TABLE blob (
    hash BLOB    PRIMARY KEY,                  -- SHA-256
    size INTEGER NOT NULL,
    refs INTEGER NOT NULL DEFAULT 0,
    data BLOB,                                 -- NULL: a file
    name TEXT    NOT NULL DEFAULT ''           -- of that file; no two rows, ever, have the same
);
CREATE INDEX blob_unused ON blob (hash) WHERE refs = 0;
CREATE TABLE piece (
    message  INTEGER NOT NULL REFERENCES message (id),
    position INTEGER NOT NULL,
    hash     BLOB    NOT NULL REFERENCES blob (hash),
    PRIMARY KEY (message, position)
) WITHOUT ROWID;
CREATE INDEX piece_by_hash ON piece (hash);

-- Which thread a message belongs to: its subject together with any id it names.
CREATE TABLE thread (
    user    INTEGER NOT NULL REFERENCES user (id),
    key     BLOB    NOT NULL,
    thread  BLOB    NOT NULL,
    used_at INTEGER NOT NULL,
    PRIMARY KEY (user, key)
) WITHOUT ROWID;

CREATE TABLE journal (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    user    INTEGER NOT NULL,
    command TEXT    NOT NULL,                  -- EXISTS, EXPUNGE, FETCH, CREATE, RENAME, DROP, TELL
    mailbox BLOB,                              -- oid
    message BLOB,                              -- oid
    uid     INTEGER,
    modseq  INTEGER,
    detail  BLOB    NOT NULL DEFAULT x'7b7d'   -- JSON
);
CREATE INDEX journal_by_user ON journal (user, id);
CREATE INDEX journal_by_time ON journal (at);

CREATE TRIGGER message_added AFTER INSERT ON message BEGIN
    UPDATE mailbox SET total = total + 1, unseen = unseen + (NOT NEW.seen), size = size + NEW.size
        WHERE id = NEW.mailbox;
    UPDATE user SET used = used + NEW.size WHERE id = NEW.user;
END;
CREATE TRIGGER message_removed AFTER DELETE ON message BEGIN
    UPDATE mailbox SET total = total - 1, unseen = unseen - (NOT OLD.seen), size = size - OLD.size
        WHERE id = OLD.mailbox;
    UPDATE user SET used = used - OLD.size WHERE id = OLD.user;
END;
CREATE TRIGGER message_changed AFTER UPDATE OF mailbox, seen, size ON message BEGIN
    UPDATE mailbox SET total = total - 1, unseen = unseen - (NOT OLD.seen), size = size - OLD.size
        WHERE id = OLD.mailbox;
    UPDATE mailbox SET total = total + 1, unseen = unseen + (NOT NEW.seen), size = size + NEW.size
        WHERE id = NEW.mailbox;
    UPDATE user SET used = used + NEW.size - OLD.size WHERE id = NEW.user;
END;
CREATE TRIGGER content_added AFTER INSERT ON content BEGIN
    INSERT INTO search (rowid, scope, subject, sender, recipients, text)
        VALUES (NEW.message, NEW.scope, NEW.subject, NEW.sender, NEW.recipients, NEW.text);
END;
CREATE TRIGGER content_removed AFTER DELETE ON content BEGIN
    INSERT INTO search (search, rowid, scope, subject, sender, recipients, text)
        VALUES ('delete', OLD.message, OLD.scope, OLD.subject, OLD.sender, OLD.recipients, OLD.text);
END;
CREATE TRIGGER content_changed AFTER UPDATE OF scope ON content WHEN OLD.scope <> NEW.scope BEGIN
    INSERT INTO search (search, rowid, scope, subject, sender, recipients, text)
        VALUES ('delete', OLD.message, OLD.scope, OLD.subject, OLD.sender, OLD.recipients, OLD.text);
    INSERT INTO search (rowid, scope, subject, sender, recipients, text)
        VALUES (NEW.message, NEW.scope, NEW.subject, NEW.sender, NEW.recipients, NEW.text);
END;
CREATE TRIGGER piece_added AFTER INSERT ON piece BEGIN
    UPDATE blob SET refs = refs + 1 WHERE hash = NEW.hash;
END;
CREATE TRIGGER piece_removed AFTER DELETE ON piece BEGIN
    UPDATE blob SET refs = refs - 1 WHERE hash = OLD.hash;
END;

INSERT INTO user (id, oid, username) VALUES (1, randomblob(12), 'local');
INSERT INTO mailbox (oid, user, path, special_use, folder, uidvalidity, uidnext, modseq)
    SELECT randomblob(12), 1, column2, column3, column1, strftime('%s'),
        coalesce((SELECT uidnext FROM old_mailbox WHERE folder = column1 AND column3 IS NOT '\Junk'), 1),
        coalesce((SELECT modseq FROM old_mailbox WHERE folder = column1 AND column3 IS NOT '\Junk'), 0)
    FROM (VALUES (0, 'INBOX', NULL), (1, 'Sent Mail', '\Sent'), (2, 'Drafts', '\Drafts'), (3, 'Trash', '\Trash'),
        (5, 'Archive', '\Archive'), (3, 'Junk', '\Junk'));

INSERT INTO message (id, oid, email_id, user, mailbox, uid, modseq, guid, outgoing, thread, subject, preview, from_name,
        from_address, denomination, serial, recipients, received_at, sent_at, size, seen, flagged, attachments, inbox_fee)
    SELECT rowid, randomblob(12), o.id, 1, (SELECT id FROM mailbox m WHERE m.folder = o.folder ORDER BY id LIMIT 1), uid,
        modseq, guid, outgoing, randomblob(12), subject, substr(body, 1, 200), '', sender_text, denomination, serial,
        recipients, received_at, sent_at, length(CAST(body AS BLOB))
            + coalesce((SELECT sum(size) FROM old_attachment a WHERE a.message = o.id), 0),
        is_read, is_starred, attachments, inbox_fee
    FROM old_message o;
INSERT INTO content (message, scope, subject, sender, recipients, text)
    SELECT rowid, 'u1', subject, sender_text, CAST(recipients AS TEXT), body FROM old_message;
INSERT INTO attachment (id, message, position, name, size, mode, path)
    SELECT a.id, m.id, position, name, a.size, mode, path FROM old_attachment a JOIN message m ON m.email_id = a.message;
DROP TABLE old_attachment;
DROP TABLE old_message;
DROP TABLE old_mailbox;
