"""The medium of one node's memory: a database and files beside it, changed together.

Bytes for files are kept as they came until the commit: it writes and syncs them where it waits anyway, file by file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core.errors import StoreUnavailable

VERSION = 7  # counts up when a topic adds tables or changes one


class Medium:
    """Transactions over the database of one folder, and the files that only committed rows make real."""

    waits = True
    schema = ""  # statements that may be repeated; each topic adds its own
    upgrades: tuple[tuple[int, str], ...] = ()  # statements for databases made before a version

    def __init__(self, folder: Path) -> None:
        self._objects = folder / "objects"
        self._transfers = folder / "transfers"
        self._open = False  # a transaction was begun; SQLite itself ends one after some errors
        self._point = False  # a savepoint stands where the current request began
        self._fresh: list[Path] = []  # files no committed row names yet
        self._stale: list[Path] = []  # files that lose their row with the next commit
        self._unwritten: dict[Path, list[_Piece]] = {}
        self._pieces = 0  # handed over since the last commit
        self._marked = (0, 0, 0)
        self._written: set[Path] = set()  # to be brought down at the next commit
        self._folders: set[Path] = set()  # to be fsynced before the next commit
        try:
            for path in (folder, self._objects, self._transfers):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.chmod(0o700)
            self._db = _connect(folder / "node.sqlite")
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"cannot open {folder}: {_reason(error)}") from error
        try:
            self._migrate()
            self._sweep()
            sync_path(folder, os.fsync)
        except (sqlite3.Error, OSError) as error:
            self._db.close()
            raise StoreUnavailable(f"cannot open {folder}: {_reason(error)}") from error
        except StoreUnavailable:
            self._db.close()
            raise

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise StoreUnavailable(f"the node's database has version {version}, this program knows {VERSION}")
        foreign = self._one("SELECT name FROM sqlite_master", ()) if not version else None
        if foreign is not None:
            raise StoreUnavailable(f"the database is not a node's: it has a table {foreign}")
        if version < VERSION:
            upgrade = "".join(script for below, script in self.upgrades if 0 < version < below)
            self._db.executescript(f"BEGIN IMMEDIATE; {upgrade} {self.schema} PRAGMA user_version = {VERSION}; COMMIT;")

    def _sweep(self) -> None:
        """Remove what a crash left behind; a topic with files has its own."""

    def _keeps(self, guid: bytes) -> bool:
        """Whether anything is kept of a GUID; a topic that does has its own."""
        return False

    def _let_go(self, guid: bytes) -> None:
        """Something of a GUID was removed: what only accompanies it goes with the last; a topic has its own."""

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

    def mark(self) -> None:
        try:
            if self._point and self._db.in_transaction:
                self._db.execute("RELEASE request")
        except sqlite3.Error as error:
            # the savepoint still stands before the last request: an undo now would take that one back too
            self._end()
            raise StoreUnavailable(f"database: {error}") from error
        self._point = False
        self._marked = (len(self._fresh), len(self._stale), self._pieces)

    def undo(self) -> None:
        if self._point and self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK TO request")
                self._db.execute("RELEASE request")
            except sqlite3.Error:
                # half of a request must not become durable with the rest: end the transaction, so that commit fails
                self._end()
        self._point = False
        fresh, stale, pieces = self._marked
        kept = {path: [one for one in waiting if one.number < pieces] for path, waiting in self._unwritten.items()}
        self._unwritten = {path: waiting for path, waiting in kept.items() if waiting}
        unlink(self._fresh[fresh:])
        self._written.difference_update(self._fresh[fresh:])
        del self._fresh[fresh:], self._stale[stale:]

    def dirty(self) -> bool:
        return self._open

    def commit(self) -> None:
        if not self._open:
            return
        if not self._db.in_transaction:
            raise StoreUnavailable("the transaction was lost to an earlier error")
        try:
            for path in list(self._unwritten):
                self._write_out(path, sync=True)
            for path in self._written:
                sync_path(path, os.fdatasync)
            for folder in self._folders:
                sync_path(folder, os.fsync)
            self._db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"commit: {error}") from error
        unlink(self._stale)
        self._forget()

    def rollback(self) -> None:
        self._end()
        unlink(self._fresh)
        self._forget()

    def _end(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _forget(self) -> None:
        self._open = self._point = False
        self._fresh.clear()
        self._stale.clear()
        self._unwritten.clear()
        self._written.clear()
        self._folders.clear()
        self._marked = (0, 0, 0)

    def _write_later(self, path: Path, data: Buffer, start: int, *, fresh: bool) -> None:
        """Put bytes into a file where no committed row points to, with the next commit."""
        if fresh:
            self._fresh.append(path)
        self._unwritten.setdefault(path, []).append(_Piece(self._pieces, start, memoryview(data).cast("B"), fresh))
        self._pieces += 1

    def _write_out(self, path: Path, *, sync: bool = False) -> None:
        """Write what a file waits for: before it is read, or for the commit."""
        pieces = self._unwritten.pop(path, ())
        if not pieces:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags | os.O_TRUNC if pieces[0].fresh else flags, 0o600)
        try:
            for piece in pieces:
                view, start = piece.data, piece.start
                while view:
                    written = os.pwrite(descriptor, view, start)
                    view, start = view[written:], start + written
            if sync:
                os.fdatasync(descriptor)
                self._written.discard(path)
            else:
                self._written.add(path)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed before
            self.rollback()
        self._db.close()


class _Piece(Struct, frozen=True):
    """Bytes on their way to a file."""

    number: int  # in the order they came
    start: int
    data: memoryview
    fresh: bool  # the file begins with it


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


def _reason(error: Exception) -> str:
    busy = getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return "another process has it open" if busy else str(error)


def sync_path(path: Path, sync: Callable[[int], None]) -> None:
    """Bring a file or folder down to the medium. A write that failed after its descriptor was closed is reported to the
    next one that syncs the file, so nothing is missed by opening it again."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def unlink(paths: Iterable[Path]) -> None:
    """Remove files; one that cannot be removed now is swept at the next open."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
