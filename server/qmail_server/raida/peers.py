"""Who sends frames: TCP connections and UDP datagrams.

Rules: one connection has one request in hand. What the peer sends behind it stays in the kernel, or in one small buffer
of its own; an idle or parked connection has no buffer at all, because all of them read into the one of their host.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any, Literal, Protocol, cast

from msgspec import Struct, field

from qmail_core.codec import consts as c
from qmail_core.codec import exchange, packet
from qmail_core.errors import RemoteProtocolError
from qmail_core.raida.node import Node, Wait

BEHIND = 4096  # bytes kept of what comes behind a request in hand
DRAIN_LIMIT = 2 * c.MAX_BODY  # bytes read and forgotten behind a refused frame


Mode = Literal["up", "down", "slow", "corrupt"]


class Seat(Struct, eq=False):
    """One node of a host: how it behaves, its ports and its connections."""

    node: Node
    port: int
    mode: Mode = "up"
    delay: float = 0.0
    requests: int = 0  # frames handled since the start
    server: asyncio.Server | None = None
    datagrams: Datagrams | None = None
    peers: set[Connection] = field(default_factory=set)
    parked: dict[bytes, list[Connection]] = field(default_factory=dict)  # by mailbox, MAX_PARKED each


class Owner(Protocol):
    """The host, as its peers see it."""

    scratch: memoryview  # received bytes, until the callback that got them returns

    def joined(self, peer: Connection) -> None:
        """A connection is there."""

    def left(self, peer: Connection) -> None:
        """A connection is gone."""

    def watch(self, peer: Connection, *, inside: bool) -> None:
        """Close a peer that stays silent too long, inside a frame or between frames."""

    def accept(self, peer: Peer, frame: bytearray) -> None:
        """Take a whole frame into the next turn."""


class Peer(Protocol):
    """Where a frame came from, and where its answer goes."""

    seat: Seat
    is_datagram: bool

    @property
    def is_reachable(self) -> bool:
        """Whether an answer can still be delivered; if not, the request is dropped unread."""

    def answer(self, reply: bytearray, *, close: bool) -> None:
        """Send the answer of the request in hand."""


class Connection(asyncio.BufferedProtocol):
    """Cuts a byte stream into frames and hands them to the host, one at a time."""

    __slots__ = (
        "_busy", "_draining", "_ended", "_frame", "_have", "_host", "_paused", "_rest", "_stalled",
        "deadline", "queued", "seat", "transport", "wait",
    )  # fmt: skip
    is_datagram = False

    def __init__(self, host: Owner, seat: Seat) -> None:
        self._host = host
        self.seat = seat
        self.wait: Wait | None = None
        self.transport: asyncio.Transport | None = None
        self.deadline = self.queued = inf
        self._rest = b""  # the beginning of the next frame, or what came behind a request in hand
        self._frame: memoryview | None = None  # a frame of known size that is not whole yet
        self._have = 0  # bytes of it; of a refused one, bytes forgiven
        self._busy = False  # a frame is with the host
        self._ended = False  # the peer sends nothing more
        self._stalled = False  # the peer does not read its answers
        self._paused = False  # the peer is not read
        self._draining = False  # the answer has left; whatever comes is forgotten

    @property
    def is_reachable(self) -> bool:
        return self.transport is not None and self.seat.mode != "down"

    @property
    def is_busy(self) -> bool:
        """Whether a request is in hand."""
        return self._busy

    # ------------------------------------------------------------------ asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._host.joined(self)
        if self.seat.mode == "down":  # it was accepted just before the listener closed
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._host.left(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._frame is not None:
            return self._frame[self._have :]
        if self._busy or self._stalled:
            return self._host.scratch[: BEHIND - len(self._rest)]
        return self._host.scratch

    def buffer_updated(self, nbytes: int) -> None:
        if self._frame is not None:
            self._have += nbytes
            self._take_large(self._frame)
        elif self._draining:
            self._drained(nbytes)
        elif self._busy or self._stalled:
            self._rest += self._host.scratch[:nbytes]
            if len(self._rest) >= BEHIND:
                self._full()
        elif self._rest:
            self._rest += self._host.scratch[:nbytes]
            self._take()
        else:
            self._take_from(self._host.scratch, nbytes)

    def eof_received(self) -> bool:
        """A peer may close its half right behind a request; a parked one that does is gone."""
        self._ended = True
        return self._busy and self.wait is None

    def pause_writing(self) -> None:
        self._stalled = True

    def resume_writing(self) -> None:
        self._stalled = False
        self._go_on()

    # ------------------------------------------------------------------ bytes to frames
    def _take_from(self, data: memoryview, have: int) -> None:
        """Hand the next whole frame to the host, or arrange for its missing bytes."""
        frame = exchange.first_request(data, have)
        if frame is None:
            self._wait_for_more(data[:have])
            return
        if have > len(frame):
            self._rest = bytes(data[len(frame) : have])
        self._hand_over(frame)

    def _take(self) -> None:
        """The same with what was kept."""
        rest, self._rest = self._rest, b""
        self._take_from(memoryview(rest), len(rest))

    def _wait_for_more(self, data: memoryview) -> None:
        """Keep the beginning of a frame, or refuse it by its header."""
        try:
            size = exchange.request_size(data)
        except RemoteProtocolError:
            header = packet.read_header(data)
            self._refuse(self.seat.node.refuse(data) or packet.build_refusal(header, c.STATUS_PACKET_LENGTH, echo=True))
            return
        if size is None:
            self._rest = bytes(data)
            self._need_more()
        elif size > len(data):
            self._begin(data, size)
        else:  # of a type nobody here understands: its header is all there is to it
            self._rest = bytes(data[size:])
            self._hand_over(bytearray(data[:size]))

    def _begin(self, data: memoryview, size: int) -> None:
        """Make room for a frame of known size, unless its header is refused whatever follows."""
        refusal = self.seat.node.refuse(data)
        if refusal is not None:
            self._refuse(refusal)
            return
        self._frame, self._have = memoryview(bytearray(size)), len(data)
        self._frame[: self._have] = data
        self._need_more()

    def _need_more(self) -> None:
        if self._ended:
            self.close()
        else:
            self._host.watch(self, inside=bool(self._rest or self._frame))

    def _take_large(self, frame: memoryview) -> None:
        if self._have < len(frame):
            self._host.watch(self, inside=True)
            return
        self._frame = None
        self._hand_over(cast(bytearray, frame.obj))

    def _hand_over(self, frame: bytearray) -> None:
        self._busy = True
        self._host.accept(self, frame)

    def _full(self) -> None:
        """Stop reading behind a request in hand. A parked peer must stay readable, or its leaving goes unnoticed."""
        if self.wait is not None:
            self.abort()
        elif self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def _refuse(self, reply: bytearray) -> None:
        """Answer a frame whose body is not wanted. QMail wire A.11."""
        self._rest, self._busy = b"", True
        self.answer(reply, close=True)

    # ------------------------------------------------------------------ answers
    def answer(self, reply: bytearray, *, close: bool) -> None:
        """Send an answer and go on with what the peer sent meanwhile, or close behind it."""
        if self.transport is None:
            return
        self._busy = False
        self.transport.write(reply)
        if close:
            self._drain()
        elif self._rest or self._ended:
            self._go_on()

    def _go_on(self) -> None:
        """Take the next frame, unless one is in hand or the peer lets its answers pile up."""
        if self._busy or self.transport is None or self._draining or self._frame is not None:
            return
        if self._stalled:
            self._host.watch(self, inside=False)
            return
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        self._take()

    def park(self, wait: Wait) -> None:
        """Hold the connection until the host answers."""
        self.wait = wait
        if self._ended:
            self.close()
        elif len(self._rest) >= BEHIND:
            self.abort()

    def _drain(self) -> None:
        """Let the peer finish sending: closing with unread bytes would reset the connection and lose the answer."""
        self._rest, self._draining, self._have = b"", True, DRAIN_LIMIT
        if self._ended or self.transport is None:
            self.close()
            return
        self.transport.write_eof()
        if self._paused:
            self.transport.resume_reading()
        self._host.watch(self, inside=True)

    def _drained(self, nbytes: int) -> None:
        self._have -= nbytes
        if self._have < 0:
            self.abort()

    def close(self) -> None:
        """Close once everything written has left."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close now."""
        if self.transport is not None:
            self.transport.abort()


class Datagrams(asyncio.DatagramProtocol):
    """The UDP port of a node: every datagram is a whole frame."""

    def __init__(self, host: Owner, seat: Seat) -> None:
        self._host = host
        self.seat = seat
        self.transport: asyncio.DatagramTransport | None = None
        self.is_full = False  # the socket takes no more for now: answers are lost, as datagrams may be

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._host.accept(Sender(self, addr), bytearray(data))

    def error_received(self, exc: Exception) -> None:
        """Somebody's port is closed: nothing to be done."""

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False

    def close(self) -> None:
        """Give the port back."""
        if self.transport is not None:
            self.transport.abort()


class Sender:
    """Whoever sent one datagram."""

    __slots__ = ("_addr", "_port", "seat")
    is_datagram = True

    def __init__(self, port: Datagrams, addr: tuple[Any, ...]) -> None:
        self._port = port
        self._addr = addr
        self.seat = port.seat

    @property
    def is_reachable(self) -> bool:
        transport = self._port.transport
        return transport is not None and not transport.is_closing() and not self._port.is_full

    def answer(self, reply: bytearray, *, close: bool) -> None:
        if self._port.transport is not None and self.is_reachable:
            self._port.transport.sendto(reply, self._addr)
