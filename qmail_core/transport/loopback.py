"""Frames handed to nodes in the same process: tests, examples and embedding. No sockets, same bytes.

The nodes are given by shape, so that this module needs no import of them. As any host of nodes must, a LoopbackHost
commits a node's changes before an answer leaves, and waits on the node's behalf.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from typing_extensions import Buffer

from qmail_core.codec import consts as c
from qmail_core.errors import ConnectError
from qmail_core.transport.base import Cancel, Done
from qmail_core.transport.peers import Peers


class State(Protocol):
    """What a node remembers, as far as a host cares."""

    def commit(self) -> None: ...


class NodeLike(Protocol):
    """One node; see qmail_core.raida.node.Node."""

    @property
    def state(self) -> State: ...
    def handle(self, frame: bytearray, now: float) -> Any: ...
    def resume(self, wait: Any, now: float) -> Any: ...
    def expire(self, wait: Any, now: float) -> Any: ...
    def answered(self, ask: Any, replies: Any, now: float) -> Any: ...
    def errands(self, now: float) -> Sequence[Any]: ...
    def fail(self, outcome: Any, status: int) -> Any: ...


class _Parked:
    """A long poll that waits at a node."""

    def __init__(self, node: int, wait: Any, done: Done) -> None:
        self.node = node
        self.wait = wait
        self.done = done
        self.timer: asyncio.TimerHandle | None = None


class LoopbackHost:
    """Hosts nodes for any number of transports.

    clock    Unix time for the nodes
    down     nodes that refuse connections; may be changed at any time
    delay    seconds until a node sees a request, by node index; may be changed at any time
    entropy  for the frames nodes send each other
    """

    def __init__(
        self,
        nodes: Sequence[NodeLike],
        clock: Callable[[], float],
        *,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.nodes = nodes
        self.down: set[int] = set()
        self.delay: dict[int, float] = {}
        self._clock = clock
        self._parked: set[_Parked] = set()
        self._peers = Peers(LoopbackTransport(self), entropy)

    def deliver(self, index: int, frame: bytearray, done: Done) -> _Parked | None:
        """Hand a frame over; returns the long poll it became, if it did."""
        if index in self.down:
            done(ConnectError(f"node {index}: connection refused"))
            return None
        outcome = self._kept(index, self.nodes[index].handle(frame, self._clock()))
        parked = None
        if outcome.wait is not None:
            parked = self._park(index, outcome.wait, done)
        elif outcome.ask is not None and self._peers.full:
            done(memoryview(self.nodes[index].fail(outcome, c.STATUS_RATE_EXCEEDED).reply))
        elif outcome.ask is not None:
            self._peers.ask(outcome.ask.inquiry, functools.partial(self._answered, index, outcome.ask, done))
        else:
            done(memoryview(outcome.reply))
        self._wake(index, outcome.woken)
        return parked

    def _kept(self, index: int, outcome: Any) -> Any:
        if outcome.changed:
            self.nodes[index].state.commit()
            self.run_errands(index)
        return outcome

    def _answered(self, index: int, ask: Any, done: Done | None, replies: Any) -> None:
        outcome = self._kept(index, self.nodes[index].answered(ask, replies, self._clock()))
        if done is not None:
            done(memoryview(outcome.reply))

    def run_errands(self, index: int) -> None:
        """Let a node ask others what it wants to know for itself."""
        if self._peers.full:
            return
        for ask in self.nodes[index].errands(self._clock()):
            self._peers.ask(ask.inquiry, functools.partial(self._answered, index, ask, None))

    async def close(self) -> None:
        """Drop what nodes ask each other."""
        await self._peers.close()

    def _park(self, index: int, wait: Any, done: Done) -> _Parked:
        parked = _Parked(index, wait, done)
        self._parked.add(parked)
        left = max(0.0, wait.until - self._clock())
        parked.timer = asyncio.get_running_loop().call_later(left, self._expire, parked)
        return parked

    def unpark(self, parked: _Parked) -> None:
        """Forget a long poll; nobody is told."""
        if parked.timer is not None:
            parked.timer.cancel()
        self._parked.discard(parked)

    def _expire(self, parked: _Parked) -> None:
        self.unpark(parked)
        parked.done(memoryview(self.nodes[parked.node].expire(parked.wait, self._clock()).reply))

    def _wake(self, index: int, mailboxes: Iterable[bytes]) -> None:
        for parked in [p for p in self._parked if p.node == index and p.wait.mailbox in mailboxes]:
            outcome = self._kept(index, self.nodes[index].resume(parked.wait, self._clock()))
            if outcome.reply is not None:
                self.unpark(parked)
                parked.done(memoryview(outcome.reply))


class LoopbackTransport:
    """One user's way to the nodes of a LoopbackHost."""

    def __init__(self, host: LoopbackHost) -> None:
        self._host = host
        self._open: set[Callable[[], None]] = set()

    def nodes(self) -> int:
        return len(self._host.nodes)

    def location(self, node: int) -> tuple[str, int]:
        return "127.0.0.1", 50000 + node

    def send(self, node: int, frame: Buffer, enc: int, done: Done) -> Cancel:
        parked: list[_Parked] = []

        def answered(answer: Any) -> None:
            if cancel in self._open:
                self._open.discard(cancel)
                done(answer)

        def deliver() -> None:
            # a copy, because a node decrypts in place
            found = self._host.deliver(node, bytearray(frame), answered)
            if found is not None:
                parked.append(found)

        handle = asyncio.get_running_loop().call_later(self._host.delay.get(node, 0.0), deliver)

        def cancel() -> None:
            self._open.discard(cancel)
            handle.cancel()
            for waiting in parked:
                self._host.unpark(waiting)

        self._open.add(cancel)
        return cancel

    async def close(self) -> None:
        for cancel in list(self._open):
            cancel()
