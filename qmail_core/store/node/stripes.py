"""Stripes of one node on disk: small pages are blobs, larger ones stand one behind another in files.

The pages of one stripe are appended to one file, in whatever order they come, so that a commit of several pages syncs
one file. A row says where its page stands and is committed after the bytes are on the medium. A page that replaces
another starts a new file: bytes that a committed row names are never written again. What a crash or a rollback leaves
behind the last committed page is overwritten by the next one; a file goes with the last row that names it.
"""

from __future__ import annotations

import os
from pathlib import Path

from typing_extensions import Buffer

from qmail_core.errors import StoreUnavailable
from qmail_core.store.node.medium import Medium, unlink

BLOB_LIMIT = 64 * 1024  # larger pages become files: SQLite would spread them over a chain of overflow pages
_BLOCK = 4096  # pages begin at multiples, so that no write touches a block with bytes of a committed page


class StripeTables(Medium):
    """Pages, owners, payments."""

    schema = """
CREATE TABLE IF NOT EXISTS objects (guid BLOB PRIMARY KEY, owner BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pages (
    guid BLOB NOT NULL, file_type INTEGER NOT NULL, page INTEGER NOT NULL,
    stored REAL NOT NULL, expires REAL,  -- NULL: never
    data BLOB,                           -- NULL: in a file
    file TEXT,                           -- the end of its name
    start INTEGER, size INTEGER,         -- size NULL: the whole file
    UNIQUE (guid, file_type, page)
);
CREATE INDEX IF NOT EXISTS pages_expiry ON pages (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS segments (    -- the file that the next large page of a stripe goes to, and its end
    guid BLOB NOT NULL, file_type INTEGER NOT NULL, number INTEGER NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (guid, file_type)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS payments (
    guid BLOB NOT NULL, unit INTEGER NOT NULL, key BLOB NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (guid, unit)
) WITHOUT ROWID;
"""
    upgrades: tuple[tuple[int, str], ...] = (
        (
            6,
            """
ALTER TABLE pages ADD COLUMN file TEXT;
ALTER TABLE pages ADD COLUMN start INTEGER;
ALTER TABLE pages ADD COLUMN size INTEGER;
UPDATE pages SET file = file_type || '.' || page || '.' || version, start = 0 WHERE data IS NULL;
ALTER TABLE pages DROP COLUMN version;
""",
        ),
    )

    def put_page(self, guid: bytes, file_type: int, page: int, data: Buffer, now: float, expires: float | None) -> None:
        where = (guid, file_type, page)
        rows = self._rows("SELECT file FROM pages WHERE guid = ? AND file_type = ? AND page = ?", where)
        replaced = rows[0][0] if rows else None
        size = memoryview(data).nbytes
        large = size > BLOB_LIMIT
        file, start = self._append(guid, file_type, data, fresh=replaced is not None) if large else (None, None)
        self._change(
            "INSERT INTO pages (guid, file_type, page, stored, expires, data, file, start, size)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (guid, file_type, page) DO UPDATE SET stored = excluded.stored,"
            " expires = excluded.expires, data = excluded.data, file = excluded.file, start = excluded.start,"
            " size = excluded.size",
            [(*where, now, expires, None if large else data, file, start, size)],
        )
        if replaced is not None:
            self._release(guid, file_type, replaced)

    def page(self, guid: bytes, file_type: int, page: int, now: float = 0.0) -> bytes | None:
        where = (guid, file_type, page)
        rows = self._rows(
            "SELECT data, file, start, size FROM pages WHERE guid = ? AND file_type = ? AND page = ?"
            " AND (expires IS NULL OR expires > ?)",
            (*where, now),
        )
        if not rows:
            return None
        data, file, start, size = rows[0]
        return bytes(data) if file is None else self._read(self._path(guid, file), start, size)

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
        rows = self._rows("SELECT DISTINCT file FROM pages WHERE guid = ? AND file IS NOT NULL", (guid,))
        self._stale += (self._path(guid, file) for (file,) in rows)
        self._change("DELETE FROM pages WHERE guid = ?", [(guid,)])
        self._change("DELETE FROM segments WHERE guid = ?", [(guid,)])

    def paid(self, guid: bytes, unit: int) -> bytes | None:
        found: bytes | None = self._one("SELECT key FROM payments WHERE guid = ? AND unit = ?", (guid, unit))
        return found

    def record_payment(self, guid: bytes, unit: int, key: bytes, value: int) -> None:
        self._change("INSERT OR REPLACE INTO payments VALUES (?, ?, ?, ?)", [(guid, unit, key, value)])

    def sweep_pages(self, now: float, limit: int) -> int:
        rows = self._rows(
            "SELECT rowid, guid, file_type, file FROM pages WHERE expires <= ? ORDER BY expires LIMIT ?", (now, limit)
        )
        if not rows:
            return 0
        self._change("DELETE FROM pages WHERE rowid = ?", [row[:1] for row in rows])
        for guid, file_type, file in {row[1:] for row in rows if row[3] is not None}:
            self._release(guid, file_type, file)
        for guid in {row[1] for row in rows}:
            self._let_go(guid)
        return len(rows)

    def _keeps(self, guid: bytes) -> bool:
        return self._has_pages(guid) or super()._keeps(guid)

    def _has_pages(self, guid: bytes) -> bool:
        return self._one("SELECT 1 FROM pages WHERE guid = ? LIMIT 1", (guid,)) is not None

    def _let_go(self, guid: bytes) -> None:
        if not self._has_pages(guid):
            self._change("DELETE FROM segments WHERE guid = ?", [(guid,)])
        if not self._keeps(guid):
            self._change("DELETE FROM objects WHERE guid = ?", [(guid,)])
            self._change("DELETE FROM payments WHERE guid = ?", [(guid,)])

    def _path(self, guid: bytes, file: str) -> Path:
        name = guid.hex()
        return self._objects / name[:2] / f"{name}.{file}"

    def _release(self, guid: bytes, file_type: int, file: str) -> None:
        """Let go of a file that lost a row, if that was the last one; no page goes to it any more."""
        where = (guid, file_type, file)
        if self._one("SELECT 1 FROM pages WHERE guid = ? AND file_type = ? AND file = ? LIMIT 1", where) is not None:
            return
        self._stale.append(self._path(guid, file))
        self._change(
            "UPDATE segments SET number = number + 1, used = 0"
            " WHERE guid = ? AND file_type = ? AND file_type || '.' || number = ?",
            [where],
        )

    def _append(self, guid: bytes, file_type: int, data: Buffer, *, fresh: bool) -> tuple[str, int]:
        """Write a page behind the others of its stripe, or into a fresh file; its name and where the page begins."""
        rows = self._rows("SELECT number, used FROM segments WHERE guid = ? AND file_type = ?", (guid, file_type))
        number, start = rows[0] if rows else (0, 0)
        if rows and fresh:
            number, start = number + 1, 0
        # a stripe that was dropped a moment ago still has its files
        while not start and self._path(guid, f"{file_type}.{number}") in self._stale:
            number += 1
        file = f"{file_type}.{number}"
        self._write(self._path(guid, file), data, start)
        used = -(-(start + memoryview(data).nbytes) // _BLOCK) * _BLOCK
        row = (guid, file_type, number, used)
        self._change("INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?)", [row])
        return file, start

    def _write(self, path: Path, data: Buffer, start: int) -> None:
        """Hand one page to the commit, so that several nodes can write side by side."""
        try:
            if not start:
                if not path.parent.exists():
                    path.parent.mkdir(mode=0o700)
                    self._folders.add(self._objects)
                self._folders.add(path.parent)
        except OSError as error:
            raise StoreUnavailable(f"page file: {error}") from error
        self._write_later(path, data, start, fresh=not start)

    def _read(self, path: Path, start: int, size: int | None) -> bytes:
        try:
            self._write_out(path)
            if size is None:
                return path.read_bytes()
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, size, start)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreUnavailable(f"page file: {error}") from error
        if len(data) != size:
            raise StoreUnavailable(f"page file: {path.name} is shorter than it was")
        return data

    def _sweep(self) -> None:
        """Remove files that no row names: leftovers of requests that were never committed."""
        super()._sweep()
        for folder in self._objects.glob("[0-9a-f][0-9a-f]"):
            low = bytes.fromhex(folder.name)
            rows = self._rows(
                "SELECT DISTINCT guid, file FROM pages WHERE guid BETWEEN ? AND ? AND file IS NOT NULL",
                (low + bytes(15), low + b"\xff" * 15),
            )
            named = {self._path(*row) for row in rows}
            unlink(path for path in folder.iterdir() if path not in named)
