"""From node to node: the questions nodes of a host have for others, put on their behalf, and what came back."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Container, Sequence

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec.packet import Reply
from qmail_core.model import nodes_of
from qmail_core.raida.node import Ask, Outcome
from qmail_core.transport.peers import Peers
from qmail_core.transport.tcp import TcpTransport
from qmail_server.raida.peers import Peer, Seat

LOOK_EVERY = 60.0  # seconds between looks at what nodes want to ask for themselves


class Answers(Struct, eq=False):
    """What other nodes answered to one Ask; without a peer nobody waits for what comes of it."""

    seat: Seat
    peer: Peer | None
    ask: Ask
    replies: dict[int, Reply]


class Between:
    """Asks and answers of the nodes of one host.

    busy      those of the seats whose nodes are in use: they are left alone
    schedule  called when answers wait for the next turn
    clock     Unix seconds
    """

    def __init__(
        self,
        seats: Sequence[Seat],
        busy: Container[Seat],
        schedule: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._seats, self._busy, self._schedule, self._clock = seats, busy, schedule, clock
        self._peers: Peers | None = None
        self._ready: list[Answers] = []
        self._timer: asyncio.TimerHandle | None = None

    def open(self, where: Sequence[tuple[str, int]]) -> None:
        """Begin to ask, if it is known where."""
        if where:
            self._peers = Peers(TcpTransport(nodes_of(where)), os.urandom)
            self._look_around()

    async def close(self) -> None:
        """Drop what is under way."""
        if self._timer is not None:
            self._timer.cancel()
        if self._peers is not None:
            await self._peers.close()
            self._peers = None
        self._ready.clear()
        for seat in self._seats:
            seat.node.forget_errands()

    def ask(self, peer: Peer, outcome: Outcome) -> None:
        """Put a node's questions; the peer is answered when the answers are in."""
        assert outcome.ask is not None
        seat, ask = peer.seat, outcome.ask
        if self._peers is None:
            self._heard(seat, peer, ask, {})
        elif self._peers.full:
            peer.answer(seat.node.fail(outcome, c.STATUS_RATE_EXCEEDED).reply or bytearray(), close=False)
        else:
            self._peers.ask(ask.inquiry, functools.partial(self._heard, seat, peer, ask))

    def settle(self, now: float) -> list[tuple[Seat, Peer | None, Outcome]]:
        """Hand nodes the answers they asked for. That the peer has left changes nothing."""
        ready = [one for one in self._ready if one.seat not in self._busy]
        self._ready = [one for one in self._ready if one.seat in self._busy]
        return [(one.seat, one.peer, one.seat.node.answered(one.ask, one.replies, now)) for one in ready]

    @property
    def is_due(self) -> bool:
        """Whether answers wait for a turn."""
        return bool(self._ready)

    def run_errands(self, seat: Seat, now: float) -> None:
        """Put the questions a node has for itself."""
        if self._peers is None or self._peers.full or seat.mode == "down":
            return
        for ask in seat.node.errands(now):
            self._peers.ask(ask.inquiry, functools.partial(self._heard, seat, None, ask))

    def _heard(self, seat: Seat, peer: Peer | None, ask: Ask, replies: dict[int, Reply]) -> None:
        self._ready.append(Answers(seat, peer, ask, replies))
        self._schedule()

    def _look_around(self) -> None:
        now = self._clock()
        for seat in self._seats:
            if seat not in self._busy:  # they look themselves when they have committed
                self.run_errands(seat, now)
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look_around)
