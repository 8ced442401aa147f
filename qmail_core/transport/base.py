"""What a transport owes: one frame to one node, one answer back. Policy (how many, how long, retries) is fanout's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from typing_extensions import Buffer

from qmail_core.errors import TransportError

Done = Callable[["memoryview | TransportError"], None]
Cancel = Callable[[], None]


class Transport(Protocol):
    """Moves frames. All methods are called on the event loop's thread.

    `send` MUST call `done` exactly once, never from inside `send` itself, with either the whole answer frame (a
    writable view nobody else keeps) or a TransportError; after the returned function was called, `done` MUST NOT be
    called any more. It MUST NOT retry: a frame is transmitted at most once, because a repeated nonce is never allowed.

    A `done` may have a method `offer(frame) -> bool` for transports that anybody can send to: it takes a frame only if
    that is the answer, and says whether it did; when it did, the exchange is over and `done` is not called.

    A transport may have a method `learn(node, depth)`: it is told of nodes that keep a connection, and how many
    requests may be under way on one of theirs.
    """

    def send(self, node: int, frame: Buffer, enc: int, done: Done) -> Cancel:
        """Start one exchange; `enc` is the frame's encryption type, which decides the answer's header length."""
        ...

    def location(self, node: int) -> tuple[str, int]:
        """IPv4 address and port of a node, as a tell announces it."""
        ...

    def nodes(self) -> int:
        """How many nodes the network has."""
        ...

    async def close(self) -> None:
        """Drop all connections; exchanges under way end without a call to `done`."""
        ...
