"""Bodies of tickets, find and fix: round trips, every truncation refused, the worked example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import healing as codec
from qmail_core.codec.healing import Held
from qmail_core.codec.packet import Reply
from qmail_core.errors import LocalProtocolError, NodeError, RemoteProtocolError
from qmail_core.model import Address, Coin
from tests.codec.coins import cut_short, some_coins

PG = bytes(range(16))


def test_the_worked_example_of_a_fixed_coin() -> None:
    assert codec.healed_an(11, Address(0, 42), PG).hex() == "fe0e388b1f0d6cc1abcd735426fdc231"


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 2**32 - 1))
def test_tickets_go_there_and_back(passed: list[bool], ticket: int) -> None:
    status, payload = codec.build_ticket(passed, ticket)
    found = codec.parse_ticket(Reply(0, status, payload), len(passed))
    assert found == (passed, ticket if any(passed) else codec.NO_TICKET)
    for size in range(len(payload)):
        with pytest.raises(RemoteProtocolError):
            codec.parse_ticket(Reply(0, status, payload[:size]), len(passed))


def test_no_slot_is_no_ticket() -> None:
    with pytest.raises(NodeError):
        codec.parse_ticket(Reply(0, 42, b""), 1)


def test_questions_go_there_and_back() -> None:
    body = codec.build_validate(24, 0xFFFFFFFE)
    assert codec.parse_validate(memoryview(body)) == (24, 0xFFFFFFFE)
    for size in (*range(len(body)), len(body) + 1):
        with pytest.raises(RemoteProtocolError):
            codec.parse_validate(memoryview(body.ljust(9, b"\0"))[:size])


@given(st.lists(st.sampled_from(Held), min_size=1, max_size=9))
def test_found_goes_there_and_back(held: list[Held]) -> None:
    status, payload = codec.build_found(held)
    assert codec.parse_found(Reply(0, status, payload), len(held)) == held
    assert (status == 211) == (len(set(held)) > 1)


@pytest.mark.parametrize("payload", [b"", b"\1", b"\1\2\1", b"\1\3"])
def test_nonsense_is_not_found(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        codec.parse_found(Reply(0, 211, payload), 2)


@given(some_coins, st.lists(st.integers(0, 2**32 - 1), max_size=25))
def test_fix_goes_there_and_back(coins: list[Coin], tickets: list[int]) -> None:
    addresses = tuple(coin.address for coin in coins)
    body = codec.build_fix(addresses, PG, tickets)
    assert len(body) == 116 + 5 * len(coins)  # with challenge and trailer the 134 + 5 N of B.3
    assert codec.parse_fix(memoryview(body)) == codec.Fix(addresses, PG, (*tickets, *[0] * (25 - len(tickets))))
    cut_short(body, codec.parse_fix, 5)


def test_a_fix_has_25_places() -> None:
    with pytest.raises(LocalProtocolError):
        codec.build_fix([Address(0, 1)], PG, [1] * 26)
