"""Who and where: addresses, coins, nodes, and what the directory and a node's lists say."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from msgspec import Struct

AN_SIZE = 16


class Address(Struct, frozen=True, order=True):
    """A mailbox: the denomination and serial number of the coin that is its identity."""

    denomination: int  # signed code: 0 bit, 1 byte, 2 kilo, 3 mega, 4 giga, 5 epic
    serial: int  # u32, never 0


class Coin(Struct, frozen=True):
    """One coin with its authenticity numbers on every node."""

    address: Address
    ans: bytes  # 16 bytes per node

    def an(self, node: int) -> bytes:
        """The authenticity number this coin shares with one node."""
        return self.ans[node * AN_SIZE : (node + 1) * AN_SIZE]

    @property
    def value(self) -> int:
        """Worth in whole CloudCoins; fractional denominations are not used here."""
        return int(10**self.address.denomination)

    def __repr__(self) -> str:
        return f"Coin({self.address.denomination}:{self.address.serial})"

    __str__ = __repr__


class NodeId(Struct, frozen=True):
    """Where one storage node listens."""

    index: int  # position in the network, 0-based; equals the RAIDA index on the wire
    host: str
    port: int


def nodes_of(hosts: Sequence[tuple[str, int]]) -> tuple[NodeId, ...]:
    """Number a list of (host, port) pairs in order."""
    return tuple(NodeId(index, host, port) for index, (host, port) in enumerate(hosts))


class UserProfile(Struct, frozen=True, kw_only=True):
    """What the owner of a mailbox publishes in the directory."""

    fee: int = 0  # inbox fee, 1e-8 CC
    symbol1: int = 0  # avatar, 0..255
    symbol2: int = 0
    class_rejection: int = 0  # signed denomination; 0 accepts every sender
    first_name: str = ""  # at most 63 bytes of UTF-8
    last_name: str = ""


class UserRecord(Struct, frozen=True):
    """A published profile as a node keeps it."""

    address: Address
    profile: UserProfile
    created_at: int  # by the clock of the node; kept across updates
    updated_at: int


class ListKind(enum.IntEnum):
    """The lists of senders a mailbox keeps."""

    WHITE = 0  # delivered free, whatever the fee
    BLACK = 1  # never delivered


class ListEntry(Struct, frozen=True):
    """One listed sender."""

    address: Address
    kind: int  # a ListKind; other values are for the node to refuse


class Published(Struct, frozen=True):
    """How far a change of the directory came."""

    accepted: tuple[int, ...]  # nodes that have it now
    behind: tuple[int, ...]  # nodes that are told again in the background
