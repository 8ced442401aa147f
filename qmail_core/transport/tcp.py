"""TCP exchanges: one request at a time per connection, connections kept and pooled where the node keeps them.

asyncio.BufferedProtocol without streams: an answer is received straight into a buffer of its announced size. The
module does not care which event loop runs it; start-up chooses uvloop. A node that closes after each answer (as
deployed servers do) simply leaves nothing to pool.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import cast

from typing_extensions import Buffer

from qmail_core.codec import exchange
from qmail_core.errors import ConnectError, TransportError
from qmail_core.model import NodeId
from qmail_core.transport.base import Cancel, Done

_FIRST_BUFFER = 4096  # most answers fit, so header and body come with one read
_MAX_IDLE = 8  # kept connections per node


class _Connection(asyncio.BufferedProtocol):
    """One connection; `done` is set while an exchange is under way."""

    def __init__(self, pool: _Pool) -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.done: Done | None = None
        self.used = 0  # exchanges completed
        self._enc = 0
        self._first = bytearray(_FIRST_BUFFER)
        self._buffer: bytearray = self._first
        self._have = 0
        self._size: int | None = None

    def exchange(self, frame: Buffer, enc: int, done: Done) -> None:
        """Send one request; the answer goes to `done`."""
        assert self.transport is not None
        self.done, self._enc = done, enc
        self.transport.write(memoryview(frame))

    def abort(self) -> None:
        """Give the connection up; nobody is told."""
        self.done = None
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by shape only
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._have : self._size if self._buffer is not self._first else None]

    def buffer_updated(self, nbytes: int) -> None:
        self._have += nbytes
        if self.done is None:
            self.abort()  # nothing was asked, so nothing may come
            return
        if self._size is None:
            self._size = exchange.reply_size(memoryview(self._buffer)[: self._have], self._enc)
            if self._size is None:
                return
            if self._size > _FIRST_BUFFER:
                whole = bytearray(self._size)
                whole[: self._have] = memoryview(self._first)[: self._have]
                self._buffer = whole
        if self._have >= self._size:
            self._complete()

    def _complete(self) -> None:
        done, size, have = self.done, self._size, self._have
        assert done is not None
        assert size is not None
        answer = bytearray(memoryview(self._first)[:size]) if self._buffer is self._first else self._buffer
        self.done, self._buffer, self._have, self._size = None, self._first, 0, None
        self.used += 1
        if have > size:
            self.abort()
            done(ConnectError(f"node {self.pool.node.index} sent more than its answer"))
            return
        self.pool.release(self)
        done(memoryview(answer))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.forget(self)
        done, self.done = self.done, None
        self.transport = None
        if done is not None:
            error = ConnectError(f"node {self.pool.node.index}: connection lost before the answer")
            error.stale = self.used > 0 and self._have == 0
            done(error)


class _Pool:
    """The connections to one node."""

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.idle: list[_Connection] = []
        self.all: set[_Connection] = set()

    def take(self) -> _Connection | None:
        """An idle connection, the most recently used first."""
        while self.idle:
            connection = self.idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    def release(self, connection: _Connection) -> None:
        """Keep a connection whose exchange is complete."""
        if len(self.idle) < _MAX_IDLE and connection.transport is not None:
            self.idle.append(connection)
        else:
            connection.abort()

    def forget(self, connection: _Connection) -> None:
        """A connection is gone."""
        self.all.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)


class TcpTransport:
    """Exchanges with nodes that listen on TCP. Hosts are numeric, so no resolver thread is ever needed."""

    def __init__(self, nodes: Sequence[NodeId]) -> None:
        self._pools = [_Pool(node) for node in nodes]
        self._connecting: set[asyncio.Task[None]] = set()

    def nodes(self) -> int:
        return len(self._pools)

    def location(self, node: int) -> tuple[str, int]:
        where = self._pools[node].node
        return where.host, where.port

    def send(self, node: int, frame: Buffer, enc: int, done: Done) -> Cancel:
        pool = self._pools[node]
        connection = pool.take()
        if connection is not None:
            connection.exchange(frame, enc, done)
            return connection.abort
        task = asyncio.get_running_loop().create_task(self._connect(pool, frame, enc, done))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        # while connecting, cancelling the task is enough; afterwards the connection itself must go
        return lambda: _cancel(task, pool, done)

    async def _connect(self, pool: _Pool, frame: Buffer, enc: int, done: Done) -> None:
        loop = asyncio.get_running_loop()
        connection = _Connection(pool)
        try:
            await loop.create_connection(lambda: connection, pool.node.host, pool.node.port)
        except OSError as error:
            done(_refused(pool.node, error))
            return
        pool.all.add(connection)
        connection.exchange(frame, enc, done)

    async def close(self) -> None:
        for task in list(self._connecting):
            task.cancel()
        for pool in self._pools:
            for connection in list(pool.all):
                connection.abort()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        # one turn, so that aborted transports have run their connection_lost
        await asyncio.sleep(0)


def _cancel(task: asyncio.Task[None], pool: _Pool, done: Done) -> None:
    if not task.done():
        task.cancel()
    for connection in list(pool.all):
        if connection.done is done:
            connection.abort()


def _refused(node: NodeId, error: OSError) -> TransportError:
    return ConnectError(f"node {node.index}: {error.strerror or error}")
