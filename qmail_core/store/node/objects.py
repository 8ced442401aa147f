"""Object Transfer of one node on disk. The bytes of a transfer are one file, whatever order they come in.

Which parts of the file have arrived is in the database: a part is there when the row that names it is committed, and
its bytes were brought down to the medium just before. Bytes no row names may be anything and are never read, so a
crash needs no repair.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple
from typing_extensions import Buffer

from qmail_core.errors import StoreUnavailable
from qmail_core.model import StoredObject, Transfer
from qmail_core.store.node.medium import Medium, unlink

_MANY = (1 << 63) - 1


def _marks(kind: type[Struct]) -> str:
    return ", ".join("?" * len(kind.__struct_fields__))


def _to_row(row: Transfer | StoredObject) -> Sequence[Any]:
    return tuple(_signed(value) if type(value) is int else value for value in astuple(row))


def _signed(value: int) -> int:
    """The wire's numbers have 64 bits, SQLite's integers have a sign."""
    return value - (1 << 64) if value > _MANY else value


def _from_row(row: Sequence[Any]) -> Sequence[Any]:
    return [value + (1 << 64) if type(value) is int and value < 0 else value for value in row]


class ObjectTables(Medium):
    """Transfers, what of them has arrived, and objects."""

    schema = """
CREATE TABLE IF NOT EXISTS transfers (
    id BLOB PRIMARY KEY, owner BLOB NOT NULL, object_id BLOB NOT NULL, file_type INTEGER NOT NULL,
    fingerprint BLOB NOT NULL, operation INTEGER NOT NULL, chunk INTEGER NOT NULL, total_size INTEGER NOT NULL,
    expected_generation INTEGER NOT NULL, target_generation INTEGER NOT NULL, object_hash BLOB NOT NULL,
    retention INTEGER NOT NULL, storage_class INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    state INTEGER NOT NULL, held INTEGER NOT NULL, due REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS transfers_held ON transfers (owner, state, total_size) WHERE held;
CREATE INDEX IF NOT EXISTS transfers_due ON transfers (due);
CREATE INDEX IF NOT EXISTS transfers_object ON transfers (object_id, file_type);
CREATE TABLE IF NOT EXISTS spans (
    transfer BLOB NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL, PRIMARY KEY (transfer, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stored_objects (
    id BLOB NOT NULL, file_type INTEGER NOT NULL, owner BLOB NOT NULL, state INTEGER NOT NULL,
    generation INTEGER NOT NULL, transfer BLOB NOT NULL, total_size INTEGER NOT NULL, object_hash BLOB NOT NULL,
    storage_class INTEGER NOT NULL, expires_at INTEGER NOT NULL, PRIMARY KEY (id, file_type)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS stored_objects_buried ON stored_objects (expires_at) WHERE state = 2;
"""
    # it was of open transfers alone, `transfers_object` is of all
    upgrades: tuple[tuple[int, str], ...] = ((7, "DROP INDEX IF EXISTS transfers_open;"),)

    def transfer(self, transfer_id: bytes) -> Transfer | None:
        rows = self._rows("SELECT * FROM transfers WHERE id = ?", (transfer_id,))
        return _transfer(rows[0]) if rows else None

    def put_transfer(self, row: Transfer) -> None:
        self._change(f"INSERT OR REPLACE INTO transfers VALUES ({_marks(Transfer)})", [_to_row(row)])

    def forget_transfer(self, transfer_id: bytes) -> None:
        object_id = self._one("SELECT object_id FROM transfers WHERE id = ?", (transfer_id,))
        if object_id is not None:
            self._change("DELETE FROM transfers WHERE id = ?", [(transfer_id,)])
            self._let_go(object_id)

    def due_transfers(self, now: float, limit: int) -> list[Transfer]:
        rows = self._rows("SELECT * FROM transfers WHERE due <= ? ORDER BY due LIMIT ?", (now, limit))
        return [_transfer(row) for row in rows]

    def objects_held(self, owner: bytes | None) -> tuple[int, int, int]:
        where, args = ("AND owner = ?", (owner,)) if owner is not None else ("", ())
        sql = f"SELECT total(state = 1), count(*), total(total_size) FROM transfers WHERE held {where}"
        ((opened, count, size),) = self._rows(sql, args)
        return int(opened), int(count), int(size)

    def spans(self, transfer_id: bytes, start: int, end: int, limit: int = -1) -> list[tuple[int, int]]:
        # the last span that starts before may reach in, an earlier one cannot
        sql = (
            'SELECT max(start, ?), min("end", ?) FROM spans WHERE transfer = ? AND start < ? AND "end" > ? AND start >='
            " coalesce((SELECT max(start) FROM spans WHERE transfer = ? AND start <= ?), 0) ORDER BY start LIMIT ?"
        )
        return self._rows(sql, (start, end, transfer_id, end, start, transfer_id, start, limit))

    def write_span(self, transfer_id: bytes, offset: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        if not view:
            return
        start, end = offset, offset + len(view)
        self._write_at(transfer_id, offset, view)
        near = self._rows(
            'SELECT start, "end" FROM spans WHERE transfer = ? AND start = ? UNION ALL'
            ' SELECT start, "end" FROM (SELECT start, "end" FROM spans WHERE transfer = ? AND start < ?'
            ' ORDER BY start DESC LIMIT 1) WHERE "end" = ?',
            (transfer_id, end, transfer_id, start, start),
        )
        # spans that touch become one, so that an object that came in order is one row
        self._change("DELETE FROM spans WHERE transfer = ? AND start = ?", [(transfer_id, low) for low, _ in near])
        merged = min([start, *(low for low, _ in near)]), max([end, *(high for _, high in near)])
        self._change("INSERT INTO spans VALUES (?, ?, ?)", [(transfer_id, *merged)])

    def read_span(self, transfer_id: bytes, offset: int, size: int) -> bytes:
        if not size:
            return b""
        path = self._transfer_path(transfer_id)
        try:
            self._write_out(path)
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreUnavailable(f"transfer file: {error}") from error
        if len(data) != size:
            raise StoreUnavailable("transfer file: shorter than its spans")
        return data

    def drop_spans(self, transfer_id: bytes) -> None:
        if self._one("SELECT 1 FROM spans WHERE transfer = ?", (transfer_id,)) is not None:
            self._stale.append(self._transfer_path(transfer_id))
            self._change("DELETE FROM spans WHERE transfer = ?", [(transfer_id,)])

    def stored_object(self, object_id: bytes, file_type: int) -> StoredObject | None:
        rows = self._rows("SELECT * FROM stored_objects WHERE id = ? AND file_type = ?", (object_id, file_type))
        return _object(rows[0]) if rows else None

    def put_stored_object(self, row: StoredObject) -> None:
        self._change(f"INSERT OR REPLACE INTO stored_objects VALUES ({_marks(StoredObject)})", [_to_row(row)])

    def sweep_tombstones(self, before: float, limit: int) -> int:
        sql = "SELECT id, file_type FROM stored_objects WHERE state = 2 AND expires_at <= ? ORDER BY expires_at LIMIT ?"
        rows = self._rows(sql, (before, limit))
        if rows:
            self._change("DELETE FROM stored_objects WHERE id = ? AND file_type = ?", rows)
        for object_id in {row[0] for row in rows}:
            self._let_go(object_id)
        return len(rows)

    def _keeps(self, guid: bytes) -> bool:
        known = "SELECT 1 FROM transfers WHERE object_id = ?1 UNION ALL SELECT 1 FROM stored_objects WHERE id = ?1"
        return self._one(f"{known} LIMIT 1", (guid,)) is not None or super()._keeps(guid)

    def opened_for(self, object_id: bytes, file_type: int, now: float) -> bool:
        sql = "SELECT 1 FROM transfers WHERE object_id = ? AND file_type = ? AND state = 1 AND expires_at > ?"
        return self._one(sql, (object_id, file_type, now)) is not None

    # ---------------------------------------------------------------------------------------------- files

    def _transfer_path(self, transfer_id: bytes) -> Path:
        name = transfer_id.hex()
        return self._transfers / name[:2] / name

    def _write_at(self, transfer_id: bytes, offset: int, view: memoryview) -> None:
        """Hand bytes to the commit, for where no row points to yet."""
        path = self._transfer_path(transfer_id)
        try:
            fresh = path not in self._unwritten and not path.exists()
            if fresh:
                self._make_folder(path.parent)
        except OSError as error:
            raise StoreUnavailable(f"transfer file: {error}") from error
        self._write_later(path, view, offset, fresh=fresh)

    def _make_folder(self, folder: Path) -> None:
        if not folder.exists():
            folder.mkdir(mode=0o700)
            self._folders.add(folder.parent)
        self._folders.add(folder)

    def _sweep(self) -> None:
        """Remove files of transfers that have no bytes: leftovers of requests that were never committed."""
        super()._sweep()
        for folder in self._transfers.glob("[0-9a-f][0-9a-f]"):
            named = {
                self._transfer_path(found)
                for (found,) in self._rows(
                    "SELECT DISTINCT transfer FROM spans WHERE transfer BETWEEN ? AND ?",
                    (bytes.fromhex(folder.name) + bytes(15), bytes.fromhex(folder.name) + b"\xff" * 15),
                )
            }
            unlink(path for path in folder.iterdir() if path not in named)


def _transfer(row: Sequence[Any]) -> Transfer:
    found = dict(zip(Transfer.__struct_fields__, _from_row(row), strict=True))
    return Transfer(**{**found, "held": bool(found["held"])})


def _object(row: Sequence[Any]) -> StoredObject:
    return StoredObject(**dict(zip(StoredObject.__struct_fields__, _from_row(row), strict=True)))
