"""Small requests as datagrams, everything else and every second attempt over a stream.

One unconnected socket serves all nodes; what has arrived is drained in one turn of the loop. An answer belongs to the
request whose node it comes from and whose echo bytes it carries, and is taken only if its signature is right: anybody
can send datagrams. A datagram is never sent twice. When no answer came in time, or one that is too large for a
datagram, the exchange ends as `stale`, fanout packs the request anew, and that goes over the stream, as do the
requests to this node for a while.

Only commands that may safely reach a node twice are sent this way, because a lost answer looks like a lost request.
QMail wire A.1.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core.codec import consts as c
from qmail_core.codec import exchange
from qmail_core.errors import ConnectError
from qmail_core.model import NodeId
from qmail_core.transport.base import Cancel, Done, Transport

TIMEOUT = 0.3  # seconds; a lost datagram costs as long
LARGEST = 1024  # bytes of a request; what servers take without being configured for more
REPEATABLE = {
    (c.GROUP_STATUS, c.CMD_ECHO),
    (c.GROUP_STATUS, c.CMD_VERSION),
    (c.GROUP_AUTH, c.CMD_DETECT),
    (c.GROUP_MAIL, c.CMD_PEEK),
}
_ROOM = 4 << 20  # bytes for answers that arrive together; the usual default holds 25 of 8 KB
_AVOID = 30.0  # seconds a node is spared datagrams after one went unanswered
_TURN = 256  # datagrams taken in one turn of the loop


class _Waiting(Struct, eq=False):
    """A datagram without an answer so far."""

    node: int
    key: tuple[int, bytes]  # node, echo bytes
    enc: int
    done: Done
    deadline: float
    offer: Callable[[memoryview], bool] | None


class UdpTransport:
    """Datagrams where they fit, else the stream transport; owns both.

    stream   a transport to the same nodes
    largest  bytes a request may have
    """

    def __init__(
        self, nodes: Sequence[NodeId], stream: Transport, *, timeout: float = TIMEOUT, largest: int = LARGEST
    ) -> None:
        self._places = [(node.host, node.port) for node in nodes]
        self._node_at = {place: node for node, place in enumerate(self._places)}
        self._stream = stream
        self._timeout = timeout
        self._largest = largest
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[tuple[int, bytes], _Waiting] = {}  # all equally long, so in order of their deadlines
        self._avoid = [0.0] * len(nodes)  # until when a node is asked over the stream
        self._timer: asyncio.TimerHandle | None = None

    def nodes(self) -> int:
        return self._stream.nodes()

    def location(self, node: int) -> tuple[str, int]:
        return self._stream.location(node)

    def learn(self, node: int, depth: int) -> None:
        """What a node says of its connections is for the stream."""
        learn = getattr(self._stream, "learn", None)
        if learn is not None:
            learn(node, depth)

    def send(self, node: int, frame: Buffer, enc: int, done: Done) -> Cancel:
        view = memoryview(frame)
        if len(view) > self._largest or (view[4], view[5]) not in REPEATABLE:
            return self._stream.send(node, frame, enc, done)
        loop, sock = self._opened()
        now = loop.time()
        key = (node, bytes(view[46:48] if enc >= c.ENC_COIN256 else view[30:32]))
        if now < self._avoid[node] or key in self._waiting:
            return self._stream.send(node, frame, enc, done)
        try:
            sock.sendto(view, self._places[node])
        except OSError:  # no room in the socket's buffer, or no way there: nothing has left
            return self._stream.send(node, frame, enc, done)
        offer = getattr(done, "offer", None)
        self._waiting[key] = _Waiting(node, key, enc, done, now + self._timeout, offer)
        if self._timer is None:
            self._timer = loop.call_later(self._timeout, self._expire)
        return partial(self._forget, key)

    def _forget(self, key: tuple[int, bytes]) -> None:
        self._waiting.pop(key, None)

    def _opened(self) -> tuple[asyncio.AbstractEventLoop, socket.socket]:
        if self._socket is None or self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
            self._loop.add_reader(self._socket, self._drain)
        return self._loop, self._socket

    def _drain(self) -> None:
        sock, nodes = self._socket, self._node_at
        for _ in range(_TURN):
            if sock is None or sock is not self._socket:
                return
            try:
                data, place = sock.recvfrom(65_536)
            except BlockingIOError:
                return
            except OSError:  # a node's machine said that nobody listens: the time-out deals with it
                continue
            node = nodes.get(place)
            if node is not None and len(data) >= c.HEADER_SIZE:
                self._take(node, data)

    def _take(self, node: int, data: bytes) -> None:
        """An answer is looked for by the echo bytes of either header."""
        waiting = self._waiting.get((node, data[6:8])) or self._waiting.get((node, data[46:48]))
        if waiting is None:
            return
        answer = memoryview(bytearray(data))
        size = exchange.reply_size(answer, waiting.enc)
        if size is None or size < len(data):
            return
        if size > len(data):
            self._fail(waiting, "the answer does not fit into a datagram")
        elif waiting.offer is None:
            del self._waiting[waiting.key]
            waiting.done(answer)
        elif waiting.offer(answer):
            self._waiting.pop(waiting.key, None)

    def _fail(self, waiting: _Waiting, why: str) -> None:
        assert self._loop is not None
        del self._waiting[waiting.key]
        self._avoid[waiting.node] = self._loop.time() + _AVOID
        error = ConnectError(f"node {waiting.node}: {why}")
        error.stale = True
        waiting.done(error)

    def _expire(self) -> None:
        assert self._loop is not None
        self._timer = None
        now = self._loop.time()
        for waiting in list(self._waiting.values()):
            if waiting.deadline > now:
                self._timer = self._loop.call_at(waiting.deadline, self._expire)
                return
            if self._waiting.get(waiting.key) is waiting:
                self._fail(waiting, "no answer to a datagram in time")

    async def close(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None and self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        await self._stream.close()
