"""RKE bodies (group 15): preloading master keys on a node and fetching a key share.

A payload here is what follows the challenge, without the trailer. The two documented bodies do not start with the
preamble the overview of the standard announces; as in its vectors, the body layouts win. The vector of preload shows no
challenge either: types 0 to 2 put one before the payload as before any other, type 4 sends the vector's body as it is.
Master secrets must travel inside an encrypted envelope only, and values holding one print without it. Big-endian.
QMail wire E.2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import Address

SECRET_SIZE = 32
SERVER_ID_SIZE = 16  # in get_key_share only; preload names the server with any length

_LENGTH = struct.Struct(">I")
_SHARE = struct.Struct(">16sBbIQ")  # server, key id, DN, SN, timestamp


class MasterKey(Struct, frozen=True):
    """One master key of a content server."""

    kid: int  # key id, u8
    secret: bytes  # 32 bytes

    def __repr__(self) -> str:
        return f"MasterKey({self.kid})"


class ShareRequest(Struct, frozen=True, kw_only=True):
    """Who asks for a share of which key."""

    server_id: bytes  # 16 bytes
    kid: int
    client: Address  # the standard calls it "client SN", 5 bytes; that it is DN SN is our reading
    timestamp: int  # Unix seconds, u64


def build_preload_master_key(server_id: bytes, keys: Sequence[MasterKey]) -> bytes:
    """Write command 1.

    server_id  the content server, any length
    keys       at most 255
    returns    5 + len(server_id) + 33 per key bytes
    raises     LocalProtocolError if something is out of range
    source     E.2, RKE vector 02
    """
    if len(keys) > 255 or any(len(key.secret) != SECRET_SIZE or not 0 <= key.kid <= 255 for key in keys):
        raise LocalProtocolError("more than 255 master keys, or one out of range")
    records = [bytes((key.kid,)) + key.secret for key in keys]
    return b"".join((_LENGTH.pack(len(server_id)), server_id, bytes((len(keys),)), *records))


def parse_preload_master_key(payload: Buffer) -> tuple[bytes, tuple[MasterKey, ...]]:
    """Read command 1: the server id and its keys."""
    body = bytes(payload)
    if len(body) < _LENGTH.size:
        raise RemoteProtocolError("master key body is too short")
    start = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    count = int.from_bytes(body[start : start + 1], "big")
    end = start + 1 + count * (1 + SECRET_SIZE)
    if len(body) != end:
        raise RemoteProtocolError("master key body has a wrong length")
    records = range(start + 1, end, 1 + SECRET_SIZE)
    keys = tuple(MasterKey(body[at], body[at + 1 : at + 1 + SECRET_SIZE]) for at in records)
    return body[_LENGTH.size : start], keys


def build_get_key_share(request: ShareRequest) -> bytes:
    """Write command 2, 30 bytes; LocalProtocolError if a field is out of range. Source E.2, RKE vector 03."""
    if len(request.server_id) != SERVER_ID_SIZE:
        raise LocalProtocolError("server id must have 16 bytes")
    client = request.client
    try:
        return _SHARE.pack(request.server_id, request.kid, client.denomination, client.serial, request.timestamp)
    except struct.error as error:
        raise LocalProtocolError(f"key share request out of range: {error}") from error


def parse_get_key_share(payload: Buffer) -> ShareRequest:
    """Read command 2."""
    if memoryview(payload).nbytes != _SHARE.size:
        raise RemoteProtocolError("key share body has a wrong length")
    server_id, kid, denomination, serial, timestamp = _SHARE.unpack(payload)
    return ShareRequest(server_id=server_id, kid=kid, client=Address(denomination, serial), timestamp=timestamp)


def build_key_share(share: int) -> bytes:
    """Write the answer of command 2, one byte. Source E.2, RKE vector 03."""
    if not 0 <= share <= 255:
        raise LocalProtocolError("key share is not a byte")
    return bytes((share,))


def parse_key_share(payload: Buffer) -> int:
    """Read the answer of command 2."""
    body = bytes(payload)
    if len(body) != 1:
        raise RemoteProtocolError("key share answer is not one byte")
    return body[0]
