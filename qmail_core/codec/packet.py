"""Frames: one request or answer of the RAIDA wire, packed and opened. Both ends use this module.

A frame is a clear header, a body and a trailer. Types 0..2 start the body with a 16-byte challenge; type 4 carries
one only in group 6, where the challenge is part of the preamble. Either way `payload` here means what follows the
challenge, so handlers and body codecs do not care how a frame was protected.

Rules: nonces and challenges come from the caller, fresh for every transmission; a frame that cannot be trusted raises
`Refused` with the status byte of the documented check order (node side) or RemoteProtocolError (client side).
"""

from __future__ import annotations

import hmac
from collections.abc import Container, Mapping, Sequence
from typing import Protocol
from zlib import crc32

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core import _framing
from qmail_core._framing import aes_ctr
from qmail_core.codec import cipher
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import Key
from qmail_core.errors import LocalProtocolError, NodeError, RemoteProtocolError

ENTROPY_SHORT = 20  # 8 nonce + 12 challenge bytes per frame, types 0..2
ENTROPY_LONG = 36  # 24 + 12, type 4


class Batch(Struct):
    """The requests of one fanout: one command, many nodes. Lists are parallel."""

    group: int
    command: int
    nodes: list[int]
    keys: list[Key]  # all of one encryption type
    heads: list[Buffer]  # per node: what differs in small things (identity, options)
    tails: list[Buffer]  # per node: the data; may be the same object for all
    page: int = 0  # command 75 only

    @property
    def enc(self) -> int:
        """Encryption type of every frame."""
        return self.keys[0].enc if self.keys else c.ENC_NONE

    def only(self, positions: Sequence[int]) -> Batch:
        """The same requests for some of the nodes, by position in the lists."""
        pick = [list(map(values.__getitem__, positions)) for values in (self.nodes, self.keys, self.heads, self.tails)]
        return Batch(self.group, self.command, *pick, page=self.page)  # type: ignore[arg-type, misc]

    def entropy_size(self) -> int:
        """Random bytes `pack` needs."""
        return len(self.nodes) * (ENTROPY_LONG if self.enc == c.ENC_COIN256 else ENTROPY_SHORT)


class Sent(Struct, frozen=True):
    """A request on its way: the frame, and what is needed to trust its answer."""

    node: int
    frame: Buffer
    key: Key
    draw: bytes  # the entropy the frame was made with: nonce, then 12 challenge bytes


class Reply(Struct, frozen=True):
    """A trusted answer."""

    node: int
    status: int
    payload: bytes | memoryview
    execution_us: int = 0

    def expect(self, *also: int) -> Reply:
        """This answer, if its status means success (or is one of `also`); NodeError otherwise."""
        if self.status in c.SUCCESSES or self.status in also:
            return self
        raise NodeError(self.status, f"node {self.node}: {c.status_text(self.status)} (status {self.status})")


def pack(batch: Batch, entropy: bytes) -> list[Sent]:
    """Build every frame of a fanout in one native call.

    entropy  `batch.entropy_size()` bytes from a CSPRNG, never used before
    returns  one Sent per node, in order
    raises   LocalProtocolError if a body does not fit its command's length field
    source   QMail wire A.2, A.3, A.4
    """
    enc = batch.enc
    try:
        frames = _framing.pack_many(
            batch.group,
            batch.command,
            enc,
            batch.nodes,
            [key.secret for key in batch.keys],
            [key.selector for key in batch.keys],
            batch.heads,
            batch.tails,
            entropy,
            batch.page,
        )
    except ValueError as error:
        raise LocalProtocolError(str(error)) from error
    step = ENTROPY_LONG if enc == c.ENC_COIN256 else ENTROPY_SHORT
    draws = [entropy[at : at + step] for at in range(0, len(entropy), step)]
    return list(map(Sent, batch.nodes, frames, batch.keys, draws))


def open_reply(sent: Sent, frame: memoryview) -> Reply:
    """Check and decrypt the answer to one request; decrypts in place.

    frame    the whole answer, writable
    returns  the Reply; its payload is a view into `frame`
    raises   RemoteProtocolError if the answer is not from this node, not to this request, or altered
    source   QMail wire A.5
    """
    key = sent.key
    try:
        status, micros, payload = _framing.unpack(frame, sent.node, key.enc, key.secret, sent.draw)
    except ValueError as error:
        raise RemoteProtocolError(str(error)) from None
    return Reply(sent.node, status, payload, micros)


# ------------------------------------------------------------------------------------------------------------------
# The node's side


class Refused(Exception):  # a control value between codec and node, never shown to callers
    """A request ends here with a status and no payload."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Keyring(Protocol):
    """How a node finds the secret a request was encrypted with."""

    def coin_an(self, selector: bytes) -> bytes | None:
        """The authenticity number held for DN SN (5 bytes), or None."""

    def locker_an(self, prefix: bytes) -> bytes | None:
        """The locker key whose first five bytes are given, or None."""


class Header(Struct):
    """The clear part of a request, as far as it could be read."""

    raida: int
    group: int
    command: int
    enc: int
    selector: bytes
    body_size: int
    nonce: bytes
    echo: bytes  # comes back in the answer so that a client can match it
    page: int = 0

    @property
    def size(self) -> int:
        """Bytes of the header itself."""
        return c.HEADER_SIZE if self.enc <= 3 else c.HEADER256_SIZE


class Request(Struct):
    """A request a node may act on: decrypted, its challenge checked."""

    header: Header
    an: bytes  # what the wire key came from; empty for type 0
    challenge: bytes
    payload: memoryview


def read_header(frame: memoryview) -> Header:
    """Read a request header whose bytes are all there; checks nothing. Source A.2, A.3."""
    enc = frame[16]
    group, command = frame[4], frame[5]
    long = group == c.GROUP_MAIL and command in c.LONG_COMMANDS
    if enc <= 3:
        selector, short, nonce = frame[17:22], frame[22:24], frame[24:32]
    else:
        selector, short, nonce = frame[19:24], frame[17:19], frame[24:48]
    size = int.from_bytes(frame[10:14] if long else short, "big")
    page = int.from_bytes(frame[14:16], "big") if long else 0
    return Header(frame[2], group, command, enc, bytes(selector), size, bytes(nonce), bytes(nonce[-2:]), page)


def check_header(frame: memoryview, header: Header, raida: int, commands: Mapping[int, Container[int]]) -> None:
    """Run the header checks in the documented order; Refused with the first that fails. Source A.2."""
    if frame[0] not in (0, 1):
        raise Refused(c.STATUS_INVALID_ROUTING)
    if frame[1] != 0:
        raise Refused(c.STATUS_INVALID_SPLIT)
    if header.raida != raida:
        raise Refused(c.STATUS_INVALID_RAIDA)
    if header.group not in commands:
        raise Refused(c.STATUS_INVALID_GROUP)
    if frame[3] > 3:
        raise Refused(c.STATUS_INVALID_SHARD)
    if header.command not in commands[header.group]:
        raise Refused(c.STATUS_INVALID_COMMAND)
    if bytes(frame[6:8]) != c.COIN_ID:
        raise Refused(c.STATUS_INVALID_COIN_ID)
    if header.enc not in (c.ENC_NONE, c.ENC_COIN, c.ENC_LOCKER, c.ENC_COIN256):
        raise Refused(c.STATUS_ENCRYPTION_UNSUPPORTED)


def open_request(frame: memoryview, header: Header, keys: Keyring) -> Request:
    """Check and decrypt a request body in place; Refused in the documented order. Source A.4."""
    body = frame[header.size :]
    if len(body) < 2:
        raise Refused(c.STATUS_PACKET_LENGTH)
    if bytes(body[-2:]) != c.TRAILER:
        raise Refused(c.STATUS_NO_TRAILER)
    if header.enc == c.ENC_COIN256:
        return _open_request_256(body, header, keys)
    if len(body) < c.CHALLENGE_SIZE + 2:
        raise Refused(c.STATUS_PACKET_LENGTH)
    an = b""
    plain = body[:-2]
    if header.enc != c.ENC_NONE:
        found = keys.coin_an(header.selector) if header.enc == c.ENC_COIN else keys.locker_an(header.selector)
        if found is None:
            raise Refused(c.STATUS_INVALID_ENCRYPTION)
        an = found
        aes_ctr(an, header.nonce + bytes(8), plain, plain)
    return Request(header, an, _checked_challenge(plain), plain[c.CHALLENGE_SIZE :])


def _open_request_256(body: memoryview, header: Header, keys: Keyring) -> Request:
    if len(body) < c.HMAC_SIZE + 2:
        raise Refused(c.STATUS_PACKET_LENGTH)
    an = keys.coin_an(header.selector)
    if an is None:
        raise Refused(c.STATUS_KEY_COIN_NOT_FOUND)
    secret = cipher.secret_of(c.ENC_COIN256, an)
    plain = body[: -2 - c.HMAC_SIZE]
    if not hmac.compare_digest(cipher.mac(secret, plain), bytes(body[-2 - c.HMAC_SIZE : -2])):
        raise Refused(c.STATUS_INVALID_HMAC)
    if plain:
        aes_ctr(secret, header.nonce[:16], plain, plain)
    if header.group != c.GROUP_MAIL:
        return Request(header, an, b"", plain)
    if len(plain) < c.CHALLENGE_SIZE:
        raise Refused(c.STATUS_PACKET_LENGTH)
    return Request(header, an, _checked_challenge(plain), plain[c.CHALLENGE_SIZE :])


def _checked_challenge(plain: memoryview) -> bytes:
    challenge = bytes(plain[: c.CHALLENGE_SIZE])
    if crc32(challenge[:12]) != int.from_bytes(challenge[12:], "big"):
        raise Refused(c.STATUS_INVALID_CRC)
    return challenge


def build_reply(request: Request, status: int, payload: Buffer, execution_us: int, nonce: bytes) -> bytearray:
    """Build a node's answer to an opened request.

    payload  clear bytes, at most 2^24 - 36; empty for a status alone
    nonce    22 fresh random bytes; used by type 4 only
    source   QMail wire A.5
    """
    header = request.header
    if header.enc == c.ENC_COIN256:
        return _build_reply_256(request, status, memoryview(payload).cast("B"), execution_us, nonce)
    head = _short_head(header, status, execution_us)
    signature = int.from_bytes(request.challenge, "big")
    if header.enc != c.ENC_NONE:
        signature ^= int.from_bytes(request.an, "big")
    head[16:32] = signature.to_bytes(16, "big")
    size = memoryview(payload).nbytes
    if not size:
        return head
    head[9:12] = (size + 2).to_bytes(3, "big")
    head += payload
    if header.enc != c.ENC_NONE:
        body = memoryview(head)[c.HEADER_SIZE :]
        aes_ctr(request.an, header.nonce + bytes(8), body, body)
        body.release()
    head += c.TRAILER
    return head


def build_refusal(header: Header, status: int, *, echo: bool) -> bytearray:
    """Build the answer to a request that was refused before its key was known; unsigned. Source A.5, A.11."""
    if header.enc > 3:
        return _long_head(header, status, 0)
    head = _short_head(header, status, 0)
    if not echo:
        head[6:8] = b"\0\0"
    return head


def _short_head(header: Header, status: int, micros: int) -> bytearray:
    head = bytearray(c.HEADER_SIZE)
    head[0] = header.raida
    head[2] = status
    head[3] = header.group
    head[5] = 1
    head[6:8] = header.echo
    head[12:16] = min(micros, 0xFFFFFFFF).to_bytes(4, "big")
    return head


def _long_head(header: Header, status: int, micros: int) -> bytearray:
    head = bytearray(c.HEADER256_SIZE)
    head[0] = header.raida
    head[2] = status
    head[3] = header.group
    head[4:8] = min(micros, 0xFFFFFFFF).to_bytes(4, "big")
    head[16] = header.enc
    head[17:22] = header.selector
    head[46:48] = header.echo
    return head


def _build_reply_256(request: Request, status: int, payload: memoryview, micros: int, nonce: bytes) -> bytearray:
    head = _long_head(request.header, status, micros)
    head[24:46] = nonce
    if not payload.nbytes:
        return head
    head[9:12] = (payload.nbytes + c.HMAC_SIZE + 2).to_bytes(3, "big")
    secret = cipher.secret_of(c.ENC_COIN256, request.an)
    head += payload
    body = memoryview(head)[c.HEADER256_SIZE :]
    aes_ctr(secret, nonce[:16], body, body)
    tag = cipher.mac(secret, body)
    body.release()
    head += tag
    head += c.TRAILER
    return head
