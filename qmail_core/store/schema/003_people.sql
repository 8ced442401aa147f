-- What is known of contacts beyond where to reach them, and what became of payments that came with mail.

ALTER TABLE contact ADD COLUMN custom_sn   TEXT    NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN first_name  TEXT    NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN middle_name TEXT    NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN last_name   TEXT    NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN description TEXT    NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN class_name  TEXT    NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN favorite    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE contact ADD COLUMN trust_level INTEGER NOT NULL DEFAULT 0;   -- -1 blocked, 0 unknown, 1 trusted
ALTER TABLE contact ADD COLUMN user_notes  TEXT    NOT NULL DEFAULT '';
ALTER TABLE contact ADD COLUMN updated_at  INTEGER NOT NULL DEFAULT 0;
CREATE INDEX contact_popular ON contact (favorite DESC, send_count DESC, last_sent_at DESC);

ALTER TABLE tell ADD COLUMN payment   INTEGER NOT NULL DEFAULT 0;        -- 0 unclaimed, 1 claimed, 2 failed, 3 refunded
ALTER TABLE tell ADD COLUMN dismissed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outgoing_tell_due ON outgoing_tell (status, next_attempt);
