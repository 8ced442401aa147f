"""Raw messages in pieces: equal pieces are stored once, small ones in the database, large ones as files.

A file is written and synced before the transaction that names it, under a name no row has ever had; so a name is never
reused, and a file no row names is a leftover that the next start removes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Sequence

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core.folders import make_private, sync_folder
from qmail_core.store.database import Database
from qmail_core.store.medium import translated

BLOB_LIMIT = 64 * 1024  # larger pieces become files: SQLite would spread them over a chain of overflow pages


class Prepared(Struct, frozen=True):
    """A piece ready to be named by a row."""

    hash: bytes
    size: int
    data: Buffer | None  # None: in the file `name`
    name: str


class Pieces:
    """The folder of large pieces; without a folder (a store in memory) everything stays in the database."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        if folder is not None:
            make_private(folder)

    def path(self, name: str) -> str:
        """Where a file lies."""
        assert self._folder is not None
        return os.path.join(self._folder, name[:2], name)

    def prepare(self, pieces: Iterable[Buffer]) -> list[Prepared]:
        """Hash every piece and write the large ones to synced files; blocking.

        raises   StoreFull, StoreUnavailable; then none of them is left
        """
        prepared: list[Prepared] = []
        try:
            with translated("message"):
                for piece in pieces:
                    prepared.append(self._prepare(memoryview(piece).cast("B")))  # noqa: PERF401 - counts if one fails
        except BaseException:
            self.discard(prepared)
            raise
        return prepared

    def _prepare(self, piece: memoryview) -> Prepared:
        digest = hashlib.sha256(piece).digest()
        if self._folder is None or len(piece) <= BLOB_LIMIT:
            return Prepared(digest, len(piece), piece, "")
        name = os.urandom(16).hex()
        path = self.path(name)
        make_private(os.path.dirname(path))
        prepared = Prepared(digest, len(piece), None, name)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            for folder in (os.path.dirname(path), self._folder):
                sync_folder(folder)
        except BaseException:
            self.discard([prepared])
            raise
        return prepared

    def discard(self, prepared: Iterable[Prepared]) -> None:
        """Remove the files of pieces that no row came to name."""
        for piece in prepared:
            if piece.name:
                with contextlib.suppress(OSError):
                    os.remove(self.path(piece.name))

    def sweep(self, named: set[str]) -> None:
        """Remove files left behind by a crash."""
        if self._folder is None:
            return
        for folder, _, names in os.walk(self._folder):
            for name in names:
                if name not in named:
                    with contextlib.suppress(OSError):
                        os.remove(os.path.join(folder, name))


def name_pieces(db: sqlite3.Connection, message: int, prepared: Sequence[Prepared]) -> list[Prepared]:
    """Make pieces a message's own; returns those that were there already, whose files are not needed."""
    known = []
    for position, piece in enumerate(prepared):
        row = "INSERT OR IGNORE INTO blob (hash, size, data, name) VALUES (?,?,?,?)"
        if not db.execute(row, (piece.hash, piece.size, piece.data, piece.name)).rowcount:
            known.append(piece)
        db.execute("INSERT INTO piece VALUES (?,?,?)", (message, position, piece.hash))
    return known


def forget_unused(db: sqlite3.Connection, limit: int) -> list[str]:
    """Delete pieces nobody has; returns the names of their files."""
    rows = db.execute(
        "DELETE FROM blob WHERE hash IN (SELECT hash FROM blob WHERE refs = 0 LIMIT ?) RETURNING name", (limit,)
    ).fetchall()
    return [name for (name,) in rows if name]


def stored_names(database: Database) -> set[str]:
    """Files that rows name."""
    with database.read() as db:
        return {name for (name,) in db.execute("SELECT name FROM blob WHERE name <> ''")}
