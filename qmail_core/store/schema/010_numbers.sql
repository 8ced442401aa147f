-- Numbers of messages and mailboxes are never used again either: who looked one up before it was removed must not meet
-- another one under it.
CREATE TABLE number (
    kind TEXT    PRIMARY KEY,                  -- a table
    last INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO number VALUES
    ('message', (SELECT coalesce(max(id), 0) FROM message)),
    ('mailbox', (SELECT coalesce(max(id), 0) FROM mailbox));
