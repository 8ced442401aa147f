"""Deadlines of many peers behind one timer of the loop.

Rule: moving a deadline further away costs one attribute and no call here. The heap holds when a peer must be looked at,
which is never later than its deadline; a peer found to have more time then goes back into the heap.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from math import inf
from typing import Generic, Protocol, TypeVar

CHUNK = 500  # peers that expire in one go; everybody else waits that long


class Timed(Protocol):
    """What may have a deadline. Both start at infinity."""

    deadline: float  # by the clock of the loop; may be moved further away by anybody
    queued: float  # its earliest place in the heap; the clock's own


P = TypeVar("P", bound=Timed)


class Deadlines(Generic[P]):
    """Calls `expire` with each peer whose deadline has passed."""

    def __init__(self, expire: Callable[[P], None]) -> None:
        self._expire = expire
        self._heap: list[tuple[float, int, P]] = []
        self._count = 0
        self._dead = 0  # entries of peers that are gone, roughly
        self._timer: asyncio.TimerHandle | None = None
        self._armed = inf

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, peer: P, deadline: float) -> None:
        """Set a peer's deadline, earlier or later than before."""
        peer.deadline = deadline
        if deadline < peer.queued:
            self._push(peer)
            self._arm()

    def drop(self, peer: P) -> None:
        """Forget a peer that is gone for good."""
        peer.deadline = inf
        self._dead += 1
        if self._dead * 2 > len(self._heap) + 64:
            self._heap = [entry for entry in self._heap if entry[0] == entry[2].queued and entry[2].deadline < inf]
            heapq.heapify(self._heap)
            self._dead = 0

    def stop(self) -> None:
        """Expire nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed = None, inf
        self._heap.clear()

    def _push(self, peer: P) -> None:
        self._count += 1
        peer.queued = peer.deadline
        heapq.heappush(self._heap, (peer.deadline, self._count, peer))

    def _arm(self) -> None:
        first = self._heap[0][0]
        if first < self._armed:
            if self._timer is not None:
                self._timer.cancel()
            self._armed = first
            self._timer = asyncio.get_running_loop().call_at(first, self._due)

    def _due(self) -> None:
        self._timer, self._armed = None, inf
        now = asyncio.get_running_loop().time()
        for peer in self._take_due(now):
            self._expire(peer)
        if self._heap:
            self._arm()

    def _take_due(self, now: float) -> list[P]:
        due: list[P] = []
        while self._heap and self._heap[0][0] <= now and len(due) < CHUNK:
            at, _, peer = heapq.heappop(self._heap)
            if at != peer.queued:
                continue  # it was put in again, for an earlier time, and looked at then
            peer.queued = inf
            if peer.deadline <= now:
                due.append(peer)
            elif peer.deadline < inf:
                self._push(peer)
        return due
