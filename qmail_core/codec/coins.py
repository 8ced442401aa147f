"""Bodies of group 1: detect and pown; and what all lists of coins have in common.

A payload here is what follows the challenge. Coins are listed as DN SN (5 bytes); a list is proven to one node by the
numbers it holds for them, each on its own or as one XOR. QMail wire B.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec.mail import build_selector, read_selector
from qmail_core.codec.packet import Reply
from qmail_core.errors import RemoteProtocolError
from qmail_core.model import AN_SIZE, Address, Coin

SELECTOR_SIZE = 5
PAIR_SIZE = SELECTOR_SIZE + AN_SIZE
TRIPLE_SIZE = PAIR_SIZE + AN_SIZE


# ------------------------------------------------------------------------------------------------------------------
# Lists of coins


def xor_sum(ans: Iterable[bytes]) -> bytes:
    """Bytewise XOR of 16-byte values; zeros for none."""
    total = 0
    for an in ans:
        total ^= int.from_bytes(an, "big")
    return total.to_bytes(AN_SIZE, "big")


def xor(one: bytes, other: bytes) -> bytes:
    """Bytewise XOR of two 16-byte values."""
    return xor_sum((one, other))


def read_selectors(view: memoryview) -> tuple[Address, ...]:
    """Coins named by DN SN; the caller has checked that the region divides by 5."""
    return tuple(read_selector(view[i : i + SELECTOR_SIZE]) for i in range(0, len(view), SELECTOR_SIZE))


def build_coin_list(coins: Iterable[Address]) -> bytes:
    """DN SN of every coin: answers to 8, 50 and 83."""
    return b"".join(map(build_selector, coins))


def parse_coin_list(payload: bytes | memoryview) -> tuple[Address, ...]:
    """The coins such an answer names."""
    if len(payload) % SELECTOR_SIZE:
        raise RemoteProtocolError("coin list is not divisible")
    return read_selectors(memoryview(payload))


def build_triples(old: Sequence[Coin], new: Sequence[Coin], node: int) -> bytes:
    """Coins with two authenticity numbers each on one node. Source B.2, command 20; B.3, command 60."""
    return b"".join(
        build_selector(before.address) + before.an(node) + after.an(node)
        for before, after in zip(old, new, strict=True)
    )


def parse_triples(payload: memoryview) -> list[tuple[Address, bytes, bytes]]:
    """(address, AN, PAN) triples; RemoteProtocolError if the region is not a multiple of 37."""
    if not len(payload) or len(payload) % TRIPLE_SIZE:
        raise RemoteProtocolError("coin list is not divisible")
    return [
        (read_selector(payload[i : i + 5]), bytes(payload[i + 5 : i + 21]), bytes(payload[i + 21 : i + TRIPLE_SIZE]))
        for i in range(0, len(payload), TRIPLE_SIZE)
    ]


# ------------------------------------------------------------------------------------------------------------------
# Verdicts: 241, 242, or 243 with a bitmap


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


def build_verdict(passed: Sequence[bool]) -> tuple[int, bytes]:
    """Status and payload of an answer about entries that pass or fail each on its own."""
    if all(passed):
        return c.STATUS_ALL_PASS, b""
    if not any(passed):
        return c.STATUS_ALL_FAIL, b""
    return c.STATUS_MIXED, build_bitmap(passed)


def parse_verdict(reply: Reply, count: int) -> list[bool]:
    """Which of `count` entries passed; NodeError for a status that says nothing about them."""
    if reply.status == c.STATUS_MIXED:
        return parse_bitmap(reply.payload, count)
    if reply.status == c.STATUS_ALL_FAIL:
        return [False] * count
    reply.expect()
    return [True] * count


# ------------------------------------------------------------------------------------------------------------------
# 10 detect, 20 pown


def build_detect(coins: Sequence[Coin], node: int) -> bytes:
    """Coins with their authenticity numbers on one node. Source B.2, command 10; B.3, command 40."""
    return b"".join(build_selector(coin.address) + coin.an(node) for coin in coins)


def parse_detect(payload: memoryview) -> list[tuple[Address, bytes]]:
    """(address, authenticity number) pairs; RemoteProtocolError if the region is not a multiple of 21. Source B.2."""
    if not len(payload) or len(payload) % PAIR_SIZE:
        raise RemoteProtocolError("coin list is not divisible")
    return [
        (read_selector(payload[i : i + 5]), bytes(payload[i + 5 : i + PAIR_SIZE]))
        for i in range(0, len(payload), PAIR_SIZE)
    ]


# pown and find list coins alike
build_pown = build_triples
parse_pown = parse_triples


# ------------------------------------------------------------------------------------------------------------------
# 11 detect by sum, 21 pown by sum


class CoinSum(Struct, frozen=True):
    """Coins proven together by one XOR; with 21, the delta that makes their new numbers."""

    coins: tuple[Address, ...]
    xor_sum: bytes
    delta: bytes = b""


def build_detect_sum(coins: Sequence[Coin], node: int) -> bytes:
    """Coins and the XOR of their numbers on one node. Source B.2, command 11."""
    return build_coin_list(coin.address for coin in coins) + xor_sum(coin.an(node) for coin in coins)


def parse_detect_sum(payload: memoryview) -> CoinSum:
    """Read a command 11 payload; RemoteProtocolError if the coin list is empty or not divisible by 5."""
    size = _listed(payload, AN_SIZE)
    return CoinSum(read_selectors(payload[:size]), bytes(payload[size:]))


def build_pown_sum(coins: Sequence[Coin], delta: bytes, node: int) -> bytes:
    """As `build_detect_sum`, and what to XOR each number with. Source B.2, command 21."""
    return build_detect_sum(coins, node) + delta


def parse_pown_sum(payload: memoryview) -> CoinSum:
    """Read a command 21 payload; RemoteProtocolError if the coin list is empty or not divisible by 5."""
    size = _listed(payload, 2 * AN_SIZE)
    return CoinSum(
        read_selectors(payload[:size]), bytes(payload[size : size + AN_SIZE]), bytes(payload[size + AN_SIZE :])
    )


def _listed(payload: memoryview, tail: int) -> int:
    """Bytes of the coin list in front of a tail."""
    size = len(payload) - tail
    if size < SELECTOR_SIZE or size % SELECTOR_SIZE:
        raise RemoteProtocolError("coin list is not divisible")
    return size


def value_of(coins: Iterable[Address]) -> int:
    """Worth of coins in whole CloudCoins; fractions count as nothing. Source A.10."""
    return sum(10**coin.denomination for coin in coins if coin.denomination >= 0)
