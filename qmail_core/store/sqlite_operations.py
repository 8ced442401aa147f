"""OperationStore in SQLite."""

from __future__ import annotations

import sqlite3

import msgspec

from qmail_core.errors import NotFound
from qmail_core.model import Operation
from qmail_core.model.operations import ENDED
from qmail_core.store.database import Database

_KEEP = 1000  # operations that have ended


class SqliteOperations:
    """OperationStore."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def save(self, operation: Operation) -> None:
        row = (
            operation.id,
            operation.object_id,
            operation.state not in ENDED,
            msgspec.json.encode(operation),
            operation.updated_at,
        )

        def change(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO operation (id, object_id, open, body, updated_at) VALUES (?1,?2,?3,?4,?5)"
                " ON CONFLICT (id) DO UPDATE SET open=?3, body=?4, updated_at=?5",
                row,
            )
            if operation.state in ENDED:
                old = "DELETE FROM operation WHERE NOT open AND number <= (SELECT max(number) FROM operation) - ?"
                db.execute(old, (_KEEP,))

        await self._db.write(change)

    def get(self, operation_id: bytes) -> Operation:
        found = self._read("WHERE id=?", operation_id)
        if not found:
            raise NotFound("Transfer not found")
        return found[0]

    def unfinished(self) -> list[Operation]:
        return self._read("WHERE open ORDER BY number")

    def of_object(self, object_id: bytes) -> list[Operation]:
        return self._read("WHERE object_id=? ORDER BY number DESC", object_id)

    def _read(self, where: str, *values: object) -> list[Operation]:
        with self._db.read() as db:
            rows = db.execute(f"SELECT body FROM operation {where}", values)
            return [msgspec.json.decode(body, type=Operation) for (body,) in rows]
