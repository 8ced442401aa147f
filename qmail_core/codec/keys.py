"""RKE bodies (group 15): preloading master keys on a node and fetching a key share.

A body is whole, trailer included. The two documented bodies do not start with the preamble the overview of the
standard announces; as in its vectors, the body layouts win. Master secrets must travel inside an encrypted envelope
only, and values holding one print without it. Big-endian. QMail wire E.2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import Address

SECRET_SIZE = 32
SERVER_ID_SIZE = 16  # in get_key_share only; preload names the server with any length

_LENGTH = struct.Struct(">I")
_SHARE = struct.Struct(">16s16sBbIQ2s")  # challenge, server, key id, DN, SN, timestamp, trailer: 48 bytes


class MasterKey(Struct, frozen=True):
    """One master key of a content server."""

    kid: int  # key id, u8
    secret: bytes  # 32 bytes

    def __repr__(self) -> str:
        return f"MasterKey({self.kid})"


class ShareRequest(Struct, frozen=True, kw_only=True):
    """Who asks for a share of which key."""

    challenge: bytes  # 16 bytes; its inner layout is not fixed by the standard, so it is not checked here
    server_id: bytes  # 16 bytes
    kid: int
    client: Address
    timestamp: int  # Unix seconds, u64


def build_preload_master_key(server_id: bytes, keys: Sequence[MasterKey]) -> bytes:
    """Write command 1.

    server_id  the content server, any length
    keys       at most 255
    returns    7 + len(server_id) + 33 per key bytes; no challenge, as in the vector
    raises     LocalProtocolError if something is out of range
    source     E.2, RKE vector 02
    """
    if len(keys) > 255 or any(len(key.secret) != SECRET_SIZE or not 0 <= key.kid <= 255 for key in keys):
        raise LocalProtocolError("more than 255 master keys, or one out of range")
    records = [bytes((key.kid,)) + key.secret for key in keys]
    return b"".join((_LENGTH.pack(len(server_id)), server_id, bytes((len(keys),)), *records, c.TRAILER))


def parse_preload_master_key(body: bytes) -> tuple[bytes, tuple[MasterKey, ...]]:
    """Read command 1: the server id and its keys."""
    if len(body) < _LENGTH.size:
        raise RemoteProtocolError("master key body is too short")
    start = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    count = int.from_bytes(body[start : start + 1], "big")
    end = start + 1 + count * (1 + SECRET_SIZE)
    if len(body) != end + len(c.TRAILER) or body[end:] != c.TRAILER:
        raise RemoteProtocolError("master key body has a wrong length or no trailer")
    records = range(start + 1, end, 1 + SECRET_SIZE)
    keys = tuple(MasterKey(body[at], bytes(body[at + 1 : at + 1 + SECRET_SIZE])) for at in records)
    return bytes(body[_LENGTH.size : start]), keys


def build_get_key_share(request: ShareRequest) -> bytes:
    """Write command 2, 48 bytes; LocalProtocolError if a field is out of range. Source E.2, RKE vector 03."""
    if len(request.challenge) != c.CHALLENGE_SIZE or len(request.server_id) != SERVER_ID_SIZE:
        raise LocalProtocolError("challenge and server id must have 16 bytes")
    client = request.client
    numbers = (request.kid, client.denomination, client.serial, request.timestamp)
    try:
        return _SHARE.pack(request.challenge, request.server_id, *numbers, c.TRAILER)
    except struct.error as error:
        raise LocalProtocolError(f"key share request out of range: {error}") from error


def parse_get_key_share(body: bytes) -> ShareRequest:
    """Read command 2."""
    if len(body) != _SHARE.size or body[-2:] != c.TRAILER:
        raise RemoteProtocolError("key share body has a wrong length or no trailer")
    challenge, server_id, kid, denomination, serial, timestamp, _ = _SHARE.unpack(body)
    client = Address(denomination, serial)
    return ShareRequest(challenge=challenge, server_id=server_id, kid=kid, client=client, timestamp=timestamp)


def build_key_share(share: int) -> bytes:
    """Write the answer of command 2: one byte and the trailer. Source E.2, RKE vector 03."""
    if not 0 <= share <= 255:
        raise LocalProtocolError("key share is not a byte")
    return bytes((share,)) + c.TRAILER


def parse_key_share(body: bytes) -> int:
    """Read the answer of command 2."""
    if len(body) != 3 or body[1:] != c.TRAILER:
        raise RemoteProtocolError("key share answer is not one byte and the trailer")
    return body[0]
