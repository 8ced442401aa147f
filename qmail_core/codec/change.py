"""Bodies of group 9: one coin becomes ten of the next smaller denomination, or ten become one.

The new coins take serial numbers that no coin has at present; a node keeps those it names for one session, for a few
seconds. QMail wire B.6.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec.coins import PAIR_SIZE, build_detect, parse_detect
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import Address, Coin

SESSION_SIZE = 4
PARTS = 10  # coins of one denomination that are worth one of the next
_CHANGE_SIZE = SESSION_SIZE + PAIR_SIZE * (1 + PARTS)


class Operation(enum.IntEnum):
    """What serial numbers are wanted for; the values are those of the wire."""

    BREAK = 1
    JOIN = 2


# ------------------------------------------------------------------------------------------------------------------
# 91 available serial numbers


def build_available(session: int, operation: Operation, denomination: int) -> bytes:
    """Ask for free serial numbers.

    session       u32 of the client's choice; the same at every node, so that all name the same numbers
    denomination  of the coins to be made
    source        QMail wire B.6, command 91
    """
    head = session.to_bytes(SESSION_SIZE, "big") + bytes((operation,))
    return head + denomination.to_bytes(1, "big", signed=True)


def parse_available(payload: memoryview) -> tuple[int, int, int]:
    """(session, operation, denomination) of a command 91 payload; the operation is not checked."""
    if len(payload) != SESSION_SIZE + 2:
        raise RemoteProtocolError("serial number question has a wrong length")
    return int.from_bytes(payload[:4], "big"), payload[4], int.from_bytes(payload[5:6], "big", signed=True)


def build_serials(denomination: int, serials: Sequence[int]) -> bytes:
    """The answer to 91."""
    return denomination.to_bytes(1, "big", signed=True) + b"".join(sn.to_bytes(4, "big") for sn in serials)


def parse_serials(payload: bytes | memoryview) -> tuple[int, list[int]]:
    """(denomination, serial numbers) of an answer to 91; documents disagree on how many there may be."""
    if len(payload) % 4 != 1:
        raise RemoteProtocolError("serial number list is not divisible")
    serials = [int.from_bytes(payload[i : i + 4], "big") for i in range(1, len(payload), 4)]
    return int.from_bytes(payload[:1], "big", signed=True), serials


# ------------------------------------------------------------------------------------------------------------------
# 92 break, 93 join: the same layout, with the numbers held on one side and the numbers wanted on the other


class Change(Struct, frozen=True):
    """One coin of a denomination, ten of the next smaller, and a number for each."""

    session: int
    one: tuple[Address, bytes]
    ten: tuple[tuple[Address, bytes], ...]


def build_change(session: int, one: Coin, ten: Sequence[Coin], node: int) -> bytes:
    """Break `one` into `ten` (command 92), or join `ten` into `one` (command 93). Source B.6."""
    if len(ten) != PARTS:
        raise LocalProtocolError("change is one coin against ten")
    return session.to_bytes(SESSION_SIZE, "big") + build_detect([one, *ten], node)


def parse_change(payload: memoryview) -> Change:
    """Read a command 92 or 93 payload."""
    if len(payload) != _CHANGE_SIZE:
        raise RemoteProtocolError("change has a wrong length")
    one, *ten = parse_detect(payload[SESSION_SIZE:])
    return Change(int.from_bytes(payload[:SESSION_SIZE], "big"), one, tuple(ten))


def parts_match(one: Address, ten: Sequence[Address]) -> bool:
    """Whether ten different coins are of the denomination below one's, so that neither side is worth more."""
    below = one.denomination - 1
    possible = c.DENOMINATIONS[0] <= below < c.DENOMINATIONS[-1]
    return possible and len(set(ten)) == PARTS and all(coin.denomination == below for coin in ten)
