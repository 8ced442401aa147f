"""Tells that wait for their recipients."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct

from qmail_core.raida.state.medium import MemoryTables


class TellState(Protocol):
    """Tells of a beacon."""

    def add_tell(self, mailbox: bytes, key: bytes, record: bytes, now: float) -> None:
        """Queue a record for a mailbox. A key already known there MUST change nothing, even after `forget_tells`."""

    def has_tell(self, mailbox: bytes, key: bytes) -> bool:
        """Whether this mailbox ever got a tell with this key."""

    def pending_tells(self, mailbox: bytes) -> int:
        """Records kept for a mailbox, served or not."""

    def tells(self, mailbox: bytes, since: float, before: float, limit: int) -> list[tuple[int, bytes, int]]:
        """Records to serve, oldest first: (id, record, times served so far).

        Only those that arrived after `since` (0 is all) and were never served, or last served at or before `before`.
        """

    def tells_served(self, ids: Iterable[int], now: float) -> None:
        """Count one more serving of each."""

    def forget_tells(self, ids: Iterable[int]) -> None:
        """Delete the records; their keys stay known."""

    def sweep_tells(self, before: float, limit: int) -> int:
        """Remove up to `limit` tells that arrived at or before `before`, served or not, with their keys; how many."""


class _Tell(Struct, frozen=True):
    id: int
    record: bytes | None  # None: forgotten, the key stays
    arrived: float
    served: int = 0
    served_at: float = 0.0


class MemoryTells(MemoryTables):
    """TellState in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._tells: dict[bytes, dict[bytes, _Tell]] = {}
        self._tell_keys: dict[int, tuple[bytes, bytes]] = {}
        self._tell_count = 0  # ids given so far

    def add_tell(self, mailbox: bytes, key: bytes, record: bytes, now: float) -> None:
        box = self._row(self._tells, mailbox)
        if key not in box:
            self._tell_count += 1
            self._put(box, key, _Tell(self._tell_count, record, now))
            self._put(self._tell_keys, self._tell_count, (mailbox, key))

    def has_tell(self, mailbox: bytes, key: bytes) -> bool:
        return key in self._tells.get(mailbox, {})

    def pending_tells(self, mailbox: bytes) -> int:
        return sum(tell.record is not None for tell in self._tells.get(mailbox, {}).values())

    def tells(self, mailbox: bytes, since: float, before: float, limit: int) -> list[tuple[int, bytes, int]]:
        found = [
            (tell.id, tell.record, tell.served)
            for tell in self._tells.get(mailbox, {}).values()
            if tell.record is not None
            and (not since or tell.arrived > since)
            and (not tell.served or tell.served_at <= before)
        ]
        return sorted(found)[:limit]

    def tells_served(self, ids: Iterable[int], now: float) -> None:
        for tell_id in ids:
            box, key, tell = self._find_tell(tell_id)
            self._put(box, key, _Tell(tell.id, tell.record, tell.arrived, tell.served + 1, now))

    def forget_tells(self, ids: Iterable[int]) -> None:
        for tell_id in ids:
            box, key, tell = self._find_tell(tell_id)
            self._put(box, key, _Tell(tell.id, None, tell.arrived, tell.served, tell.served_at))

    def sweep_tells(self, before: float, limit: int) -> int:
        over = (tell_id for tell_id in self._tell_keys if self._find_tell(tell_id)[2].arrived <= before)
        gone = list(itertools.islice(over, limit))
        for tell_id in gone:
            mailbox, key = self._tell_keys[tell_id]
            self._put(self._tells[mailbox], key, None)
            self._put(self._tell_keys, tell_id, None)
            if not self._tells[mailbox]:
                self._put(self._tells, mailbox, None)
        return len(gone)

    def _find_tell(self, tell_id: int) -> tuple[dict[bytes, _Tell], bytes, _Tell]:
        mailbox, key = self._tell_keys[tell_id]
        box = self._tells[mailbox]
        return box, key, box[key]
