"""Frames: one request or answer of the RAIDA wire, packed and opened. Both ends use this module.

A frame is a clear header, a body and a trailer. Types 0..2 start the body with a 16-byte challenge; types 4 and 5 carry
one only in group 6, where the challenge is part of the preamble. Either way `payload` here means what follows the
challenge, so handlers and body codecs do not care how a frame was protected. A frame of type 5 is one of type 4 under
the key of two coins, whose nonce begins with the second coin's selector.

Rules: nonces and challenges come from the caller, fresh for every transmission; a frame that cannot be trusted raises
`Refused` with the status byte of the documented check order (node side) or RemoteProtocolError (client side).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core import _framing
from qmail_core._framing import aes_ctr, crc32
from qmail_core.codec import cipher
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import Key
from qmail_core.errors import LocalProtocolError, NodeError, RemoteProtocolError

ENTROPY_SHORT = 20  # 8 nonce + 12 challenge bytes per frame, types 0..2
ENTROPY_LONG = 36  # 24 + 12, types 4 and 5
IV_SIZE = 16

T = TypeVar("T")


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
        return len(self.nodes) * (ENTROPY_LONG if self.enc >= c.ENC_COIN256 else ENTROPY_SHORT)


class Sent(Struct, frozen=True, gc=False):
    """A request on its way: the frame, and what is needed to trust its answer."""

    node: int
    frame: Buffer
    key: Key
    draw: bytes  # the entropy the frame was made with: nonce, then 12 challenge bytes

    def __repr__(self) -> str:
        return f"Sent(to node {self.node}, type {self.key.enc})"


class Reply(Struct, frozen=True, gc=False):
    """A trusted answer."""

    node: int
    status: int
    payload: bytes | memoryview
    execution_us: int = 0
    proven: bool = False  # the node proved that this status answers this request (docs/protocol.md)
    sent: Sent | None = None  # what it answers, if the payload can be read another way

    def expect(self, *also: int) -> Reply:
        """This answer, if its status means success (or is one of `also`); NodeError otherwise."""
        if self.status in c.SUCCESSES or self.status in also:
            return self
        raise NodeError(self.status, f"node {self.node}: {c.status_text(self.status)} (status {self.status})")

    def reread(self) -> Reply | None:
        """The same answer for a node whose keystream went on where the request's ended, or None if that cannot be.

        Source QMail wire A.6; nothing in an answer of type 1 or 2 says which of the two a node does.
        """
        if self.sent is None:
            return None
        secret, nonce = self.sent.key.secret, self.sent.draw[:8]
        blocks = _keystream_blocks(memoryview(self.sent.frame).nbytes - c.HEADER_SIZE)
        data = bytearray(self.payload)
        aes_ctr(secret, nonce + bytes(8), data, data)
        aes_ctr(secret, nonce + blocks.to_bytes(8, "big"), data, data)
        return Reply(self.node, self.status, memoryview(data), self.execution_us)


def _keystream_blocks(body_size: int) -> int:
    """Blocks of keystream a request body took. Source A.6."""
    return -(-(body_size - len(c.TRAILER)) // 16)


def judged(reply: Reply, judge: Callable[[Reply], T], *, goes_on: bool = False) -> tuple[T, bool]:
    """What `judge` makes of an answer, and whether the node's keystream went on; read the other way if it must be.

    judge    raises RemoteProtocolError for a payload it cannot read
    goes_on  the node is known to go on: read its answer that way first
    raises   what `judge` raises, about the first reading if neither makes sense
    """
    other = reply.reread() if goes_on else None
    first = other or reply
    try:
        return judge(first), other is not None
    except RemoteProtocolError as error:
        second = reply.reread() if other is None else reply
        if second is None:
            raise
        try:
            return judge(second), other is None
        except RemoteProtocolError:
            raise error from None


def pack(batch: Batch, entropy: bytes) -> list[Sent]:
    """Build every frame of a fanout in one native call.

    entropy  `batch.entropy_size()` bytes from a CSPRNG, never used before
    returns  one Sent per node, in order
    raises   LocalProtocolError if a body does not fit its command's length field
    source   QMail wire A.2, A.3, A.4
    """
    enc = batch.enc
    if enc == c.ENC_COINS256:
        return _pack_pairs(batch, entropy)
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


def repack(sent: Sent, entropy: Callable[[int], bytes]) -> Sent:
    """The same request in a fresh frame, made of the old one, so that nobody must keep what that was made of."""
    frame, enc = memoryview(sent.frame), sent.key.enc
    header = read_header(frame)
    tail = c.TRAILER if enc in c.SHORT_HEADERS else bytes(c.HMAC_SIZE) + c.TRAILER
    body = bytearray(frame[header.size : -len(tail)])
    if enc:
        iv = header.nonce[:IV_SIZE].ljust(IV_SIZE, b"\0")
        _framing.aes_ctr(sent.key.secret, iv, body, body)
    skip = c.CHALLENGE_SIZE if enc in c.SHORT_HEADERS or header.group == c.GROUP_MAIL else 0
    batch = Batch(header.group, header.command, [sent.node], [sent.key], [b""], [memoryview(body)[skip:]], header.page)
    return pack(batch, entropy(batch.entropy_size()))[0]


def _pack_pairs(batch: Batch, entropy: bytes) -> list[Sent]:
    """`pack` for type 5: few and far between, so a patch over type 4 will do. Source A.3.3."""
    half = c.SELECTOR_SIZE
    draws = [bytearray(entropy[at : at + ENTROPY_LONG]) for at in range(0, len(entropy), ENTROPY_LONG)]
    for key, draw in zip(batch.keys, draws, strict=True):
        draw[:half] = key.selector[half:]
    keys = [Key(c.ENC_COIN256, key.secret, key.selector[:half]) for key in batch.keys]
    single = Batch(batch.group, batch.command, batch.nodes, keys, batch.heads, batch.tails, batch.page)
    sent = []
    for one, key in zip(pack(single, b"".join(draws)), batch.keys, strict=True):
        frame = bytearray(one.frame)
        frame[16] = c.ENC_COINS256
        sent.append(Sent(one.node, frame, key, one.draw))
    return sent


def open_reply(sent: Sent, frame: memoryview, *, proof: bool = False) -> Reply:
    """Check and decrypt the answer to one request; decrypts in place.

    frame    the whole answer, writable
    proof    the node is known to prove its answers: of types 4 and 5, believe only refusals without
    returns  the Reply; its payload is a view into `frame`
    raises   RemoteProtocolError if the answer is not from this node, not to this request, or altered
    source   QMail wire A.5
    """
    key = sent.key
    try:
        if key.enc < c.ENC_COIN256:
            status, micros, payload = _framing.unpack(frame, sent.node, key.enc, key.secret, sent.draw)
            return Reply(sent.node, status, payload, micros, sent=sent if key.enc and payload else None)
        proven = _is_proven(sent, frame)
        status, micros, payload = _unpack_long(sent, frame)
    except ValueError as error:
        raise RemoteProtocolError(str(error)) from None
    if proof and not proven and (payload or status in c.SUCCESSES):
        raise RemoteProtocolError(f"node {sent.node}: answer without the proof this node gives")
    return Reply(sent.node, status, payload, micros, proven)


def _is_proven(sent: Sent, frame: memoryview) -> bool:
    size = len(frame)
    whole = size == c.HEADER256_SIZE or size >= c.HEADER256_SIZE + c.HMAC_SIZE + len(c.TRAILER)
    return whole and _framing.proven(frame, sent.draw[:24], sent.key.secret)


def _unpack_long(sent: Sent, frame: memoryview) -> tuple[int, int, memoryview | bytes]:
    enc, args = sent.key.enc, (sent.node, c.ENC_COIN256, sent.key.secret, sent.draw)
    if enc == c.ENC_COIN256:
        return _framing.unpack(frame, *args)
    if len(frame) <= c.HEADER_SIZE or frame[16] != enc:
        # a refusal from before the type was read, or nothing that may be read as type 4
        return _framing.unpack(frame[: c.HEADER_SIZE], *args)
    frame[16] = c.ENC_COIN256
    try:
        return _framing.unpack(frame, *args)
    finally:
        frame[16] = enc


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


class Header(Struct, gc=False):
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
        return c.HEADER_SIZE if self.enc in c.SHORT_HEADERS else c.HEADER256_SIZE


class Request(Struct, gc=False):
    """A request a node may act on: decrypted, its challenge checked."""

    header: Header
    an: bytes  # what the wire key came from; empty for type 0, two numbers for type 5
    challenge: bytes  # empty for types 4 and 5 outside group 6
    payload: memoryview


# raida, group, command, page, type, then what A.3.2 and A.3.3 place differently
_SHORT = struct.Struct(">2xBxBB8xHB5s2x8s")
_LONG = struct.Struct(">2xBxBB8xHB2x5s24s")


def body_size(frame: bytearray | memoryview) -> int:
    """The body length a whole header announces; 0 for a type nobody here understands. Source A.2.1, A.3."""
    enc = frame[16]
    if enc not in c.ENCODINGS:
        return 0
    if frame[4] == c.GROUP_MAIL and frame[5] in c.LONG_COMMANDS:
        return int.from_bytes(frame[10:14], "big")
    return frame[22] << 8 | frame[23] if enc in c.SHORT_HEADERS else frame[17] << 8 | frame[18]


def read_header(frame: bytearray | memoryview) -> Header:
    """Read a request header whose bytes are all there; checks nothing. Source A.2, A.3."""
    layout = _SHORT if frame[16] in c.SHORT_HEADERS else _LONG
    raida, group, command, page, enc, selector, nonce = layout.unpack_from(frame)
    if group != c.GROUP_MAIL or command not in c.LONG_COMMANDS:
        page = 0
    return Header(raida, group, command, enc, selector, body_size(frame), nonce, nonce[-2:], page)


def check_header(
    frame: bytearray | memoryview, header: Header, raida: int, commands: Mapping[int, Container[int]]
) -> None:
    """Run the header checks in the documented order; Refused with the first that fails. Source A.2."""
    if frame[0] > 1:
        raise Refused(c.STATUS_INVALID_ROUTING)
    if frame[1]:
        raise Refused(c.STATUS_INVALID_SPLIT)
    if header.raida != raida:
        raise Refused(c.STATUS_INVALID_RAIDA)
    if header.group > c.MAX_GROUP:
        raise Refused(c.STATUS_INVALID_GROUP)
    if frame[3] > 3:
        raise Refused(c.STATUS_INVALID_SHARD)
    if header.group not in commands or header.command not in commands[header.group]:
        raise Refused(c.STATUS_INVALID_COMMAND)
    if frame[6] or frame[7] != c.COIN_ID[1]:
        raise Refused(c.STATUS_INVALID_COIN_ID)
    if header.enc not in c.ENCODINGS:
        raise Refused(c.STATUS_ENCRYPTION_UNSUPPORTED)


def open_request(frame: bytearray | memoryview, header: Header, keys: Keyring) -> Request:
    """Check and decrypt a request body in place; Refused in the documented order. Source A.4."""
    body_size = len(frame) - header.size
    if body_size < len(c.TRAILER):
        raise Refused(c.STATUS_PACKET_LENGTH)
    if frame[-1] != c.TRAILER[1] or frame[-2] != c.TRAILER[0]:
        raise Refused(c.STATUS_NO_TRAILER)
    if header.enc not in c.SHORT_HEADERS:
        return _open_long(frame, header, keys)
    if body_size < c.CHALLENGE_SIZE + len(c.TRAILER):
        raise Refused(c.STATUS_PACKET_LENGTH)
    an = b""
    if header.enc:
        found = keys.coin_an(header.selector) if header.enc == c.ENC_COIN else keys.locker_an(header.selector)
        if found is None:
            raise Refused(c.STATUS_INVALID_ENCRYPTION)
        an = found
    if not _framing.open_short(frame, an):
        raise Refused(c.STATUS_INVALID_CRC)
    body = memoryview(frame)
    return Request(header, an, bytes(body[32:48]), body[48:-2])


def _open_long(frame: bytearray | memoryview, header: Header, keys: Keyring) -> Request:
    if len(frame) < c.HEADER256_SIZE + c.HMAC_SIZE + len(c.TRAILER):
        raise Refused(c.STATUS_PACKET_LENGTH)
    an = keys.coin_an(header.selector)
    if an is not None and header.enc == c.ENC_COINS256:
        second = keys.coin_an(header.nonce[: c.SELECTOR_SIZE])
        an = None if second is None else an + second
    if an is None:
        raise Refused(c.STATUS_KEY_COIN_NOT_FOUND)
    if not _framing.open_long(frame, cipher.secret_of(header.enc, an)):
        raise Refused(c.STATUS_INVALID_HMAC)
    plain = memoryview(frame)[c.HEADER256_SIZE : -c.HMAC_SIZE - len(c.TRAILER)]
    if header.group != c.GROUP_MAIL:
        return Request(header, an, b"", plain)
    if len(plain) < c.CHALLENGE_SIZE:
        raise Refused(c.STATUS_PACKET_LENGTH)
    challenge = bytes(plain[: c.CHALLENGE_SIZE])
    if crc32(challenge[:12]) != int.from_bytes(challenge[12:], "big"):
        raise Refused(c.STATUS_INVALID_CRC)
    return Request(header, an, challenge, plain[c.CHALLENGE_SIZE :])


def build_reply(
    request: Request, status: int, payload: Buffer, execution_us: int, iv: bytes, *, go_on: bool = False
) -> bytearray:
    """Build a node's answer to an opened request.

    payload  clear bytes, at most 2^24 - 35; empty for a status alone
    iv       16 fresh random bytes; used by types 4 and 5 only
    go_on    types 1 and 2: continue the request's keystream instead of restarting it (A.6)
    source   QMail wire A.5; for types 4 and 5 with the proof of docs/protocol.md
    """
    header = request.header
    micros = min(execution_us, 0xFFFFFFFF)
    if header.enc in c.SHORT_HEADERS:
        blocks = _keystream_blocks(header.body_size) if go_on else 0
        return _framing.answer_short(
            header.raida, header.group, status, micros, header.nonce, request.challenge, request.an, payload, blocks
        )
    if header.enc == c.ENC_COINS256:
        # A.5.2: what deployed nodes put here overwrites five bytes of the nonce they used; so use what stands here
        iv = header.nonce[: c.SELECTOR_SIZE] + iv[c.SELECTOR_SIZE :]
    secret = cipher.secret_of(header.enc, request.an)
    return _framing.answer_long(
        header.raida, header.group, status, micros, header.enc, header.selector, iv, header.nonce, secret, payload
    )


def build_refusal(header: Header, status: int, *, echo: bool) -> bytearray:
    """Build the answer to a request that was refused before its key was known; unsigned.

    echo     the type was read, so its own header answers, and the echo comes back. Source A.5, A.5.2, A.11
    """
    head = bytearray(c.HEADER_SIZE if not echo or header.enc in c.SHORT_HEADERS else c.HEADER256_SIZE)
    head[0] = header.raida
    head[2] = status
    head[3] = header.group
    if len(head) == c.HEADER256_SIZE:
        head[16] = header.enc
        head[17:22] = header.selector
        head[46:48] = header.echo
        return head
    head[5] = 1
    if echo:
        head[6:8] = header.echo
    return head
