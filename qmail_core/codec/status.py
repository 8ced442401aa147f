"""Bodies of group 0 that have one: version, count and statistics. QMail wire B.1.

Rule: `build_` and `parse_` are exact inverses, but `parse_count` also takes the answer of deployed nodes, which loses
its last byte.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from typing_extensions import Buffer

from qmail_core.codec import consts as c
from qmail_core.errors import RemoteProtocolError

ADMIN_KEY_SIZE = 16
VERSION_SIZE = 8
MARK = ord("Q")  # a version of this project begins with it; all others are digits

_ROW = struct.Struct(">bI")
_DEPTHS = [b"%X" % depth for depth in range(16)]


def build_version(date: str, depth: int) -> bytes:
    """Answer of command 1: the mark, a date of six digits, and how many requests a connection may have under way.

    depth   0 to 15; 0 for a node that may close a connection behind its answer
    source  B.1 says eight ASCII bytes; what they say of connections is the choice of docs/protocol.md
    """
    return b"Q%b%X" % (date.encode("ascii"), depth)


def parse_version(payload: Buffer) -> int:
    """How many requests may be under way on one connection, from a node's version: 0 where it does not say.

    raises   RemoteProtocolError for anything but eight printable ASCII bytes
    """
    version = bytes(payload)
    if len(version) != VERSION_SIZE or not version.isascii() or not version.decode("ascii").isprintable():
        raise RemoteProtocolError("the version is not eight ASCII bytes")
    if version[0] != MARK or not version[1:7].isdigit() or version[7:] not in _DEPTHS:
        return 0
    return int(version[7:], 16)


def build_count(coins: Mapping[int, int]) -> bytes:
    """Answer of command 3: how many coins of each denomination a node holds; 75 bytes."""
    return b"".join(_ROW.pack(dn, min(coins.get(dn, 0), 0xFFFFFFFF)) for dn in c.DENOMINATIONS)


def parse_count(payload: Buffer) -> dict[int, int]:
    """Coins by denomination, from 75 bytes or from 74: then the last count is unknown and left out.

    raises   RemoteProtocolError for another length, or denominations out of order
    """
    view = memoryview(payload).cast("B")
    rows = list(_ROW.iter_unpack(view[: len(view) // _ROW.size * _ROW.size]))
    whole = _ROW.size * len(c.DENOMINATIONS)
    if len(view) not in (whole, whole - 1) or [dn for dn, _ in rows] != list(c.DENOMINATIONS)[: len(rows)]:
        raise RemoteProtocolError(f"a count of {len(view)} bytes is not one entry for each denomination")
    return dict(rows)


def build_stats(numbers: Mapping[str, int]) -> bytes:
    """Answer of command 2, whose layout nobody documents: one line "name number" each, ASCII."""
    return "".join(f"{name} {number}\n" for name, number in numbers.items()).encode("ascii")


def parse_stats(payload: Buffer) -> dict[str, int]:
    """The inverse of `build_stats`; RemoteProtocolError for anything else."""
    try:
        pairs = [line.split(" ") for line in bytes(payload).decode("ascii").splitlines()]
        return {name: int(number) for name, number in pairs}
    except ValueError:
        raise RemoteProtocolError("statistics are not lines of a name and a number") from None
