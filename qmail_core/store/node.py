"""What one node remembers, on disk: an SQLite database and, for large pages, files beside it. One folder per node.

The rules are those of the protocol this satisfies (`raida.state.NodeState`, by structure only). Small pages are blobs;
larger ones are files written under a name no row has ever pointed to, and a file that no committed row names does not
exist: it is swept at the next open. So a page changes at the database commit and at no other moment.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core.errors import StoreUnavailable

BLOB_LIMIT = 64 * 1024  # larger pages become files: SQLite would spread them over a chain of overflow pages
VERSION = 1
_LOCKER = "substr(an, 13, 4) = X'FFFFFFFF'"  # a partial index serves only queries that repeat its condition

_SCHEMA = f"""
CREATE TABLE coins (selector BLOB PRIMARY KEY, an BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX coins_locker ON coins (an, selector) WHERE {_LOCKER};
CREATE TABLE earned (selector BLOB PRIMARY KEY, an BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE objects (guid BLOB PRIMARY KEY, owner BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE pages (
    guid BLOB NOT NULL, file_type INTEGER NOT NULL, page INTEGER NOT NULL,
    stored REAL NOT NULL, expires REAL,  -- NULL: never
    version INTEGER NOT NULL,            -- part of the file's name
    data BLOB,                           -- NULL: in a file
    UNIQUE (guid, file_type, page)
);
CREATE TABLE payments (
    guid BLOB NOT NULL, unit INTEGER NOT NULL, key BLOB NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (guid, unit)
) WITHOUT ROWID;
CREATE TABLE tells (
    id INTEGER PRIMARY KEY, mailbox BLOB NOT NULL, key BLOB NOT NULL,
    record BLOB,                         -- NULL: deleted, the key stays known
    arrived REAL NOT NULL, served INTEGER NOT NULL DEFAULT 0, served_at REAL NOT NULL DEFAULT 0,
    UNIQUE (mailbox, key)
);
CREATE INDEX tells_kept ON tells (mailbox, id) WHERE record IS NOT NULL;
CREATE TABLE rules (mailbox BLOB PRIMARY KEY, fee INTEGER NOT NULL, class_rejection INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE lists (
    mailbox BLOB NOT NULL, sender BLOB NOT NULL, word TEXT NOT NULL, PRIMARY KEY (mailbox, sender)
) WITHOUT ROWID;
"""


class StoredRule(Struct, frozen=True):
    """A mailbox's rule as it is stored."""

    fee: int  # 10^-8 CC
    class_rejection: int  # signed


class NodeStore:
    """The memory of one node in a folder of its own.

    folder  created if missing; one process at a time may have it open
    raises  StoreUnavailable if the folder cannot be used, is in use, or was written by a newer version

    May be opened in one thread and used in another, but by one thread at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._objects = folder / "objects"
        self._open = False  # a transaction was begun; SQLite itself ends one after some errors
        self._point = False  # a savepoint stands where the current request began
        self._fresh: list[Path] = []  # files no committed row names yet
        self._stale: list[Path] = []  # files that lose their row with the next commit
        self._marked = (0, 0)
        self._folders: set[Path] = set()  # to be fsynced before the next commit
        try:
            for path in (folder, self._objects):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.chmod(0o700)
            self._db = _connect(folder / "node.sqlite")
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"cannot open {folder}: {error}") from error
        try:
            _migrate(self._db)
            self._sweep()
            _sync(folder, os.fsync)
        except (sqlite3.Error, OSError) as error:
            self._db.close()
            raise StoreUnavailable(f"cannot open {folder}: {error}") from error
        except StoreUnavailable:
            self._db.close()
            raise

    # ------------------------------------------------------------------ statements
    def _rows(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._db.execute(sql, args).fetchall()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"database: {error}") from error

    def _one(self, sql: str, args: Sequence[Any]) -> Any:
        """The first column of the first row, or None."""
        rows = self._rows(sql, args)
        return rows[0][0] if rows else None

    def _change(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a changing statement once per row, inside the transaction and the request's savepoint."""
        try:
            self._begin()
            self._db.executemany(sql, rows)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"database: {error}") from error

    def _begin(self) -> None:
        if self._open and not self._db.in_transaction:
            raise StoreUnavailable("the transaction was lost to an earlier error")
        if not self._open:
            self._db.execute("BEGIN IMMEDIATE")
            self._open = True
        if not self._point:
            self._db.execute("SAVEPOINT request")
            self._point = True

    # ------------------------------------------------------------------ transactions
    def mark(self) -> None:
        try:
            if self._point and self._db.in_transaction:
                self._db.execute("RELEASE request")
        except sqlite3.Error as error:
            # the savepoint still stands before the last request: an undo now would take that one back too
            self._end()
            raise StoreUnavailable(f"database: {error}") from error
        self._point = False
        self._marked = (len(self._fresh), len(self._stale))

    def undo(self) -> None:
        if self._point and self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK TO request")
                self._db.execute("RELEASE request")
            except sqlite3.Error:
                # half of a request must not become durable with the rest: end the transaction, so that commit fails
                self._end()
        self._point = False
        fresh, stale = self._marked
        _unlink(self._fresh[fresh:])
        del self._fresh[fresh:], self._stale[stale:]

    def dirty(self) -> bool:
        return self._open

    def commit(self) -> None:
        if not self._open:
            return
        if not self._db.in_transaction:
            raise StoreUnavailable("the transaction was lost to an earlier error")
        try:
            for path in self._fresh:
                _sync(path, os.fdatasync)
            for folder in self._folders:
                _sync(folder, os.fsync)
            self._db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"commit: {error}") from error
        _unlink(self._stale)
        self._forget()

    def rollback(self) -> None:
        self._end()
        _unlink(self._fresh)
        self._forget()

    def _end(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _forget(self) -> None:
        self._open = self._point = False
        self._fresh.clear()
        self._stale.clear()
        self._folders.clear()
        self._marked = (0, 0)

    def close(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed before
            self.rollback()
        self._db.close()

    # ------------------------------------------------------------------ coins
    def an(self, selector: bytes) -> bytes | None:
        found: bytes | None = self._one("SELECT an FROM coins WHERE selector = ?", (selector,))
        return found

    def set_ans(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        rows = list(coins)
        if rows:
            self._change("INSERT INTO coins VALUES (?, ?) ON CONFLICT (selector) DO UPDATE SET an = excluded.an", rows)

    def locker(self, key: bytes) -> list[bytes]:
        rows = self._rows(f"SELECT selector FROM coins WHERE an = ? AND {_LOCKER} ORDER BY selector", (key,))
        return [selector for (selector,) in rows]

    def locker_by_prefix(self, prefix: bytes) -> bytes | None:
        low, high = prefix + bytes(11), prefix + b"\xff" * 11
        sql = f"SELECT an FROM coins WHERE an BETWEEN ? AND ? AND {_LOCKER} ORDER BY an LIMIT 1"
        found: bytes | None = self._one(sql, (low, high))
        return found

    def earn(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        rows = list(coins)
        self.set_ans(rows)
        self._change("INSERT OR REPLACE INTO earned VALUES (?, ?)", rows)

    def earned(self) -> list[tuple[bytes, bytes]]:
        return self._rows("SELECT selector, an FROM earned JOIN coins USING (selector, an) ORDER BY selector")

    # ------------------------------------------------------------------ stripes
    def put_page(self, guid: bytes, file_type: int, page: int, data: Buffer, now: float, expires: float | None) -> None:
        where = (guid, file_type, page)
        rows = self._rows(
            "SELECT version, data IS NULL FROM pages WHERE guid = ? AND file_type = ? AND page = ?", where
        )
        version = 0
        if rows:
            version, in_file = rows[0][0] + 1, rows[0][1]
            if in_file:
                self._stale.append(self._path(*where, version - 1))
        large = memoryview(data).nbytes > BLOB_LIMIT
        if large:
            self._write(self._path(*where, version), data)
        self._change(
            "INSERT INTO pages (guid, file_type, page, stored, expires, version, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (guid, file_type, page) DO UPDATE SET stored = excluded.stored,"
            " expires = excluded.expires, version = excluded.version, data = excluded.data",
            [(*where, now, expires, version, None if large else data)],
        )

    def page(self, guid: bytes, file_type: int, page: int) -> bytes | None:
        where = (guid, file_type, page)
        rows = self._rows("SELECT version, data FROM pages WHERE guid = ? AND file_type = ? AND page = ?", where)
        if not rows:
            return None
        version, data = rows[0]
        if data is not None:
            return bytes(data)
        try:
            return self._path(*where, version).read_bytes()
        except OSError as error:
            raise StoreUnavailable(f"page file: {error}") from error

    def page_count(self) -> int:
        """How many pages are held, for displays."""
        count: int = self._one("SELECT count(*) FROM pages", ())
        return count

    def owner(self, guid: bytes) -> bytes | None:
        found: bytes | None = self._one("SELECT owner FROM objects WHERE guid = ?", (guid,))
        return found

    def claim(self, guid: bytes, owner: bytes) -> None:
        self._change("INSERT OR IGNORE INTO objects VALUES (?, ?)", [(guid, owner)])

    def drop(self, guid: bytes) -> None:
        rows = self._rows("SELECT guid, file_type, page, version FROM pages WHERE guid = ? AND data IS NULL", (guid,))
        self._stale += (self._path(*row) for row in rows)
        self._change("DELETE FROM pages WHERE guid = ?", [(guid,)])

    # ------------------------------------------------------------------ payments
    def paid(self, guid: bytes, unit: int) -> bytes | None:
        found: bytes | None = self._one("SELECT key FROM payments WHERE guid = ? AND unit = ?", (guid, unit))
        return found

    def record_payment(self, guid: bytes, unit: int, key: bytes, value: int) -> None:
        self._change("INSERT OR REPLACE INTO payments VALUES (?, ?, ?, ?)", [(guid, unit, key, value)])

    # ------------------------------------------------------------------ tells
    def add_tell(self, mailbox: bytes, key: bytes, record: bytes, now: float) -> None:
        sql = "INSERT OR IGNORE INTO tells (mailbox, key, record, arrived) VALUES (?, ?, ?, ?)"
        self._change(sql, [(mailbox, key, record, now)])

    def has_tell(self, mailbox: bytes, key: bytes) -> bool:
        return self._one("SELECT 1 FROM tells WHERE mailbox = ? AND key = ?", (mailbox, key)) is not None

    def pending_tells(self, mailbox: bytes) -> int:
        return int(self._one("SELECT count(*) FROM tells WHERE mailbox = ? AND record IS NOT NULL", (mailbox,)))

    def tells(self, mailbox: bytes, since: float, before: float, limit: int) -> list[tuple[int, bytes, int]]:
        return self._rows(
            "SELECT id, record, served FROM tells WHERE mailbox = ? AND record IS NOT NULL"
            " AND (? = 0 OR arrived > ?) AND (served = 0 OR served_at <= ?) ORDER BY id LIMIT ?",
            (mailbox, since, since, before, limit),
        )

    def tells_served(self, ids: Iterable[int], now: float) -> None:
        rows = [(now, tell_id) for tell_id in ids]
        if rows:
            self._change("UPDATE tells SET served = served + 1, served_at = ? WHERE id = ?", rows)

    def forget_tells(self, ids: Iterable[int]) -> None:
        rows = [(tell_id,) for tell_id in ids]
        if rows:
            self._change("UPDATE tells SET record = NULL WHERE id = ?", rows)

    # ------------------------------------------------------------------ the gate
    def inbox_rule(self, mailbox: bytes) -> StoredRule | None:
        rows = self._rows("SELECT fee, class_rejection FROM rules WHERE mailbox = ?", (mailbox,))
        return StoredRule(*rows[0]) if rows else None

    def set_inbox_rule(self, mailbox: bytes, fee: int, class_rejection: int) -> None:
        self._change("INSERT OR REPLACE INTO rules VALUES (?, ?, ?)", [(mailbox, fee, class_rejection)])

    def list_entry(self, mailbox: bytes, sender: bytes) -> Literal["white", "black"] | None:
        sql = "SELECT word FROM lists WHERE mailbox = ? AND sender = ?"
        word: Literal["white", "black"] | None = self._one(sql, (mailbox, sender))
        return word

    def set_list_entry(self, mailbox: bytes, sender: bytes, word: Literal["white", "black"] | None) -> None:
        if word is None:
            self._change("DELETE FROM lists WHERE mailbox = ? AND sender = ?", [(mailbox, sender)])
        else:
            self._change("INSERT OR REPLACE INTO lists VALUES (?, ?, ?)", [(mailbox, sender, word)])

    # ------------------------------------------------------------------ files
    def _path(self, guid: bytes, file_type: int, page: int, version: int) -> Path:
        name = guid.hex()
        return self._objects / name[:2] / f"{name}.{file_type}.{page}.{version}"

    def _write(self, path: Path, data: Buffer) -> None:
        """Write one page file; `commit` brings it down to the medium, so that several nodes can do so side by side."""
        self._fresh.append(path)
        try:
            if not path.parent.exists():
                path.parent.mkdir(mode=0o700)
                self._folders.add(self._objects)
            self._folders.add(path.parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(data).cast("B")
                while view:
                    view = view[os.write(descriptor, view) :]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreUnavailable(f"page file: {error}") from error

    def _sweep(self) -> None:
        """Remove files that no row names: leftovers of requests that were never committed."""
        for folder in self._objects.glob("[0-9a-f][0-9a-f]"):
            low = bytes.fromhex(folder.name)
            rows = self._rows(
                "SELECT guid, file_type, page, version FROM pages WHERE guid BETWEEN ? AND ? AND data IS NULL",
                (low + bytes(15), low + b"\xff" * 15),
            )
            named = {self._path(*row) for row in rows}
            _unlink(path for path in folder.iterdir() if path not in named)


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite gives its log the same mode
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        # exclusive: one process per folder, and no shared-memory file
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise StoreUnavailable(f"the node's database has version {version}, this program knows {VERSION}")
    if version < VERSION:
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")


def _sync(path: Path, sync: Callable[[int], None]) -> None:
    """Bring a file or folder down to the medium. A write that failed after its descriptor was closed is reported to the
    next one that syncs the file, so nothing is missed by opening it again."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(paths: Iterable[Path]) -> None:
    """Remove files; one that cannot be removed now is swept at the next open."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
