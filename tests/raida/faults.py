"""Every check of a request, as a row: a frame with one fault, and the documented status (QMail wire A.2, A.4, A.11).

Tests of the node and of its host run all rows, the host over TCP and UDP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

from qmail_core.codec import cipher
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import NO_KEY, Key

from .client import World, code, frame_of, request

INDEX = 1


class Row(NamedTuple):
    """One fault."""

    name: str
    make: Callable[[World], bytearray]
    status: int
    header: int = 32  # bytes of the answer's header
    echo: bool = True  # whether the answer repeats the request's echo


def keys(world: World) -> dict[int, Key]:
    """A key of every type that node 1 knows."""
    first, second = world.ones[:2]
    locker = cipher.locker_key(b"ABC-1234", INDEX)
    assert world.peer(world.ones[0]).put([world.tens[0]], code("ABC-1234")) in (c.STATUS_ALL_PASS, c.STATUS_ALL_FAIL)
    return {
        0: NO_KEY,
        1: cipher.coin_key(1, first, INDEX),
        2: Key(2, locker, locker[:5]),
        4: cipher.coin_key(4, first, INDEX),
        5: cipher.pair_key(first, second, INDEX),
    }


def frame(
    world: World, enc: int = 0, command: int = c.CMD_VERSION, group: int = 0, body: bytes = bytes(40)
) -> bytearray:
    return frame_of(request(INDEX, group, command, body, key=keys(world)[enc]))


def changed(position: int, value: int, enc: int = 0) -> Callable[[World], bytearray]:
    """A whole request with one byte replaced."""

    def make(world: World) -> bytearray:
        made = frame(world, enc)
        made[position] = value
        return made

    return make


def flipped(position: int, enc: int, group: int = 0, command: int = c.CMD_VERSION) -> Callable[[World], bytearray]:
    """A whole request with one bit turned."""

    def make(world: World) -> bytearray:
        made = frame(world, enc, command, group)
        made[position] ^= 1
        return made

    return make


def cut(size: int, enc: int = 0, command: int = c.CMD_VERSION) -> Callable[[World], bytearray]:
    """A request whose header announces a body of `size` bytes, and which ends there with a trailer if that fits."""

    def make(world: World) -> bytearray:
        made = frame(world, enc, command)
        header, place = (32, 22) if enc < 4 else (48, 17)
        made[place : place + 2] = size.to_bytes(2, "big")
        del made[header + size :]
        if size >= 2:
            made[-2:] = c.TRAILER
        return made

    return make


def sealed(plain: bytes, group: int) -> Callable[[World], bytearray]:
    """A request of type 4 around any plaintext, with a right HMAC."""

    def make(world: World) -> bytearray:
        key = keys(world)[4]
        made = frame_of(request(INDEX, 0, c.CMD_VERSION, plain, key=key))
        made[4], made[5] = group, c.CMD_PEEK
        return made

    return make


def stranger(enc: int) -> Callable[[World], bytearray]:
    """A request under a key the node does not know."""
    secret = hashlib.sha256(b"stranger").digest()[: 32 if enc >= 4 else 16]
    key = Key(enc, secret, (b"\0\0\0\xff\xff" * 2)[: 10 if enc == 5 else 5])
    return lambda world: frame_of(request(INDEX, 0, c.CMD_VERSION, key=key))


def mistaken(enc: int) -> Callable[[World], bytearray]:
    """A request under a known coin's name and another key."""

    def make(world: World) -> bytearray:
        right = keys(world)[enc]
        return frame_of(request(INDEX, 0, c.CMD_VERSION, key=Key(enc, bytes(len(right.secret)), right.selector)))

    return make


def half_pair(world: World) -> bytearray:
    """A request of type 5 whose second coin is unknown."""
    key = keys(world)[5]
    return frame_of(request(INDEX, 0, c.CMD_VERSION, key=Key(5, key.secret, key.selector[:5] + b"\0\0\0\xff\xff")))


def _wrong_crc() -> bytes:
    noise = bytes(12)
    return noise + (crc32(noise) ^ 1).to_bytes(4, "big") + bytes(60)


_HEADER = [(0, 2, 255), (1, 1, 2), (2, 7, 3), (4, 17, 5), (3, 4, 4), (5, 99, 6), (4, 5, 6), (6, 1, 7), (7, 7, 7)]

ROWS = [
    *(Row(f"header byte {at} is {value}", changed(at, value), status, echo=False) for at, value, status in _HEADER),
    *(Row(f"the same, type 4: {at}", changed(at, value, 4), status, echo=False) for at, value, status in _HEADER),
    *(Row(f"type {enc}", changed(16, enc), c.STATUS_ENCRYPTION_UNSUPPORTED, 48) for enc in (3, 6, 7, 8, 255)),
    Row("no body", cut(0), c.STATUS_EMPTY_BODY),
    Row("no body, type 1", cut(0, 1), c.STATUS_EMPTY_BODY),
    Row("no body, type 4", cut(0, 4), c.STATUS_EMPTY_BODY, 48),
    Row("no body, echo", cut(0, command=c.CMD_ECHO), c.STATUS_SUCCESS),
    Row("one byte of body", cut(1), c.STATUS_PACKET_LENGTH),
    Row("no room for a challenge", cut(17), c.STATUS_PACKET_LENGTH),
    Row("no room for an HMAC", cut(33, 4), c.STATUS_PACKET_LENGTH, 48),
    Row("no trailer", changed(-1, 0), c.STATUS_NO_TRAILER),
    Row("no trailer, type 1", changed(-2, 0, 1), c.STATUS_NO_TRAILER),
    Row("no trailer, type 5", changed(-1, 0, 5), c.STATUS_NO_TRAILER, 48),
    Row("mail in clear", lambda world: frame(world, 0, c.CMD_PEEK, 6), c.STATUS_INVALID_ENCRYPTION),
    Row("unknown coin, type 1", stranger(1), c.STATUS_INVALID_ENCRYPTION),
    Row("unknown locker, type 2", stranger(2), c.STATUS_INVALID_ENCRYPTION),
    Row("unknown coin, type 4", stranger(4), c.STATUS_KEY_COIN_NOT_FOUND, 48),
    Row("unknown coins, type 5", stranger(5), c.STATUS_KEY_COIN_NOT_FOUND, 48),
    Row("unknown second coin", half_pair, c.STATUS_KEY_COIN_NOT_FOUND, 48),
    Row("wrong challenge, type 0", flipped(33, 0), c.STATUS_INVALID_CRC),
    Row("wrong key, type 1", mistaken(1), c.STATUS_INVALID_CRC),
    Row("wrong key, type 2", mistaken(2), c.STATUS_INVALID_CRC),
    Row("wrong key, type 4", mistaken(4), c.STATUS_INVALID_HMAC, 48),
    Row("wrong key, type 5", mistaken(5), c.STATUS_INVALID_HMAC, 48),
    Row("altered ciphertext", flipped(60, 4), c.STATUS_INVALID_HMAC, 48),
    Row("altered HMAC", flipped(-10, 4), c.STATUS_INVALID_HMAC, 48),
    Row("no challenge in mail, type 4", sealed(bytes(15), 6), c.STATUS_PACKET_LENGTH, 48),
    Row("wrong challenge in mail, type 4", sealed(_wrong_crc(), 6), c.STATUS_INVALID_CRC, 48),
    Row("statistics without a key", lambda world: frame(world, 1, c.CMD_STATS), c.STATUS_ADMIN),
    Row("statistics, too short", lambda world: frame(world, 1, c.CMD_STATS, body=bytes(15)), c.STATUS_PACKET_LENGTH),
    Row("no coins to detect", lambda world: frame(world, 1, c.CMD_DETECT, 1, bytes(22)), c.STATUS_NOT_DIVISIBLE),
    Row("mail of nobody", lambda world: frame(world, 1, c.CMD_PEEK, 6, bytes(36)), c.STATUS_INVALID_ENCRYPTION),
]
NAMES = [row.name for row in ROWS]


def check(row: Row, sent: bytes, reply: bytes) -> None:
    """An answer to a row's frame is the documented one."""
    assert (reply[2], len(reply)) == (row.status, row.header)
    place = 46 if row.header == 48 else 6
    wanted = (sent[46:48] if row.header == 48 else sent[30:32]) if row.echo else bytes(2)
    assert reply[place : place + 2] == wanted
    assert reply[9:12] == bytes(3)
    assert reply[3] == sent[4]
