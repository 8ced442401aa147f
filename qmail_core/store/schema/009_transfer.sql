-- Files are sealed in a layout with some more bytes than before, so their stored size is no longer known from the plain
-- one. Those of before: a header of 8 bytes, segments of 64 KiB with 16 bytes each, and one segment at least.

ALTER TABLE transfer_file ADD COLUMN stored INTEGER NOT NULL DEFAULT 0;
UPDATE transfer_file SET stored = 8 + size + 16 * max(1, (size + 65535) / 65536);

-- Who has opened a sent mail, and of which mails that came in their senders are to be told so.

ALTER TABLE transfer_mail ADD COLUMN opened_at INTEGER NOT NULL DEFAULT 0; -- 0: not that anybody knows

CREATE TABLE transfer_opened (                 -- received mails the user has opened
    guid         BLOB    PRIMARY KEY,
    denomination INTEGER NOT NULL,             -- of the sender
    serial       INTEGER NOT NULL,
    opened_at    INTEGER NOT NULL DEFAULT 0,   -- 0: just now
    tries        INTEGER NOT NULL DEFAULT 0,
    due          INTEGER DEFAULT 0             -- when to tell the sender; NULL: never, or done
) WITHOUT ROWID;
CREATE INDEX transfer_opened_due ON transfer_opened (due) WHERE due IS NOT NULL;

-- whichever surface it was opened in; user 1 is the engine's own
CREATE TRIGGER message_opened AFTER UPDATE OF seen ON message
    WHEN NEW.seen AND NOT OLD.seen AND NEW.user = 1 AND NEW.guid IS NOT NULL AND NOT NEW.outgoing AND NOT NEW.draft
BEGIN
    INSERT OR IGNORE INTO transfer_opened (guid, denomination, serial) VALUES (NEW.guid, NEW.denomination, NEW.serial);
END;
