"""Stripes of one node on disk: small pages are blobs, larger ones files under a name no row has ever pointed to."""

from __future__ import annotations

import os
from pathlib import Path

from typing_extensions import Buffer

from qmail_core.errors import StoreUnavailable
from qmail_core.store.node.medium import Medium, unlink

BLOB_LIMIT = 64 * 1024  # larger pages become files: SQLite would spread them over a chain of overflow pages


class StripeTables(Medium):
    """Pages, owners, payments."""

    schema = """
CREATE TABLE IF NOT EXISTS objects (guid BLOB PRIMARY KEY, owner BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pages (
    guid BLOB NOT NULL, file_type INTEGER NOT NULL, page INTEGER NOT NULL,
    stored REAL NOT NULL, expires REAL,  -- NULL: never
    version INTEGER NOT NULL,            -- part of the file's name
    data BLOB,                           -- NULL: in a file
    UNIQUE (guid, file_type, page)
);
CREATE INDEX IF NOT EXISTS pages_expiry ON pages (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS payments (
    guid BLOB NOT NULL, unit INTEGER NOT NULL, key BLOB NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (guid, unit)
) WITHOUT ROWID;
"""

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

    def page(self, guid: bytes, file_type: int, page: int, now: float = 0.0) -> bytes | None:
        where = (guid, file_type, page)
        rows = self._rows(
            "SELECT version, data FROM pages WHERE guid = ? AND file_type = ? AND page = ?"
            " AND (expires IS NULL OR expires > ?)",
            (*where, now),
        )
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

    def paid(self, guid: bytes, unit: int) -> bytes | None:
        found: bytes | None = self._one("SELECT key FROM payments WHERE guid = ? AND unit = ?", (guid, unit))
        return found

    def record_payment(self, guid: bytes, unit: int, key: bytes, value: int) -> None:
        self._change("INSERT OR REPLACE INTO payments VALUES (?, ?, ?, ?)", [(guid, unit, key, value)])

    def sweep_pages(self, now: float, limit: int) -> int:
        rows = self._rows(
            "SELECT rowid, guid, file_type, page, version, data IS NULL FROM pages"
            " WHERE expires <= ? ORDER BY expires LIMIT ?",
            (now, limit),
        )
        if not rows:
            return 0
        self._change("DELETE FROM pages WHERE rowid = ?", [row[:1] for row in rows])
        self._stale += (self._path(*row[1:5]) for row in rows if row[5])
        guids = [(guid, guid) for guid in {row[1] for row in rows}]
        for table in ("objects", "payments"):
            self._change(
                f"DELETE FROM {table} WHERE guid = ? AND NOT EXISTS (SELECT 1 FROM pages WHERE guid = ?)", guids
            )
        return len(rows)

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
        super()._sweep()
        for folder in self._objects.glob("[0-9a-f][0-9a-f]"):
            low = bytes.fromhex(folder.name)
            rows = self._rows(
                "SELECT guid, file_type, page, version FROM pages WHERE guid BETWEEN ? AND ? AND data IS NULL",
                (low + bytes(15), low + b"\xff" * 15),
            )
            named = {self._path(*row) for row in rows}
            unlink(path for path in folder.iterdir() if path not in named)
