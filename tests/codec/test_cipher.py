"""Keys and ciphers: the reference's locker keys, and who may use which key."""

from __future__ import annotations

import hashlib

import pytest

from qmail_core.codec import cipher
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import Key
from qmail_core.errors import LocalProtocolError
from qmail_core.model import Address, Coin

COIN = Coin(Address(-1, 0x01020304), b"".join(bytes((node,)) * 16 for node in range(25)))


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
def test_locker_keys_are_those_of_the_reference(code: str, node: int, key: str) -> None:
    assert cipher.locker_key(code.encode(), node).hex() == key
    assert cipher.locker_key(cipher.locker_code(code), node).hex() == key  # as it travels, zero-padded


def test_a_locker_code_travels_as_padded_ascii() -> None:
    assert cipher.locker_code("X7KQ-M3PL-9RVB") == b"X7KQ-M3PL-9RVB\0\0"
    assert cipher.locker_code("A" * 16) == b"A" * 16


@pytest.mark.parametrize("text", ["", "A" * 17, "Größe", "\ud800"])
def test_a_locker_code_that_cannot_travel_is_our_error(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        cipher.locker_code(text)


def test_a_coin_key_belongs_to_one_node() -> None:
    keys = [cipher.coin_key(c.ENC_COIN, COIN, node) for node in range(25)]
    assert [key.secret for key in keys] == [bytes((node,)) * 16 for node in range(25)]
    assert {key.selector for key in keys} == {bytes.fromhex("ff01020304")}


def test_type_4_keys_are_the_sha256_of_the_authenticity_number() -> None:
    key = cipher.coin_key(c.ENC_COIN256, COIN, 3)
    assert key.secret == hashlib.sha256(bytes((3,)) * 16).digest()
    assert cipher.secret_of(c.ENC_COIN, COIN.an(3)) == COIN.an(3)


@pytest.mark.parametrize("enc", [c.ENC_NONE, c.ENC_LOCKER, 3, 5])
def test_other_encryption_types_have_no_coin_key(enc: int) -> None:
    with pytest.raises(LocalProtocolError):
        cipher.coin_key(enc, COIN, 0)


def test_a_key_prints_without_its_secret() -> None:
    key = Key(c.ENC_COIN, b"secret-secret-se", bytes(5))
    assert "secret" not in repr(key) + str(key) + f"{key}"
    assert "0303" not in repr(COIN) + str(COIN)
