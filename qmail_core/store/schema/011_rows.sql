-- Rows of several hundred bytes whose keys are random stand in the order they came, and only their keys are scattered.
-- In tables ordered by such a key each row dirties a page or two of its own, and a commit writes them all.

DROP VIEW transfer_mail_now;  -- it reads receipts, and comes back below with the triggers that go with the table
CREATE TABLE receipt_rows (
    guid          BLOB    NOT NULL PRIMARY KEY,
    body          BLOB    NOT NULL,            -- JSON, the documented receipt
    upload_status TEXT    NOT NULL,
    tell_status   TEXT    NOT NULL,
    updated_at    INTEGER NOT NULL
);
INSERT INTO receipt_rows SELECT receipt.* FROM receipt LEFT JOIN send USING (guid) ORDER BY send.created_at;
DROP TABLE receipt;
ALTER TABLE receipt_rows RENAME TO receipt;

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

CREATE TABLE send_rows (
    guid       BLOB    NOT NULL PRIMARY KEY,
    job        BLOB    NOT NULL,               -- JSON, see engine/jobs.py
    stage      TEXT    NOT NULL,               -- upload, uploaded, tell, done, failed
    created_at INTEGER NOT NULL
);
CREATE TABLE send_object_rows (
    guid      BLOB    NOT NULL REFERENCES send_rows (guid),
    file_type INTEGER NOT NULL,
    data      BLOB    NOT NULL,
    PRIMARY KEY (guid, file_type)
);
INSERT INTO send_rows SELECT * FROM send ORDER BY created_at;
INSERT INTO send_object_rows SELECT send_object.* FROM send_object JOIN send USING (guid) ORDER BY send.created_at;
DROP TABLE send_object;
DROP TABLE send;
ALTER TABLE send_rows RENAME TO send;
ALTER TABLE send_object_rows RENAME TO send_object;
CREATE INDEX send_by_time ON send (created_at DESC, guid);
CREATE INDEX send_open ON send (created_at) WHERE stage IN ('upload', 'tell');

CREATE TABLE locker_coin_rows (
    code         TEXT    NOT NULL REFERENCES locker (code),
    denomination INTEGER NOT NULL,
    serial       INTEGER NOT NULL,
    ans          BLOB    NOT NULL,             -- from before the coins moved, to repeat the move or take it back
    PRIMARY KEY (code, denomination, serial)
);
INSERT INTO locker_coin_rows SELECT * FROM locker_coin;
DROP TABLE locker_coin;
ALTER TABLE locker_coin_rows RENAME TO locker_coin;
CREATE INDEX locker_coin_by_coin ON locker_coin (denomination, serial);
