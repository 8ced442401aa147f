"""Bodies of groups 1 and 8: detect, and the lockers that pay for storage and delivery.

A payload here is what follows the challenge. Coins are listed as DN SN (5 bytes); a list is proven to one node by the
XOR of the authenticity numbers it holds for them. QMail wire B.2, B.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec.mail import build_selector, read_selector
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import AN_SIZE, Address, Coin

SELECTOR_SIZE = 5


def xor_sum(ans: Iterable[bytes]) -> bytes:
    """Bytewise XOR of 16-byte values; zeros for none."""
    total = 0
    for an in ans:
        total ^= int.from_bytes(an, "big")
    return total.to_bytes(AN_SIZE, "big")


def _addresses(view: memoryview) -> tuple[Address, ...]:
    return tuple(read_selector(view[i : i + SELECTOR_SIZE]) for i in range(0, len(view), SELECTOR_SIZE))


# ------------------------------------------------------------------------------------------------------------------
# 10 detect


def build_detect(coins: Sequence[Coin], node: int) -> bytes:
    """Coins with their authenticity numbers on one node. Source B.2."""
    return b"".join(build_selector(coin.address) + coin.an(node) for coin in coins)


def parse_detect(payload: memoryview) -> list[tuple[Address, bytes]]:
    """(address, authenticity number) pairs; RemoteProtocolError if the region is not a multiple of 21. Source B.2."""
    size = SELECTOR_SIZE + AN_SIZE
    if not len(payload) or len(payload) % size:
        raise RemoteProtocolError("detect list is not divisible")
    return [(read_selector(payload[i : i + 5]), bytes(payload[i + 5 : i + size])) for i in range(0, len(payload), size)]


def build_bitmap(passed: Sequence[bool]) -> bytes:
    """One bit per entry, least significant first. Source B, "bitmap"."""
    bits = sum(1 << i for i, ok in enumerate(passed) if ok)
    return bits.to_bytes((len(passed) + 7) // 8, "little")


def parse_bitmap(payload: bytes | memoryview, count: int) -> list[bool]:
    """The inverse of `build_bitmap`; longer bitmaps are accepted (deployed nodes send floor(n/8)+1 bytes)."""
    if len(payload) < (count + 7) // 8:
        raise RemoteProtocolError("bitmap is too short")
    bits = int.from_bytes(payload, "little")
    return [bool(bits >> i & 1) for i in range(count)]


# ------------------------------------------------------------------------------------------------------------------
# 82 put, 88 put multiple


class LockerPut(Struct, frozen=True):
    """Coins that move into one locker, as one node sees it."""

    coins: tuple[Address, ...]
    xor_sum: bytes
    key: bytes


def build_put(coins: Sequence[Coin], key: bytes, node: int) -> bytes:
    """Put coins into the locker with `key` on one node. Source B.5.2, command 82."""
    selectors = b"".join(build_selector(coin.address) for coin in coins)
    return selectors + xor_sum(coin.an(node) for coin in coins) + key


def parse_put(payload: memoryview) -> LockerPut:
    """Read a command 82 payload; RemoteProtocolError if the coin list is empty or not divisible by 5."""
    coins = len(payload) - 2 * AN_SIZE
    if coins < SELECTOR_SIZE or coins % SELECTOR_SIZE:
        raise RemoteProtocolError("locker coin list is not divisible")
    return LockerPut(_addresses(payload[:coins]), bytes(payload[coins : coins + 16]), bytes(payload[coins + 16 :]))


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
# 83 peek, 84 remove


def parse_coin_list(payload: bytes | memoryview) -> tuple[Address, ...]:
    """The coins an answer to 83 names."""
    if len(payload) % SELECTOR_SIZE:
        raise RemoteProtocolError("coin list is not divisible")
    return _addresses(memoryview(payload))


def build_coin_list(coins: Iterable[Address]) -> bytes:
    """The answer to 83: DN SN of every coin in the locker."""
    return b"".join(map(build_selector, coins))


def parse_peek(payload: memoryview) -> bytes:
    """The locker key of a command 83 payload."""
    if len(payload) != AN_SIZE:
        raise RemoteProtocolError("locker peek has a wrong length")
    return bytes(payload)


def build_remove(key: bytes, coins: Sequence[Coin], node: int) -> bytes:
    """Take coins out of a locker, giving each the authenticity number it carries in `coins`. Source B.5.2, 84."""
    return key + b"".join(build_selector(coin.address) + coin.an(node) for coin in coins)


def parse_remove(payload: memoryview) -> tuple[bytes, list[tuple[Address, bytes]]]:
    """(locker key, new authenticity number per coin) of a command 84 payload."""
    if len(payload) < AN_SIZE:
        raise RemoteProtocolError("locker remove has a wrong length")
    return bytes(payload[:AN_SIZE]), parse_detect(payload[AN_SIZE:])


def value_of(coins: Iterable[Address]) -> int:
    """Worth of coins in whole CloudCoins; fractions count as nothing. Source A.10."""
    return sum(10**coin.denomination for coin in coins if coin.denomination >= 0)


def locker_keys_ok(key: bytes) -> bool:
    """Whether a locker key ends as one must, FF four times (else status 199)."""
    return key[12:] == b"\xff\xff\xff\xff" and len(key) == c.LOCKER_CODE_SIZE
