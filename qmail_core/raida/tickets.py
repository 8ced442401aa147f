"""Tickets a node gave out: for a little while it vouches, to other nodes, for coins somebody proved to it.

In memory only: whoever loses a ticket to a restart asks for another.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from qmail_core.codec import consts as c
from qmail_core.codec.packet import Refused

Proof = tuple[tuple[bytes, bytes], ...]  # (selector, AN) of each coin when it was proven


class _Ticket(Struct):
    coins: Proof
    until: float
    claimed: set[int] = field(default_factory=set)  # nodes that have asked


class Tickets:
    """A bounded number of tickets; the oldest end first."""

    def __init__(self, lifetime: float, slots: int) -> None:
        self._lifetime = lifetime
        self._slots = slots
        self._tickets: dict[int, _Ticket] = {}

    def issue(self, coins: Proof, entropy: Callable[[int], bytes], now: float) -> int:
        """A ticket for coins; Refused when no slot is free."""
        self._sweep(now)
        if len(self._tickets) >= self._slots:
            raise Refused(c.STATUS_NO_TICKET_SLOT)
        number = 0
        while not number or number in self._tickets:  # four zero bytes mean: no ticket
            number = int.from_bytes(entropy(c.TICKET_SIZE), "big")
        self._tickets[number] = _Ticket(coins, now + self._lifetime)
        return number

    def claim(self, number: int, asker: int, now: float) -> Proof:
        """The coins of a ticket, once for each asking node; Refused otherwise."""
        self._sweep(now)
        ticket = self._tickets.get(number)
        if ticket is None:
            raise Refused(c.STATUS_TICKET_NOT_FOUND)
        if asker in ticket.claimed:
            raise Refused(c.STATUS_TICKET_CLAIMED)
        ticket.claimed.add(asker)
        return ticket.coins

    def _sweep(self, now: float) -> None:
        while self._tickets:
            number, ticket = next(iter(self._tickets.items()))
            if ticket.until > now:
                return
            del self._tickets[number]
