-- Keys under which clients may repeat a request, and receipts in the order of their sends.

CREATE TABLE request_key (
    key        TEXT    PRIMARY KEY,
    digest     BLOB    NOT NULL,               -- of the request's parameters
    guid       BLOB    NOT NULL,               -- of the send it started
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX request_key_by_time ON request_key (created_at);
CREATE INDEX send_by_time ON send (created_at DESC, guid);
