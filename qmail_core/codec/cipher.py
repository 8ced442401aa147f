"""Keys and ciphers of the wire. Nonces are arguments; nothing here draws randomness.

Types 0 and 1 give no secrecy worth the name (answers may re-use the request's keystream, and a clear answer carries
challenge XOR key), so between our own nodes type 4 is used. QMail wire A.3, A.6.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.errors import LocalProtocolError
from qmail_core.model import Coin


class Key(Struct, frozen=True):
    """What one exchange with one node is encrypted with, and how the node finds the same key."""

    enc: int  # encryption type, header byte 16
    secret: bytes  # 16 bytes (types 1, 2), 32 bytes (types 4, 5), empty (type 0)
    selector: bytes  # 5 bytes: denomination and serial, or the first five of a locker key; type 5: 10, of two coins

    def __repr__(self) -> str:
        return f"Key(type {self.enc})"


NO_KEY = Key(c.ENC_NONE, b"", bytes(5))


@lru_cache(maxsize=4096)
def _derive(enc: int, an: bytes) -> bytes:
    return hashlib.sha256(an).digest() if enc >= c.ENC_COIN256 else an


def selector_of(denomination: int, serial: int) -> bytes:
    """DN (signed byte) and SN (u32) as they stand in headers and coin lists."""
    return denomination.to_bytes(1, "big", signed=True) + serial.to_bytes(4, "big")


def secret_of(enc: int, an: bytes) -> bytes:
    """The cipher key of one authenticity number: itself (type 1) or its SHA-256 (type 4).

    For type 5 `an` is both numbers, one after the other. Source A.3.1.
    """
    return _derive(enc, bytes(an))


def coin_key(enc: int, coin: Coin, node: int) -> Key:
    """The key an identity coin shares with one node.

    enc      ENC_COIN or ENC_COIN256
    node     index of the node; each node has its own authenticity number, and only that one ever goes to it
    raises   LocalProtocolError for another encryption type
    source   QMail wire A.3.1
    """
    if enc not in (c.ENC_COIN, c.ENC_COIN256):
        raise LocalProtocolError(f"encryption type {enc} does not use a coin key")
    return Key(enc, secret_of(enc, coin.an(node)), selector_of(coin.address.denomination, coin.address.serial))


def pair_key(first: Coin, second: Coin, node: int) -> Key:
    """The key two coins together share with one node, type 5. Source A.3.1."""
    secret = secret_of(c.ENC_COINS256, first.an(node) + second.an(node))
    places = (selector_of(coin.address.denomination, coin.address.serial) for coin in (first, second))
    return Key(c.ENC_COINS256, secret, b"".join(places))


def locker_code(text: str) -> bytes:
    """A locker code as it travels: ASCII, zero-padded to 16 bytes. Source B.5.1."""
    raw = text.encode() if text.isascii() else b""
    if not 1 <= len(raw) <= c.LOCKER_CODE_SIZE:
        raise LocalProtocolError("a locker code has 1 to 16 ASCII characters")
    return raw.ljust(c.LOCKER_CODE_SIZE, b"\0")


def locker_key(code: bytes, node: int) -> bytes:
    """The authenticity number all coins of a locker carry on one node.

    code     the code text in ASCII; zero padding is stripped
    returns  MD5(decimal node index || code) with the last four bytes FF
    source   QMail wire B.5.1
    """
    digest = hashlib.md5(str(node).encode() + code.rstrip(b"\0"), usedforsecurity=False).digest()
    return digest[:12] + b"\xff\xff\xff\xff"
