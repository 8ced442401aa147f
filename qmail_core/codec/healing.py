"""Bodies of group 2: a coin that some nodes hold under another number is mended with the word of the others.

The owner proves the coin to each node that knows it and gets a ticket; a node that does not know it is handed all
tickets and asks the nodes that gave them. QMail wire B.3.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec.coins import (
    SELECTOR_SIZE,
    build_bitmap,
    build_coin_list,
    build_detect,
    build_triples,
    parse_bitmap,
    parse_detect,
    parse_triples,
    read_selectors,
)
from qmail_core.codec.mail import build_selector
from qmail_core.codec.packet import Reply
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import Address

NO_TICKET = 0
_TICKETS = c.MAX_TICKETS * c.TICKET_SIZE

# ------------------------------------------------------------------------------------------------------------------
# 40 get ticket: the body is that of detect

build_get_ticket = build_detect
parse_get_ticket = parse_detect


def build_ticket(passed: Sequence[bool], ticket: int) -> tuple[int, bytes]:
    """Status and payload of the answer to 40; the ticket stands for the coins that passed."""
    if not any(passed):
        return c.STATUS_ALL_FAIL, b""
    raw = ticket.to_bytes(c.TICKET_SIZE, "big")
    return (c.STATUS_ALL_PASS, raw) if all(passed) else (c.STATUS_MIXED, build_bitmap(passed) + raw)


def parse_ticket(reply: Reply, count: int) -> tuple[list[bool], int]:
    """(which coins passed, the ticket for them); NodeError for a status that says nothing about them."""
    if reply.status == c.STATUS_ALL_FAIL:
        return [False] * count, NO_TICKET
    if reply.status != c.STATUS_MIXED:
        reply.expect()
    payload = bytes(reply.payload)
    if len(payload) < c.TICKET_SIZE:
        raise RemoteProtocolError("ticket is missing")
    passed = [True] * count
    if reply.status == c.STATUS_MIXED:
        passed = parse_bitmap(payload[: -c.TICKET_SIZE], count)
    return passed, int.from_bytes(payload[-c.TICKET_SIZE :], "big")


# ------------------------------------------------------------------------------------------------------------------
# 50 validate ticket, from node to node


def build_validate(asker: int, ticket: int) -> bytes:
    """Ask the node that gave a ticket which coins it stands for. Source B.3, command 50."""
    return bytes((asker,)) + ticket.to_bytes(c.TICKET_SIZE, "big")


def parse_validate(payload: memoryview) -> tuple[int, int]:
    """(index of the asking node, ticket) of a command 50 payload."""
    if len(payload) != 1 + c.TICKET_SIZE:
        raise RemoteProtocolError("ticket question has a wrong length")
    return payload[0], int.from_bytes(payload[1:], "big")


build_validated = build_coin_list  # the answer to 50


# ------------------------------------------------------------------------------------------------------------------
# 60 find


class Held(enum.IntEnum):
    """Which of two numbers a node holds for a coin; the values are those of the wire."""

    NEITHER = 0
    AN = 1
    PAN = 2


build_find = build_triples
parse_find = parse_triples
_FOUND = {Held.NEITHER: c.STATUS_FIND_NEITHER, Held.AN: c.STATUS_FIND_ALL_AN, Held.PAN: c.STATUS_FIND_ALL_PAN}


def build_found(held: Sequence[Held]) -> tuple[int, bytes]:
    """Status and payload of the answer to 60."""
    kinds = set(held)
    return (c.STATUS_FIND_MIXED, bytes(held)) if len(kinds) > 1 else (_FOUND[kinds.pop()], b"")


def parse_found(reply: Reply, count: int) -> list[Held]:
    """What a node holds for each of `count` coins; NodeError for a status that says nothing about them."""
    for held, status in _FOUND.items():
        if reply.status == status:
            return [held] * count
    reply.expect(c.STATUS_FIND_MIXED)
    try:
        found = list(map(Held, bytes(reply.payload)))
    except ValueError:
        raise RemoteProtocolError("answer to find holds an unknown word") from None
    if len(found) != count:
        raise RemoteProtocolError("answer to find has a wrong length")
    return found


# ------------------------------------------------------------------------------------------------------------------
# 80 fix


class Fix(Struct, frozen=True):
    """Coins to be given new numbers, and who is said to vouch for them."""

    coins: tuple[Address, ...]
    pg: bytes  # what the new numbers are made of
    tickets: tuple[int, ...]  # by node index; NO_TICKET where there is none


def build_fix(coins: Sequence[Address], pg: bytes, tickets: Sequence[int]) -> bytes:
    """Ask a node to take the word of others about coins.

    pg       16 random bytes, never used for another node
    tickets  by node index, at most 25; 0 where there is none
    source   QMail wire B.3, command 80
    """
    if len(tickets) > c.MAX_TICKETS:
        raise LocalProtocolError("a fix carries at most 25 tickets")
    raw = b"".join(ticket.to_bytes(c.TICKET_SIZE, "big") for ticket in tickets)
    return build_coin_list(coins) + pg + raw.ljust(_TICKETS, b"\0")


def parse_fix(payload: memoryview) -> Fix:
    """Read a command 80 payload; RemoteProtocolError if the coin list is empty or not divisible by 5."""
    size = len(payload) - c.SEED_SIZE - _TICKETS
    if size < SELECTOR_SIZE or size % SELECTOR_SIZE:
        raise RemoteProtocolError("coin list is not divisible")
    raw = payload[size + c.SEED_SIZE :]
    tickets = tuple(int.from_bytes(raw[i : i + c.TICKET_SIZE], "big") for i in range(0, _TICKETS, c.TICKET_SIZE))
    return Fix(read_selectors(payload[:size]), bytes(payload[size : size + c.SEED_SIZE]), tickets)


def healed_an(node: int, address: Address, pg: bytes) -> bytes:
    """The number a fixed coin has on a node, computed on both sides: MD5(index || DN || SN || PG). Source B.3."""
    return hashlib.md5(bytes((node,)) + build_selector(address) + pg, usedforsecurity=False).digest()
