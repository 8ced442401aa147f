"""Bodies of group 8: coins under a key derived from a code, so that whoever is told the code can take them.

QMail wire B.5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec.coins import (
    PAIR_SIZE,
    SELECTOR_SIZE,
    build_detect,
    build_detect_sum,
    parse_detect,
    parse_pown_sum,
)
from qmail_core.codec.mail import build_selector
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import AN_SIZE, Address, Coin


class LockerPut(Struct, frozen=True):
    """Coins that move into one locker, as one node sees it."""

    coins: tuple[Address, ...]
    xor_sum: bytes
    key: bytes


def locker_keys_ok(key: bytes) -> bool:
    """Whether a locker key ends as one must, FF four times (else status 199)."""
    return key[12:] == b"\xff\xff\xff\xff" and len(key) == AN_SIZE


# ------------------------------------------------------------------------------------------------------------------
# 82 put, 88 put multiple


def build_put(coins: Sequence[Coin], key: bytes, node: int) -> bytes:
    """Put coins into the locker with `key` on one node. Source B.5.2, command 82."""
    return build_detect_sum(coins, node) + key


def parse_put(payload: memoryview) -> LockerPut:
    """Read a command 82 payload; RemoteProtocolError if the coin list is empty or not divisible by 5."""
    found = parse_pown_sum(payload)
    return LockerPut(found.coins, found.xor_sum, found.delta)


def build_put_many(lockers: Sequence[tuple[Sequence[Coin], bytes]], node: int) -> bytes:
    """Fill up to 255 lockers in one request.

    lockers  (coins, key on this node) pairs
    raises   LocalProtocolError if there are more than 255, or none
    source   QMail wire B.5.2, command 88
    """
    if not 1 <= len(lockers) <= 255:
        raise LocalProtocolError("one request fills 1 to 255 lockers")
    parts = [bytes((len(lockers),))]
    for coins, key in lockers:
        parts += [len(coins).to_bytes(2, "big"), build_put(coins, key, node)]
    return b"".join(parts)


def parse_put_many(payload: memoryview) -> list[LockerPut]:
    """Read a command 88 payload; RemoteProtocolError if lengths do not add up."""
    if not len(payload):
        raise RemoteProtocolError("locker list is empty")
    puts, position = [], 1
    for _ in range(payload[0]):
        end = position + 2 + int.from_bytes(payload[position : position + 2], "big") * SELECTOR_SIZE + 2 * AN_SIZE
        if end > len(payload):
            raise RemoteProtocolError("locker list is truncated")
        puts.append(parse_put(payload[position + 2 : end]))
        position = end
    if position != len(payload) or not puts:
        raise RemoteProtocolError("locker list does not match its count")
    return puts


# ------------------------------------------------------------------------------------------------------------------
# 83 peek, 84 remove, 8 download


def parse_peek(payload: memoryview) -> bytes:
    """The locker key of a command 83 payload."""
    if len(payload) != AN_SIZE:
        raise RemoteProtocolError("locker peek has a wrong length")
    return bytes(payload)


def build_remove(key: bytes, coins: Sequence[Coin], node: int) -> bytes:
    """Take coins out of a locker, giving each the authenticity number it carries in `coins`. Source B.5.2, 84."""
    return key + build_detect(coins, node)


def parse_remove(payload: memoryview) -> tuple[bytes, list[tuple[Address, bytes]]]:
    """(locker key, new authenticity number per coin) of a command 84 payload."""
    if len(payload) < AN_SIZE + PAIR_SIZE:
        raise RemoteProtocolError("locker remove has a wrong length")
    return bytes(payload[:AN_SIZE]), parse_detect(payload[AN_SIZE:])


def build_download(key: bytes, seed: bytes) -> bytes:
    """Take all coins out of a locker, with numbers made of a seed. Source B.5.2, command 8."""
    return key + seed


def parse_download(payload: memoryview) -> tuple[bytes, bytes]:
    """(locker key, seed) of a command 8 payload."""
    if len(payload) != 2 * AN_SIZE:
        raise RemoteProtocolError("locker download has a wrong length")
    return bytes(payload[:AN_SIZE]), bytes(payload[AN_SIZE:])


def seeded_an(address: Address, seed: bytes) -> bytes:
    """The number a downloaded coin gets: MD5(DN || SN || seed). Source B.5.2.

    seed  16 random bytes, another for every node: a node could else compute the numbers of the others
    """
    if len(seed) != c.SEED_SIZE:
        raise LocalProtocolError("a seed has 16 bytes")
    return hashlib.md5(build_selector(address) + seed, usedforsecurity=False).digest()
