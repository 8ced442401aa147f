"""How much is under way: bytes and requests, for each node and overall; what does not fit waits, fair between runs.

Small requests pass any bulk: only bodies that weigh something wait for bytes. Runs that wait take turns, one request
each, so that a large upload does not keep a download from starting.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable

from msgspec import Struct

SMALL = 64 * 1024  # bytes of question and answer below which only the number counts
_LOCAL_BYTES = 10 << 20  # for each core: more in flight on one machine only falls out of its caches


class Limits(Struct, frozen=True):
    """What may be under way at the same time."""

    node_requests: int = 32
    requests: int = 1024
    node_bytes: int = 16 << 20
    bytes: int = 256 << 20

    @classmethod
    def local(cls) -> Limits:
        """For nodes of the same machine."""
        return cls(bytes=_LOCAL_BYTES * (os.cpu_count() or 1))


Start = Callable[[], None]


class Gate:
    """Counts what is under way and starts what waits."""

    def __init__(self, nodes: int, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.bytes = 0
        self._node_requests = [0] * nodes
        self._node_bytes = [0] * nodes
        self._waiting: OrderedDict[object, deque[tuple[int, int, Start]]] = OrderedDict()  # by run, the next one first

    def enter(self, node: int, weight: int) -> bool:
        """Take a place; False when there is none, or others wait in front."""
        if weight <= SMALL:  # most requests; spelled out, because it happens for each of them
            limits = self.limits
            if self.requests >= limits.requests or self._node_requests[node] >= limits.node_requests:
                return False
            self.requests += 1
            self._node_requests[node] += 1
            return True
        if self._waiting or not self._fits(node, weight):
            return False
        self._take(node, weight)
        return True

    def wait(self, owner: object, node: int, weight: int, start: Start) -> None:
        """Have `start` called when there is a place; it is then taken."""
        self._waiting.setdefault(owner, deque()).append((node, weight, start))

    def leave(self, node: int, weight: int) -> None:
        """Give a place back."""
        self.requests -= 1
        self._node_requests[node] -= 1
        if weight > SMALL:
            self.bytes -= weight
            self._node_bytes[node] -= weight
        if self._waiting:
            self._advance()

    def forget(self, owner: object) -> None:
        """A run is over: what it had waiting is not started any more."""
        self._waiting.pop(owner, None)

    def _fits(self, node: int, weight: int) -> bool:
        limits = self.limits
        if self.requests >= limits.requests or self._node_requests[node] >= limits.node_requests:
            return False
        if weight <= SMALL:
            return True
        # something heavier than the limit still goes, alone
        return (not self.bytes or self.bytes + weight <= limits.bytes) and (
            not self._node_bytes[node] or self._node_bytes[node] + weight <= limits.node_bytes
        )

    def _take(self, node: int, weight: int) -> None:
        self.requests += 1
        self._node_requests[node] += 1
        if weight > SMALL:
            self.bytes += weight
            self._node_bytes[node] += weight

    def _advance(self) -> None:
        """Start what fits, one request of each run in turn; a node that is full holds up its own requests only."""
        idle = 0
        while self._waiting and idle < len(self._waiting):
            owner, queue = next(iter(self._waiting.items()))
            found = next((entry for entry in queue if self._fits(entry[0], entry[1])), None)
            self._waiting.move_to_end(owner)
            if found is None:
                idle += 1
                continue
            idle = 0
            queue.remove(found)
            if not queue:
                del self._waiting[owner]
            self._take(found[0], found[1])
            found[2]()
