"""Bodies of break and join: round trips, and every truncation refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import change as codec
from qmail_core.codec.change import Change, Operation
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import Address, Coin
from tests.codec.coins import NODES

ONE = Coin(Address(1, 5), bytes(range(48)))
TEN = [Coin(Address(0, serial), bytes((serial,)) * 16 * NODES) for serial in range(1, 11)]


@given(st.integers(0, 2**32 - 1), st.sampled_from(Operation), st.integers(-128, 127))
def test_questions_go_there_and_back(session: int, operation: Operation, denomination: int) -> None:
    body = codec.build_available(session, operation, denomination)
    assert codec.parse_available(memoryview(body)) == (session, operation, denomination)
    assert len(body) + 18 == 24  # the length of B.6
    for size in (*range(len(body)), 7):
        with pytest.raises(RemoteProtocolError):
            codec.parse_available(memoryview(body.ljust(7, b"\0"))[:size])


@given(st.integers(-128, 127), st.lists(st.integers(0, 2**32 - 1), max_size=70))
def test_serials_go_there_and_back(denomination: int, serials: list[int]) -> None:
    body = codec.build_serials(denomination, serials)
    assert codec.parse_serials(body) == (denomination, serials)
    for size in range(len(body)):
        if size % 4 != 1:
            with pytest.raises(RemoteProtocolError):
                codec.parse_serials(body[:size])


@pytest.mark.parametrize("node", range(NODES))
def test_change_goes_there_and_back(node: int) -> None:
    body = codec.build_change(77, ONE, TEN, node)
    assert len(body) + 18 == 253  # the length of B.6
    ten = tuple((coin.address, coin.an(node)) for coin in TEN)
    assert codec.parse_change(memoryview(body)) == Change(77, (ONE.address, ONE.an(node)), ten)
    for size in (*range(len(body)), len(body) + 1):
        with pytest.raises(RemoteProtocolError):
            codec.parse_change(memoryview(body.ljust(len(body) + 1, b"\0"))[:size])


@pytest.mark.parametrize("count", [0, 9, 11])
def test_change_is_one_against_ten(count: int) -> None:
    with pytest.raises(LocalProtocolError):
        codec.build_change(1, ONE, (TEN * 2)[:count], 0)


def test_both_sides_are_worth_the_same() -> None:
    ten = [coin.address for coin in TEN]
    assert codec.parts_match(ONE.address, ten)
    assert not codec.parts_match(Address(2, 5), ten)
    assert not codec.parts_match(Address(0, 5), ten)
    assert not codec.parts_match(ONE.address, [*ten[:9], ten[0]])
    assert not codec.parts_match(ONE.address, [*ten[:9], Address(-1, 10)])
    for denomination in range(-128, 128):
        parts = [Address(denomination - 1, serial) for serial in range(10)]
        assert codec.parts_match(Address(denomination, 1), parts) == (-7 <= denomination <= 6)
