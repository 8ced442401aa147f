"""Object Transfer: transfers and the bytes they brought, and the objects these became."""

from __future__ import annotations

from typing import Protocol

from typing_extensions import Buffer

from qmail_core.codec.objects import DELETED, OPEN
from qmail_core.model import StoredObject, Transfer
from qmail_core.raida.state.medium import MemoryTables

Span = tuple[int, int]  # start, end


class ObjectState(Protocol):
    """Transfers and objects of a node. Rows are replaced whole."""

    def transfer(self, transfer_id: bytes) -> Transfer | None: ...
    def put_transfer(self, row: Transfer) -> None:
        """Add or replace a transfer."""

    def forget_transfer(self, transfer_id: bytes) -> None:
        """Remove a transfer that is not held, and whose bytes were dropped; owner and payments as in `sweep_pages`."""

    def due_transfers(self, now: float, limit: int) -> list[Transfer]:
        """Transfers whose `due` is not after `now`, most overdue first."""

    def objects_held(self, owner: bytes | None) -> tuple[int, int, int]:
        """Open transfers, all held transfers, and the bytes held were announced with; of one owner or of all."""

    def spans(self, transfer_id: bytes, start: int, end: int, limit: int = -1) -> list[Span]:
        """What of [start, end) has arrived: (start, end) in order, cut to it, no two touching; at most `limit`."""

    def write_span(self, transfer_id: bytes, offset: int, data: Buffer) -> None:
        """Keep bytes that have not arrived yet; they are durable after `commit`, or not there.

        `data` MUST NOT change before it is committed or taken back.
        """

    def read_span(self, transfer_id: bytes, offset: int, size: int) -> bytes:
        """Bytes that have arrived."""

    def drop_spans(self, transfer_id: bytes) -> None:
        """Lose all bytes of a transfer."""

    def stored_object(self, object_id: bytes, file_type: int) -> StoredObject | None: ...
    def put_stored_object(self, row: StoredObject) -> None:
        """Add or replace an object."""

    def sweep_tombstones(self, before: float, limit: int) -> int:
        """Remove up to `limit` deleted objects that would have expired by `before`; how many it was.

        Owner and payments as in `sweep_pages`.
        """

    def opened_for(self, object_id: bytes, file_type: int, now: float) -> bool:
        """Whether a transfer open at `now` wants to become this object."""


class MemoryObjects(MemoryTables):
    """ObjectState in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._transfers: dict[bytes, Transfer] = {}
        self._spans: dict[bytes, dict[int, bytes]] = {}  # pieces by offset
        self._stored_objects: dict[tuple[bytes, int], StoredObject] = {}

    def transfer(self, transfer_id: bytes) -> Transfer | None:
        return self._transfers.get(transfer_id)

    def put_transfer(self, row: Transfer) -> None:
        self._put(self._transfers, row.id, row)

    def forget_transfer(self, transfer_id: bytes) -> None:
        row = self._transfers.get(transfer_id)
        if row is not None:
            self._put(self._transfers, transfer_id, None)
            self._let_go(row.object_id)

    def due_transfers(self, now: float, limit: int) -> list[Transfer]:
        return sorted((row for row in self._transfers.values() if row.due <= now), key=lambda row: row.due)[:limit]

    def objects_held(self, owner: bytes | None) -> tuple[int, int, int]:
        rows = [row for row in self._transfers.values() if row.held and owner in (None, row.owner)]
        return sum(row.state == OPEN for row in rows), len(rows), sum(row.total_size for row in rows)

    def spans(self, transfer_id: bytes, start: int, end: int, limit: int = -1) -> list[Span]:
        found: list[Span] = []
        for offset, piece in sorted(self._spans.get(transfer_id, {}).items()):
            low, high = max(start, offset), min(end, offset + len(piece))
            if low >= high:
                continue
            if found and found[-1][1] == low:
                found[-1] = (found[-1][0], high)
            else:
                found.append((low, high))
        return found if limit < 0 else found[:limit]

    def write_span(self, transfer_id: bytes, offset: int, data: Buffer) -> None:
        if memoryview(data).nbytes:
            self._put(self._spans.setdefault(transfer_id, {}), offset, bytes(data))

    def read_span(self, transfer_id: bytes, offset: int, size: int) -> bytes:
        parts = [
            piece[max(0, offset - at) : offset + size - at]
            for at, piece in sorted(self._spans.get(transfer_id, {}).items())
            if at < offset + size and at + len(piece) > offset
        ]
        return b"".join(parts)

    def drop_spans(self, transfer_id: bytes) -> None:
        pieces = self._spans.get(transfer_id, {})
        for offset in list(pieces):
            self._put(pieces, offset, None)

    def stored_object(self, object_id: bytes, file_type: int) -> StoredObject | None:
        return self._stored_objects.get((object_id, file_type))

    def put_stored_object(self, row: StoredObject) -> None:
        self._put(self._stored_objects, (row.id, row.file_type), row)

    def sweep_tombstones(self, before: float, limit: int) -> int:
        over = [row for row in self._stored_objects.values() if row.state == DELETED and row.expires_at <= before]
        over = sorted(over, key=lambda row: row.expires_at)[:limit]
        for row in over:
            self._put(self._stored_objects, (row.id, row.file_type), None)
            self._let_go(row.id)
        return len(over)

    def _keeps(self, guid: bytes) -> bool:
        here = any(row.object_id == guid for row in self._transfers.values())
        return here or any(key[0] == guid for key in self._stored_objects) or super()._keeps(guid)

    def opened_for(self, object_id: bytes, file_type: int, now: float) -> bool:
        wanted = (object_id, file_type, OPEN)
        rows = self._transfers.values()
        return any((row.object_id, row.file_type, row.state) == wanted and row.expires_at > now for row in rows)
