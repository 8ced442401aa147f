"""TCP exchanges: connections kept and pooled where the node keeps them, several requests on one where it says so.

asyncio.BufferedProtocol without streams: an answer is received straight into a buffer of its announced size. The
module does not care which event loop runs it; start-up chooses uvloop.

Whether a node keeps its connections is learned from what it does: a second answer on one connection says yes, a close
right behind an answer says no, as deployed servers do. A node that closes, or is not known yet, gets one connection
at a time, because such a server takes connections one by one and a burst of them waits for the next event; only a
connection that has been silent for a while (a long poll) no longer stands in the way.

Nodes of this project say that they keep their connections, and how many requests one may have under way (`learn`).
Small requests that a node answers at once are then sent behind each other; answers come in their order, each with the
echo bytes of its request. Whatever may take its time (polls, bodies) has a connection to itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from typing_extensions import Buffer

from qmail_core.codec import exchange
from qmail_core.errors import ConnectError, NodeTimeout, TransportError
from qmail_core.model import NodeId
from qmail_core.transport.base import Cancel, Done

CONNECT_TIMEOUT = 5.0  # seconds; a lost SYN is sent again after one
_FIRST_BUFFER = 4096  # most answers fit, so header and body come with one read
_MAX_IDLE = 8  # kept connections per node
_RIGHT_BEHIND = 1.0  # seconds from a request in which a close counts as one behind its answer
_DEEPEST = 8  # requests on one connection, whatever the node says: one that stalls holds up those behind it
_SILENT = 30.0  # seconds without an answer after which the system looks after a connection: few are silent so long
_PROBES = [  # seconds of silence before the first, seconds between two, and how many; not every system has them
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]
_PATIENCE = 0.25  # seconds after which a silent connection does not hold up the next one


def _probe(transport: asyncio.BaseTransport) -> None:
    """Have the system notice in 90 s that the other end is gone without a word: long polls are silent too."""
    sock = transport.get_extra_info("socket")
    with suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _PROBES:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _dropped(answer: memoryview | TransportError) -> None:
    """Who waits for an answer that nobody waits for."""


class _Connection(asyncio.BufferedProtocol):
    """One connection; `done` is set while an exchange is under way, `_behind` holds those that wait for their turn."""

    __slots__ = (
        "_behind", "_connecting", "_enc", "_first", "_frame", "_have", "_loop", "_view", "_waited", "_whole",
        "begun", "done", "dropped", "pool", "probed", "shared", "transport", "used",
    )  # fmt: skip

    def __init__(self, pool: _Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.done: Done | None = None
        self.used = 0  # exchanges completed
        self.begun = 0.0  # when its last exchange began
        self.dropped = False  # by this side
        self.shared = False  # everything on it is small and answered at once
        self.probed = False  # the system looks after it
        self._loop = loop
        self._connecting: Coroutine[Any, Any, object] | None = None
        self._waited: asyncio.Future[Any] | None = None  # what it waits for
        self._frame: Buffer = b""
        self._enc = 0
        self._behind: deque[tuple[Buffer, int, Done]] = deque()
        self._first = bytearray(_FIRST_BUFFER)
        self._whole: bytearray | None = None
        self._view = memoryview(self._first)
        self._have = 0

    # ------------------------------------------------------------------ the owner's side
    def connect(self, frame: Buffer, enc: int, done: Done) -> Cancel:
        """Connect and send one request; the answer, or why there is none, goes to `done`.

        The loop's coroutine is driven by its own futures: one task less for each connection.
        """
        self.done, self._enc, self._frame = done, enc, frame
        self.begun = self._loop.time()
        node = self.pool.node
        self._connecting = self._loop.create_connection(lambda: self, node.host, node.port)
        self._step(None)
        return partial(self.withdraw, done)

    def exchange(self, frame: Buffer, enc: int, done: Done) -> Cancel:
        """Send one request over a kept connection, or behind others."""
        self.begun = self._loop.time()
        if self.done is None:
            self.done, self._enc, self._frame = done, enc, frame
        else:
            self._behind.append((frame, enc, done))
        if self.transport is not None:
            self.transport.write(cast(bytearray, frame))  # any buffer will do
        return partial(self.withdraw, done)

    @property
    def under_way(self) -> int:
        """How many answers are outstanding."""
        return (self.done is not None) + len(self._behind)

    @property
    def is_shared(self) -> bool:
        """Whether a small request may go behind those under way; not behind one that was given up: it may be stuck."""
        return self.shared and self.done is not None and self.done is not _dropped

    @property
    def is_open(self) -> bool:
        """Whether something may still be sent, at least once the connection stands."""
        return self.transport is not None and not self.transport.is_closing()

    def look_after(self, silent_since: float) -> None:
        """Have the system probe a connection whose newest request came before that and has no answer yet."""
        if self.done is not None and self.transport is not None and not self.probed and self.begun <= silent_since:
            self.probed = True
            _probe(self.transport)

    def withdraw(self, done: Done) -> None:
        """Nobody waits for this answer any more: it is dropped when it comes, or the connection if no other is due."""
        if self.done is done:
            self.done = _dropped
        self._behind = deque((frame, enc, _dropped if one is done else one) for frame, enc, one in self._behind)
        if self.done is _dropped and all(one is _dropped for _, _, one in self._behind):
            self.abort()

    def abort(self) -> None:
        """Give the connection up; nobody is told."""
        self.done, self._frame = None, b""
        self._behind.clear()
        self.dropped = True
        if self.transport is not None:
            self.transport.abort()
        elif self._connecting is not None:
            if self._waited is not None:
                # the socket is closed by `_step`, after the loop has stopped watching it: the next one may get its
                # number, and would be taken for the old one
                self._waited.cancel()
            self.pool.forget(self)

    def give_up(self, error: TransportError) -> None:
        """Abort, and say why to whoever waits for an answer."""
        waiting = self._all_waiting()
        self.abort()
        for done in waiting:
            done(error)

    def _all_waiting(self) -> list[Done]:
        return [] if self.done is None else [self.done, *(done for _, _, done in self._behind)]

    def _step(self, future: asyncio.Future[Any] | None) -> None:
        connecting, self._waited = self._connecting, None
        assert connecting is not None
        try:
            waited = connecting.throw(asyncio.CancelledError()) if self.dropped else connecting.send(None)
        except (StopIteration, asyncio.CancelledError):
            self._connecting = None
            if future is not None and not future.cancelled():
                future.exception()  # it was given up; an error nobody looks at would be reported as lost
        except OSError as error:
            self._connecting = None
            self.pool.forget(self)
            # never from inside `send`
            why = ConnectError(f"node {self.pool.node.index}: {error.strerror or error}")
            self._loop.call_soon(self.give_up, why)
        else:
            self._waited = waited
            if waited is None:
                self._loop.call_soon(self._step, None)
            else:
                waited._asyncio_future_blocking = False  # what a task does with a future it waits for
                waited.add_done_callback(self._step)

    # ------------------------------------------------------------------ asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by shape only
        self.pool.connected(self)  # both loops have set TCP_NODELAY
        if self.done is None:
            self.transport.abort()
            return
        self.transport.write(memoryview(self._frame))
        for frame, _, _ in self._behind:
            self.transport.write(memoryview(frame))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._have :] if self._have else self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._have += nbytes
        if self._whole is not None:
            if self._have == len(self._whole):
                answer, self._view, self._whole = self._view, memoryview(self._first), None
                self._have = 0
                self._take(answer)
            return
        while self._have:
            if self.done is None:
                self.abort()  # nothing was asked, so nothing may come
                return
            whole = exchange.first_answer(self._first, self._have, self._enc)
            if whole is None:
                self._wait_for_more()
                return
            self._have -= len(whole)
            if self._have:
                self._first[: self._have] = self._first[len(whole) : len(whole) + self._have]
            self._take(memoryview(whole))

    def _wait_for_more(self) -> None:
        """Make room for an answer that is larger than the buffer."""
        size = exchange.reply_size(self._view[: self._have], self._enc)
        if size is not None and size > _FIRST_BUFFER:
            self._whole = bytearray(size)
            whole = memoryview(self._whole)
            whole[: self._have] = self._view[: self._have]
            self._view = whole

    def _take(self, answer: memoryview) -> None:
        """Hand over the answer that was due."""
        done = self.done
        if done is None:  # it was given up meanwhile
            return
        if self.shared and not exchange.is_answer(answer, self._frame):
            self.give_up(ConnectError(f"node {self.pool.node.index} answered out of order"))
            return
        self.used += 1
        if self._behind:
            self._frame, self._enc, self.done = self._behind.popleft()
        elif self._have:
            self.abort()
            done(ConnectError(f"node {self.pool.node.index} sent more than its answer"))
            return
        else:
            self.done, self._frame = None, b""
            self.pool.release(self)
        done(answer)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        waiting = self._all_waiting()
        self.done = self.transport = None
        self._behind.clear()
        self.pool.closed(self)
        for done in waiting:
            error = ConnectError(f"node {self.pool.node.index}: connection lost before the answer")
            error.stale = self.used > 0 and self._have == 0
            done(error)


class _Pool:
    """The connections to one node, and what is known of its ways."""

    def __init__(self, node: NodeId, owner: TcpTransport) -> None:
        self.node = node
        self.keeps: bool | None = None  # None: not seen yet
        self.depth = 1  # requests on one connection
        self.all: set[_Connection] = set()
        self._owner = owner
        self._idle: list[_Connection] = []
        self._queue: deque[tuple[Buffer, int, Done]] = deque()  # requests to a node that takes one at a time
        self._timer: asyncio.TimerHandle | None = None

    def send(self, frame: Buffer, enc: int, done: Done) -> Cancel:
        """Use an idle connection, the most recently used first, or go behind others, or use a new one, or wait."""
        shared = self.depth > 1 and exchange.is_brief(frame)
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                connection.shared = shared
                return connection.exchange(frame, enc, done)
        if shared and (busy := self._least_busy()) is not None:
            return busy.exchange(frame, enc, done)
        if not self.keeps and self._crowded():
            waiting = (frame, enc, done)
            self._queue.append(waiting)
            return lambda: self._cancel(waiting)
        return self._open(frame, enc, done, shared=shared)

    def _least_busy(self) -> _Connection | None:
        """A connection that takes one more request behind those it has."""
        shared = [peer for peer in self.all if peer.is_shared and peer.under_way < self.depth]
        return min(shared, key=lambda peer: peer.under_way, default=None)

    def _crowded(self) -> bool:
        """Whether a connection is under way that may soon be done; looks again when it no longer counts."""
        if not self.all:
            return False
        latest = max((peer.begun for peer in self.all if peer.done is not None), default=None)
        if latest is None:
            return False
        left = latest + _PATIENCE - self._owner.loop.time()
        if left > 0 and self._timer is None:
            self._timer = self._owner.loop.call_later(left, self._look_again)
        return left > 0

    def _look_again(self) -> None:
        self._timer = None
        self._advance()

    def _advance(self) -> None:
        while self._queue and (self.keeps or not self._crowded()):
            self._open(*self._queue.popleft())

    def _cancel(self, waiting: tuple[Buffer, int, Done]) -> None:
        """Withdraw a request, whether it still waits or is under way."""
        if waiting in self._queue:
            self._queue.remove(waiting)
            return
        for connection in list(self.all):
            connection.withdraw(waiting[2])

    def _open(self, frame: Buffer, enc: int, done: Done, *, shared: bool = False) -> Cancel:
        connection = _Connection(self, self._owner.loop)
        connection.shared = shared
        self.all.add(connection)
        self._owner.watch(connection)
        return connection.connect(frame, enc, done)

    def connected(self, connection: _Connection) -> None:
        """A connection stands."""
        self._owner.unwatch(connection)

    def release(self, connection: _Connection) -> None:
        """The exchanges of a connection are complete: keep it, unless it is one too many or of no use."""
        if connection.used > 1:
            self.keeps = True
        if self.keeps is False or len(self._idle) >= _MAX_IDLE:
            connection.abort()
        elif self._queue:
            connection.shared = False
            connection.exchange(*self._queue.popleft())
        else:
            self._idle.append(connection)
        if self._queue:
            self._advance()

    def closed(self, connection: _Connection) -> None:
        """A connection is gone; right behind its first answer that means the node does not keep any."""
        quick = self._owner.loop.time() - connection.begun < _RIGHT_BEHIND
        if self.keeps is None and connection.used == 1 and quick and not connection.dropped:
            self.keeps = False
        self.forget(connection)

    def forget(self, connection: _Connection) -> None:
        """A connection is gone, or never came about."""
        self._owner.unwatch(connection)
        self.all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._queue:
            self._owner.loop.call_soon(self._advance)

    def close(self) -> None:
        """Drop everything without a word."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.all):
            connection.abort()


class TcpTransport:
    """Exchanges with nodes that listen on TCP. Hosts are numeric, so no resolver thread is ever needed."""

    def __init__(self, nodes: Sequence[NodeId], *, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pools = [_Pool(node, self) for node in nodes]
        self._connect_timeout = connect_timeout
        self._connecting: dict[_Connection, None] = {}  # all wait equally long, so it is in order of their deadlines
        self._timer: asyncio.TimerHandle | None = None
        self._rounds: asyncio.TimerHandle | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the first request."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def nodes(self) -> int:
        return len(self._pools)

    def location(self, node: int) -> tuple[str, int]:
        where = self._pools[node].node
        return where.host, where.port

    def keeps(self, node: int) -> bool | None:
        """Whether a node keeps its connections; None while that is unknown."""
        return self._pools[node].keeps

    def learn(self, node: int, depth: int) -> None:
        """A node keeps its connections, and takes so many requests on each before it has answered the first."""
        self._pools[node].keeps = True
        self._pools[node].depth = min(depth, _DEEPEST)

    def send(self, node: int, frame: Buffer, enc: int, done: Done) -> Cancel:
        return self._pools[node].send(frame, enc, done)

    def watch(self, connection: _Connection) -> None:
        """Give a connection so long to come about; one timer serves them all."""
        self._connecting[connection] = None
        if self._timer is None:
            self._timer = self.loop.call_later(self._connect_timeout, self._expire)
        if self._rounds is None:
            self._rounds = self.loop.call_later(_SILENT, self._look_around)

    def unwatch(self, connection: _Connection) -> None:
        """A connection stands or is gone."""
        self._connecting.pop(connection, None)

    def _expire(self) -> None:
        self._timer = None
        now = self.loop.time()
        for connection in list(self._connecting):
            left = connection.begun + self._connect_timeout - now
            if left > 0:
                self._timer = self.loop.call_later(left, self._expire)
                return
            connection.give_up(NodeTimeout(f"node {connection.pool.node.index}: no connection in time"))

    def _look_around(self) -> None:
        connections = [connection for pool in self._pools for connection in pool.all]
        for connection in connections:
            connection.look_after(self.loop.time() - _SILENT)
        self._rounds = self.loop.call_later(_SILENT, self._look_around) if connections else None

    async def close(self) -> None:
        for timer in (self._timer, self._rounds):
            if timer is not None:
                timer.cancel()
        for pool in self._pools:
            pool.close()
        # one turn, so that aborted transports have run their connection_lost
        await asyncio.sleep(0)
