-- Coins that are being exchanged for others at the nodes. Both sides are known before the first request leaves, so
-- that whatever the nodes did by then can be found out afterwards.

CREATE TABLE work (
    id         BLOB    PRIMARY KEY,
    kind       INTEGER NOT NULL,               -- 0 pown, 1 break, 2 join
    wallet     TEXT    NOT NULL,               -- where the coins end up
    session    INTEGER NOT NULL,               -- of break and join
    created_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE work_coin (
    work         BLOB    NOT NULL REFERENCES work (id),
    side         INTEGER NOT NULL,             -- 0 given, 1 taken
    denomination INTEGER NOT NULL,
    serial       INTEGER NOT NULL,
    ans          BLOB    NOT NULL,
    PRIMARY KEY (work, side, denomination, serial)
) WITHOUT ROWID;
CREATE INDEX work_coin_by_coin ON work_coin (denomination, serial);
CREATE INDEX locker_coin_by_coin ON locker_coin (denomination, serial);
