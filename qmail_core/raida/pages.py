"""Serial numbers a node keeps free for sessions that are about to make coins.

A session is led to the same page of numbers by every node, whatever else goes on there, so that what it is offered is
the same everywhere unless another session holds that page. In memory only, for seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec import Struct

from qmail_core.codec import consts as c

OFFER = 64  # serial numbers in one answer, QMail wire B.6
_PROBES = 32  # pages looked at before a session is told that there is nothing

FreeSerials = Callable[[int, int], list[int]]  # first and last serial of a page -> those no coin has


class _Hold(Struct, frozen=True):
    session: int
    until: float
    serials: frozenset[int]


class Pages:
    """Who has which page of serial numbers, by denomination."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._holds: dict[tuple[int, int], _Hold] = {}

    def reserve(self, session: int, denomination: int, now: float, free: FreeSerials) -> list[int]:
        """Free serial numbers, kept for a session from now on; none if there are none."""
        for probe in range(_PROBES):
            page = (session + probe) % c.SERIAL_PAGES
            hold = self._holds.get((denomination, page))
            if hold is not None and hold.session != session and hold.until > now:
                continue
            first = page * c.SERIALS_PER_PAGE
            serials = free(max(first, 1), first + c.SERIALS_PER_PAGE - 1)[:OFFER]
            if serials:
                self._holds[denomination, page] = _Hold(session, now + self._seconds, frozenset(serials))
                return serials
        return []

    def kept(self, session: int, denomination: int, serials: Collection[int], now: float) -> bool:
        """Whether all these serial numbers are kept for a session."""
        for serial in serials:
            hold = self._holds.get((denomination, serial // c.SERIALS_PER_PAGE))
            if hold is None or hold.session != session or hold.until <= now or serial not in hold.serials:
                return False
        return True
