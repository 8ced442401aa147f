"""Bodies of detect and pown, lists of coins and verdicts: round trips, and every truncation refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import coins as codec
from qmail_core.codec.packet import Reply
from qmail_core.errors import NodeError, RemoteProtocolError
from qmail_core.model import Address, Coin
from tests.codec.coins import NODES, cut_short, some_coins


@given(some_coins, st.integers(0, NODES - 1))
def test_detect_goes_there_and_back(coins: list[Coin], node: int) -> None:
    body = codec.build_detect(coins, node)
    assert codec.parse_detect(memoryview(body)) == [(coin.address, coin.an(node)) for coin in coins]
    cut_short(body, codec.parse_detect, 21)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bitmaps_go_there_and_back(passed: list[bool]) -> None:
    raw = codec.build_bitmap(passed)
    assert codec.parse_bitmap(raw, len(passed)) == passed
    assert codec.parse_bitmap(raw + b"\0", len(passed)) == passed  # deployed nodes send one byte more
    with pytest.raises(RemoteProtocolError):
        codec.parse_bitmap(raw[:-1], len(passed))


def test_the_least_significant_bit_is_the_first_entry() -> None:
    assert codec.build_bitmap([True, False, False, False, False, False, False, False, True]) == b"\x01\x01"


def test_values_count_whole_cloudcoins() -> None:
    assert codec.value_of([Address(-1, 1), Address(0, 1), Address(1, 1), Address(4, 1)]) == 10_011
    assert codec.value_of([]) == 0


def test_the_xor_sum_of_nothing_is_zero() -> None:
    assert codec.xor_sum([]) == bytes(16)
    assert codec.xor_sum([b"\xf0" * 16, b"\x0f" * 16]) == b"\xff" * 16


@given(some_coins, st.integers(0, NODES - 1))
def test_pown_goes_there_and_back(coins: list[Coin], node: int) -> None:
    renewed = [Coin(coin.address, coin.ans[::-1]) for coin in coins]
    body = codec.build_pown(coins, renewed, node)
    assert codec.parse_pown(memoryview(body)) == [
        (coin.address, coin.an(node), new.an(node)) for coin, new in zip(coins, renewed, strict=True)
    ]
    cut_short(body, codec.parse_pown, 37)


@given(some_coins, st.integers(0, NODES - 1), st.binary(min_size=16, max_size=16))
def test_sums_go_there_and_back(coins: list[Coin], node: int, delta: bytes) -> None:
    addresses = tuple(coin.address for coin in coins)
    total = codec.xor_sum(coin.an(node) for coin in coins)
    body = codec.build_detect_sum(coins, node)
    assert codec.parse_detect_sum(memoryview(body)) == codec.CoinSum(addresses, total)
    cut_short(body, codec.parse_detect_sum, 5)
    body = codec.build_pown_sum(coins, delta, node)
    assert codec.parse_pown_sum(memoryview(body)) == codec.CoinSum(addresses, total, delta)
    cut_short(body, codec.parse_pown_sum, 5)


@given(some_coins)
def test_coin_lists_go_there_and_back(coins: list[Coin]) -> None:
    listed = codec.build_coin_list(coin.address for coin in coins)
    assert codec.parse_coin_list(listed) == tuple(coin.address for coin in coins)
    for size in range(len(listed)):
        if size % 5:
            with pytest.raises(RemoteProtocolError):
                codec.parse_coin_list(listed[:size])


def test_lists_may_not_be_empty() -> None:
    for parse in (codec.parse_detect, codec.parse_pown):
        with pytest.raises(RemoteProtocolError):
            parse(memoryview(b""))
    for size in (0, 16, 32):
        with pytest.raises(RemoteProtocolError):
            codec.parse_pown_sum(memoryview(bytes(size)))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_verdicts_go_there_and_back(passed: list[bool]) -> None:
    status, payload = codec.build_verdict(passed)
    assert codec.parse_verdict(Reply(0, status, payload), len(passed)) == passed
    assert bool(payload) == (status == 243)


@pytest.mark.parametrize("status", [16, 39, 252])
def test_other_statuses_say_nothing_about_coins(status: int) -> None:
    with pytest.raises(NodeError):
        codec.parse_verdict(Reply(0, status, b""), 3)


def test_a_delta_applied_twice_is_none() -> None:
    assert codec.xor(codec.xor(b"a" * 16, b"b" * 16), b"b" * 16) == b"a" * 16
