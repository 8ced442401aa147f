"""Bodies of lockers: round trips, every truncation refused, the worked examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import coins as codec
from qmail_core.codec import lockers
from qmail_core.codec.cipher import locker_key
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import Address, Coin
from tests.codec.coins import NODES, cut_short, some_coins

KEY = locker_key(b"ABC-1234", 1)


@given(some_coins, st.integers(0, NODES - 1))
def test_put_goes_there_and_back(coins: list[Coin], node: int) -> None:
    put = lockers.parse_put(memoryview(lockers.build_put(coins, KEY, node)))
    assert put.coins == tuple(coin.address for coin in coins)
    assert put.xor_sum == codec.xor_sum(coin.an(node) for coin in coins)
    assert put.key == KEY
    cut_short(lockers.build_put(coins, KEY, node), lockers.parse_put, 5)


@given(st.lists(some_coins, min_size=1, max_size=5), st.integers(0, NODES - 1))
def test_put_many_goes_there_and_back(groups: list[list[Coin]], node: int) -> None:
    body = lockers.build_put_many([(coins, KEY) for coins in groups], node)
    assert lockers.parse_put_many(memoryview(body)) == [
        lockers.parse_put(memoryview(lockers.build_put(coins, KEY, node))) for coins in groups
    ]
    for size in range(len(body)):
        with pytest.raises(RemoteProtocolError):
            lockers.parse_put_many(memoryview(body)[:size])
    with pytest.raises(RemoteProtocolError):
        lockers.parse_put_many(memoryview(body + b"\0"))


@pytest.mark.parametrize("count", [0, 256])
def test_one_request_fills_1_to_255_lockers(count: int) -> None:
    with pytest.raises(LocalProtocolError):
        lockers.build_put_many([([], KEY)] * count, 0)


def test_a_put_without_coins_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        lockers.parse_put(memoryview(lockers.build_put([], KEY, 0)))


def test_locker_keys_end_in_four_ff() -> None:
    assert lockers.locker_keys_ok(KEY)
    assert not lockers.locker_keys_ok(KEY[:-1] + b"\xfe")
    assert not lockers.locker_keys_ok(KEY + b"\xff")
    assert lockers.parse_peek(memoryview(KEY)) == KEY


@given(some_coins)
def test_remove_goes_there_and_back(coins: list[Coin]) -> None:
    body = lockers.build_remove(KEY, coins, 2)
    assert lockers.parse_remove(memoryview(body)) == (KEY, [(coin.address, coin.an(2)) for coin in coins])
    cut_short(body, lockers.parse_remove, 21)


def test_fixed_lengths() -> None:
    for size in (0, 15, 17):
        with pytest.raises(RemoteProtocolError):
            lockers.parse_peek(memoryview(bytes(size)))
    for size in range(40):
        if size != 32:
            with pytest.raises(RemoteProtocolError):
                lockers.parse_download(memoryview(bytes(size)))
    with pytest.raises(RemoteProtocolError):
        lockers.parse_remove(memoryview(KEY))


def test_download_goes_there_and_back() -> None:
    seed = bytes(range(16))
    assert lockers.parse_download(memoryview(lockers.build_download(KEY, seed))) == (KEY, seed)


def test_the_worked_example_of_a_seed() -> None:
    assert lockers.seeded_an(Address(0, 42), bytes(range(16))).hex() == "28cf8b7ac8bc26c44237061fbd8a5984"
    with pytest.raises(LocalProtocolError):
        lockers.seeded_an(Address(0, 42), b"short")


@pytest.mark.parametrize(
    ("code", "node", "key"),
    [
        ("ABC-1234", 0, "d21fb1d3356a62e770ca4e40ffffffff"),
        ("ABC-1234", 1, "f95652662cb8cc7b539f0092ffffffff"),
        ("ABC-1234", 11, "57c133e3521b02eff361cea4ffffffff"),
        ("ABC-1234", 24, "9043e4eb32d17260cecd2675ffffffff"),
        ("X7KQ-M3PL-9RVB", 0, "b62004d36b631a6e9d58225fffffffff"),
        ("X7KQ-M3PL-9RVB", 11, "695644d36fda80dab4a726ebffffffff"),
    ],
)
def test_the_worked_examples_of_keys(code: str, node: int, key: str) -> None:
    assert locker_key(code.encode(), node).hex() == key
