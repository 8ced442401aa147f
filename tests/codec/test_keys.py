"""RKE bodies: every published vector, every truncation, and round trips."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import keys as rke
from qmail_core.codec.address import from_mailbox, to_mailbox
from qmail_core.codec.consts import TRAILER
from qmail_core.codec.keys import MasterKey, ShareRequest
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import Address
from tests.published import consumed, names

Json = dict[str, Any]

FILES = names("rke")
CHALLENGE = bytes.fromhex("000102030405060708090a0b9270c965")
REQUEST = ShareRequest(server_id=b"CONTENT-SERVER01", kid=1, client=Address(0, 42), timestamp=1785312000)
MASTER = MasterKey(1, bytes(range(32)))


def check_preamble(vector: Json) -> None:
    """No RKE body starts with it; what it shares with this package is the challenge and the wire mailbox."""
    preamble = bytes.fromhex(vector["bytes_hex"])
    an = bytes(range(0xA0, 0xB0))
    assert len(preamble) == vector["length_bytes"]
    assert b"".join((CHALLENGE, bytes(8), to_mailbox(Address(0, 42)), b"\0", an)) == preamble
    assert from_mailbox(preamble[24:31]) == Address(0, 42)


def check_preload(vector: Json) -> None:
    body = bytes.fromhex(vector["bytes_hex"])
    assert rke.build_preload_master_key(b"CS01", [MASTER]) + TRAILER == body
    assert rke.parse_preload_master_key(body[:-2]) == (b"CS01", (MASTER,))


def check_share(vector: Json) -> None:
    body = bytes.fromhex(vector["request"]["bytes_hex"])
    assert CHALLENGE + rke.build_get_key_share(REQUEST) + TRAILER == body
    assert rke.parse_get_key_share(body[16:-2]) == REQUEST
    answer = bytes.fromhex(vector["response"]["bytes_hex"])
    assert rke.build_key_share(0x2A) + TRAILER == answer
    assert rke.parse_key_share(answer[:-2]) == 0x2A


CHECKS: dict[str, Callable[[Json], None]] = {
    "01-preamble.json": check_preamble,
    "02-preload-master-key.json": check_preload,
    "03-get-key-share.json": check_share,
}


@pytest.mark.parametrize("name", FILES)
def test_vector(name: str) -> None:
    with consumed("rke", name) as vector:
        CHECKS[name](vector)


def test_every_vector_file_has_a_check() -> None:
    assert sorted(CHECKS) == FILES


BODIES: list[tuple[Callable[[bytes], object], bytes]] = [
    (rke.parse_preload_master_key, rke.build_preload_master_key(b"CS01", [MASTER, MASTER])),
    (rke.parse_get_key_share, rke.build_get_key_share(REQUEST)),
    (rke.parse_key_share, rke.build_key_share(1)),
]


@pytest.mark.parametrize(("read", "body"), BODIES)
def test_every_truncation_is_a_protocol_error(read: Callable[[bytes], object], body: bytes) -> None:
    for end in range(len(body)):
        with pytest.raises(RemoteProtocolError):
            read(body[:end])
    with pytest.raises(RemoteProtocolError):
        read(body + b"\0")


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_a_protocol_error(data: bytes) -> None:
    for read, _ in BODIES:
        with suppress(RemoteProtocolError):
            read(data)


master_keys = st.lists(st.builds(MasterKey, st.integers(0, 255), st.binary(min_size=32, max_size=32)), max_size=4)


@given(st.binary(max_size=40), master_keys)
def test_preload_both_ways(server_id: bytes, keys: list[MasterKey]) -> None:
    body = rke.build_preload_master_key(server_id, keys)
    assert len(body) == 5 + len(server_id) + 33 * len(keys)
    assert rke.parse_preload_master_key(body) == (server_id, tuple(keys))


@given(
    st.builds(
        ShareRequest,
        server_id=st.binary(min_size=16, max_size=16),
        kid=st.integers(0, 255),
        client=st.builds(Address, st.integers(-128, 127), st.integers(0, 0xFFFF_FFFF)),
        timestamp=st.integers(0, (1 << 64) - 1),
    )
)
def test_share_request_both_ways(request_: ShareRequest) -> None:
    assert rke.parse_get_key_share(rke.build_get_key_share(request_)) == request_


def test_master_key_prints_without_its_secret() -> None:
    assert repr(MASTER) == "MasterKey(1)"


@pytest.mark.parametrize("keys", [[MASTER] * 256, [MasterKey(256, bytes(32))], [MasterKey(1, b"short")]])
def test_preload_out_of_range(keys: list[MasterKey]) -> None:
    with pytest.raises(LocalProtocolError):
        rke.build_preload_master_key(b"CS01", keys)


@pytest.mark.parametrize(
    "change",
    [
        {"server_id": b"CS01"},
        {"kid": 256},
        {"client": Address(0, 1 << 32)},
        {"timestamp": -1},
    ],
)
def test_share_request_out_of_range(change: dict[str, Any]) -> None:
    fields = {name: getattr(REQUEST, name) for name in REQUEST.__struct_fields__} | change
    with pytest.raises(LocalProtocolError):
        rke.build_get_key_share(ShareRequest(**fields))


@pytest.mark.parametrize("share", [-1, 256])
def test_key_share_out_of_range(share: int) -> None:
    with pytest.raises(LocalProtocolError):
        rke.build_key_share(share)
