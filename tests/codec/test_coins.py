"""Bodies of detect and lockers: round trips, and every truncation refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import coins as codec
from qmail_core.codec.cipher import locker_key
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import Address, Coin

NODES = 3
addresses = st.builds(Address, st.integers(-8, 11), st.integers(1, 0xFFFFFFFF))
some_coins = st.lists(
    st.builds(Coin, addresses, st.binary(min_size=16 * NODES, max_size=16 * NODES)), min_size=1, max_size=6
)
KEY = locker_key(b"ABC-1234", 1)


@given(some_coins, st.integers(0, NODES - 1))
def test_detect_goes_there_and_back(coins: list[Coin], node: int) -> None:
    body = codec.build_detect(coins, node)
    assert codec.parse_detect(memoryview(body)) == [(coin.address, coin.an(node)) for coin in coins]


@given(some_coins, st.integers(0, NODES - 1))
def test_put_goes_there_and_back(coins: list[Coin], node: int) -> None:
    put = codec.parse_put(memoryview(codec.build_put(coins, KEY, node)))
    assert put.coins == tuple(coin.address for coin in coins)
    assert put.xor_sum == codec.xor_sum(coin.an(node) for coin in coins)
    assert put.key == KEY


@given(st.lists(some_coins, min_size=1, max_size=5), st.integers(0, NODES - 1))
def test_put_many_goes_there_and_back(lockers: list[list[Coin]], node: int) -> None:
    body = codec.build_put_many([(coins, KEY) for coins in lockers], node)
    assert codec.parse_put_many(memoryview(body)) == [
        codec.parse_put(memoryview(codec.build_put(coins, KEY, node))) for coins in lockers
    ]
    for size in range(len(body)):
        with pytest.raises(RemoteProtocolError):
            codec.parse_put_many(memoryview(body)[:size])
    with pytest.raises(RemoteProtocolError):
        codec.parse_put_many(memoryview(body + b"\0"))


@given(some_coins)
def test_remove_and_coin_lists_go_there_and_back(coins: list[Coin]) -> None:
    body = codec.build_remove(KEY, coins, 2)
    assert codec.parse_remove(memoryview(body)) == (KEY, [(coin.address, coin.an(2)) for coin in coins])
    listed = codec.build_coin_list(coin.address for coin in coins)
    assert codec.parse_coin_list(listed) == tuple(coin.address for coin in coins)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bitmaps_go_there_and_back(passed: list[bool]) -> None:
    raw = codec.build_bitmap(passed)
    assert codec.parse_bitmap(raw, len(passed)) == passed
    assert codec.parse_bitmap(raw + b"\0", len(passed)) == passed  # deployed nodes send one byte more
    with pytest.raises(RemoteProtocolError):
        codec.parse_bitmap(raw[:-1], len(passed))


def test_the_least_significant_bit_is_the_first_entry() -> None:
    assert codec.build_bitmap([True, False, False, False, False, False, False, False, True]) == b"\x01\x01"


def test_truncations_are_protocol_errors_or_shorter_lists() -> None:
    coins = [Coin(Address(0, i + 1), bytes((i,)) * 16 * NODES) for i in range(3)]
    for body, parse, step in (
        (codec.build_detect(coins, 0), codec.parse_detect, 21),
        (codec.build_put(coins, KEY, 0), codec.parse_put, 5),
        (codec.build_remove(KEY, coins, 0), codec.parse_remove, 21),
    ):
        for size in range(len(body)):
            if (len(body) - size) % step:
                with pytest.raises(RemoteProtocolError):
                    parse(memoryview(body)[:size])
            else:
                with suppress(RemoteProtocolError):
                    parse(memoryview(body)[:size])
    for size in (0, 15, 17):
        with pytest.raises(RemoteProtocolError):
            codec.parse_peek(memoryview(bytes(size)))
    with pytest.raises(RemoteProtocolError):
        codec.parse_coin_list(bytes(6))
    with pytest.raises(RemoteProtocolError):
        codec.parse_detect(memoryview(b""))
    with pytest.raises(RemoteProtocolError):
        codec.parse_remove(memoryview(KEY))


@pytest.mark.parametrize("count", [0, 256])
def test_one_request_fills_1_to_255_lockers(count: int) -> None:
    with pytest.raises(LocalProtocolError):
        codec.build_put_many([([], KEY)] * count, 0)


def test_a_put_without_coins_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        codec.parse_put(memoryview(codec.build_put([], KEY, 0)))


def test_values_count_whole_cloudcoins() -> None:
    assert codec.value_of([Address(-1, 1), Address(0, 1), Address(1, 1), Address(4, 1)]) == 10_011
    assert codec.value_of([]) == 0


def test_the_xor_sum_of_nothing_is_zero() -> None:
    assert codec.xor_sum([]) == bytes(16)
    assert codec.xor_sum([b"\xf0" * 16, b"\x0f" * 16]) == b"\xff" * 16


def test_locker_keys_end_in_four_ff() -> None:
    assert codec.locker_keys_ok(KEY)
    assert not codec.locker_keys_ok(KEY[:-1] + b"\xfe")
    assert not codec.locker_keys_ok(KEY + b"\xff")
    assert codec.parse_peek(memoryview(KEY)) == KEY
