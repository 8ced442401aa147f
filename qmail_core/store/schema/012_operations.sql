-- Object Transfer with single nodes: what its users follow, resume and cancel.
CREATE TABLE operation (
    number     INTEGER PRIMARY KEY,
    id         BLOB    NOT NULL UNIQUE,
    object_id  BLOB    NOT NULL,
    open       INTEGER NOT NULL,               -- has not ended
    body       BLOB    NOT NULL,               -- JSON, see model/operations.py
    updated_at INTEGER NOT NULL
);
CREATE INDEX operation_open ON operation (number) WHERE open;
CREATE INDEX operation_by_object ON operation (object_id);
