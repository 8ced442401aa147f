"""Connections of the HTTP server that wait for a client who says nothing: closed in time, and first when there is need.

The server itself ends those that are idle after an answer, and no others. A look at all of them, now and then,
finds those whose client owes the head of a request, or the rest of a body. Requests that wait for an answer (long
polls, event streams) are passed over, and uploads go on as long as any byte comes: nothing is done for each request.

A process without a file left cannot write to its store, so connections are bounded. Beyond the bound a newcomer takes
the place of who has owed a head for longest; if nobody does, the server answers 503 and closes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import resource
from collections.abc import Callable, Collection
from typing import Any

from msgspec import Struct

log = logging.getLogger("qmail.http")

FILES = 12_000  # open files a process that serves asks the system for
MOST = 10_000  # connections, where there are files for them
_FREE = (64, 1024)  # files kept for everything else: a quarter, and between these
_LOOKS = 4  # in the shortest time limit
_HEAD = object()  # owed by who has said nothing yet

_LATE = json.dumps({"success": False, "error": True, "code": 408, "message": "The rest of the request did not come"})
_TOO_LATE = (
    "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
    f"x-content-type-options: nosniff\r\ncontent-length: {len(_LATE)}\r\nconnection: close\r\n\r\n{_LATE}"
).encode()


class Limits(Struct, frozen=True, kw_only=True):
    """What one server allows."""

    head: float = 20.0  # seconds for all headers, from the connection or the first byte of a later request on
    silence: float = 60.0  # seconds between two pieces of a body
    connections: int = MOST


def most_connections(share: int = 1) -> int:
    """How many connections each of so many servers of this process may have, by the limit on its open files."""
    files = raise_files()
    low, high = _FREE
    return max(1, min(MOST, (files - min(high, max(low, files // 4))) // share))


def raise_files() -> int:
    """Ask for as many open files as are of use; how many there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unbounded = resource.RLIM_INFINITY
    wanted = FILES if hard == unbounded else min(FILES, hard)
    if soft != unbounded and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return FILES if soft == unbounded else soft


class Connections:
    """The connections of one server, which are uvicorn's, watched.

    known   all that are open; theirs is every attribute that is read here
    """

    def __init__(self, known: Collection[Any], limits: Limits) -> None:
        self._known = known
        self._limits = limits
        self._waits: dict[Any, tuple[object, float]] = {}  # what is owed, and since when; the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look again and again from now on."""
        loop = asyncio.get_running_loop()
        self.look(loop.time())
        self._timer = loop.call_later(min(self._limits.head, self._limits.silence) / _LOOKS, self.start)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def look(self, now: float) -> None:
        """Close those that have owed something for too long."""
        waits: dict[Any, tuple[object, float]] = {}
        for connection in self._known:
            owed = _owed(connection)
            if owed is not None:
                before = self._waits.get(connection)
                waits[connection] = before if before is not None and before[0] is owed else (owed, now)
        self._waits = dict(sorted(waits.items(), key=lambda item: item[1][1]))
        late = [connection for connection, wait in waits.items() if self._is_late(*wait, now)]
        for connection in late:
            _end(connection)
        if late:
            log.info("closed %d connections whose client said nothing", len(late))

    def _is_late(self, owed: object, since: float, now: float) -> bool:
        limit = self._limits.silence if isinstance(owed, bytearray) else self._limits.head
        return now - since >= limit

    def admitting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """What makes the server's connections, with a place made for each where there is none."""

        def made(**given: Any) -> Any:
            if len(self._known) >= self._limits.connections:
                self._make_place()
            return make(**given)

        return made

    def _make_place(self) -> None:
        for connection in itertools.chain(self._waits, self._known):
            owed = _owed(connection)
            if owed is not None and not isinstance(owed, bytearray):
                self._waits.pop(connection, None)
                connection.transport.abort()  # its file is free at once
                return


def _owed(connection: Any) -> object | None:
    """What a client owes: the head of a request, or more of a body; None while it is the server's turn.

    The answer is the same object as long as nothing of it has come.
    """
    cycle = connection.cycle
    if connection.transport.is_closing():
        return None
    if cycle is None:
        return _HEAD
    if cycle.response_complete:
        # what uvicorn closes in time itself, until a byte comes
        return cycle if connection.timeout_keep_alive_task is None and not connection.pipeline else None
    if cycle.more_body and not (cycle.body or cycle.response_started or connection.pipeline):
        body: bytearray = cycle.body  # a new object whenever the application has taken what came
        return body
    return None


def _end(connection: Any) -> None:
    if isinstance(_owed(connection), bytearray):
        connection.transport.write(_TOO_LATE)
    connection.transport.close()
