"""codec.status: versions, counts and statistics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import consts as c
from qmail_core.codec import status
from qmail_core.errors import RemoteProtocolError

COUNTS = st.dictionaries(st.sampled_from(list(c.DENOMINATIONS)), st.integers(0, 2**32 - 1))


@pytest.mark.parametrize("depth", range(16))
def test_a_version_says_how_deep_requests_may_lie(depth: int) -> None:
    version = status.build_version("261121", depth)
    assert len(version) == 8
    assert status.parse_version(version) == depth


@pytest.mark.parametrize(
    "version", [b"20250323", b"20Q61121", b"Q26112xF", b"Q261121f", b"Q261121G", b"q261121F", b" v1.2.3 "]
)
def test_versions_of_others_say_nothing(version: bytes) -> None:
    assert status.parse_version(version) == 0


@given(st.binary(max_size=12))
def test_noise_is_no_version(noise: bytes) -> None:
    if len(noise) == 8 and all(32 <= byte < 127 for byte in noise):
        assert status.parse_version(noise) == 0 or noise.startswith(b"Q")
    else:
        with pytest.raises(RemoteProtocolError):
            status.parse_version(noise)


@given(COUNTS)
def test_counts_go_there_and_back(coins: dict[int, int]) -> None:
    body = status.build_count(coins)
    assert len(body) == 75
    assert status.parse_count(body) == {dn: coins.get(dn, 0) for dn in range(-8, 7)}
    # deployed nodes lose the last byte
    assert status.parse_count(body[:-1]) == {dn: coins.get(dn, 0) for dn in range(-8, 6)}


def test_counts_of_other_sizes_are_refused() -> None:
    body = status.build_count({})
    for size in range(74):
        with pytest.raises(RemoteProtocolError):
            status.parse_count(body[:size])
    for wrong in (body + b"x", body[5:] + body[:5], body[:5] * 15):
        with pytest.raises(RemoteProtocolError):
            status.parse_count(wrong)


def test_more_coins_than_a_field_holds() -> None:
    assert status.parse_count(status.build_count({0: 2**40, 9: 1}))[0] == 2**32 - 1


def test_statistics() -> None:
    assert status.parse_stats(status.build_stats({"requests": 7, "refused": 0})) == {"requests": 7, "refused": 0}
    assert status.parse_stats(b"") == {}
    for wrong in (b"x", b"x y\n", b"a b c\n", b"\xff 1\n"):
        with pytest.raises(RemoteProtocolError):
            status.parse_stats(wrong)
