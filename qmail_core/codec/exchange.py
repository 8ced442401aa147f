"""The rules of one connection: how long a frame is, what it answers, what may wait behind it. Client and node share it.

A RAIDA connection carries whole frames with no framing of its own, so both ends must know a frame's size from its
header. Every function returns the size once it is known, None while more header bytes are needed, or raises
RemoteProtocolError when the announced size is not acceptable. QMail wire A.1, A.2.1, A.5.
"""

from __future__ import annotations

from typing_extensions import Buffer

from qmail_core import _framing
from qmail_core.codec import consts as c
from qmail_core.codec import packet
from qmail_core.errors import RemoteProtocolError

BRIEF = 4096  # bytes of a request that others may wait behind; a node keeps as many of what comes behind one in hand
_TAKES_TIME = frozenset(  # it is held, or asks other nodes first, or brings a body
    {
        (c.GROUP_HEALING, c.CMD_FIX),
        *((c.GROUP_MAIL, command) for command in (c.CMD_PING, c.CMD_OLD_PING)),
        *((c.GROUP_MAIL, command) for command in (c.CMD_DOWNLOAD, c.CMD_OLD_DOWNLOAD, c.CMD_OBJECT_GET_RANGE)),
    }
)
FIRST_READ = 17  # byte 16 of a request tells how long its header is


def request_size(head: memoryview) -> int | None:
    """Size of a request frame, header included.

    head     the bytes received so far
    returns  for a type nobody here understands the size of its header: the body cannot be measured
    raises   RemoteProtocolError if the body is announced larger than a node accepts
    source   QMail wire A.1 "TCP read order"
    """
    have = len(head)
    if have < FIRST_READ:
        return None
    header_size = c.HEADER_SIZE if head[16] in c.SHORT_HEADERS else c.HEADER256_SIZE
    if have < header_size:
        return None
    body = packet.body_size(head)
    if body > c.MAX_BODY:
        raise RemoteProtocolError(f"request body of {body} bytes announced, at most {c.MAX_BODY} accepted")
    return header_size + body


def first_request(data: memoryview, have: int) -> bytearray | None:
    """A copy of the first request in a receive buffer, if all of it is there; else `request_size` tells why not."""
    return _framing.first_frame(data, have, c.MAX_BODY)


def first_answer(data: bytearray, have: int, enc: int) -> bytearray | None:
    """A copy of the first answer in a receive buffer, if all of it is there; else `reply_size` tells how long it is."""
    return _framing.first_answer(data, have, enc)


def reply_size(head: memoryview, enc: int) -> int | None:
    """Size of an answer frame, header included.

    head     the bytes received so far
    enc      encryption type of the request it answers
    source   QMail wire A.5; requests of types 4 and 5 are answered with 48 header bytes unless refused early
    """
    if len(head) < c.HEADER_SIZE:
        return None
    long = enc >= c.ENC_COIN256 and head[16] == enc
    header_size = c.HEADER256_SIZE if long else c.HEADER_SIZE
    if len(head) < header_size:
        return None
    return header_size + int.from_bytes(head[9:12], "big")


def is_brief(frame: Buffer) -> bool:
    """Whether a request is small and answered at once with little, so that others may be sent behind it."""
    view = memoryview(frame)
    return len(view) <= BRIEF and (view[4], view[5]) not in _TAKES_TIME


def is_answer(answer: memoryview, frame: Buffer) -> bool:
    """Whether an answer carries the echo bytes of a request, or none, as refusals of a header do. Source A.5, A.5.2."""
    view = memoryview(frame)
    asked = view[46:48] if view[16] not in c.SHORT_HEADERS else view[30:32]
    said = answer[46:48] if len(answer) >= c.HEADER256_SIZE and answer[16] == view[16] >= c.ENC_COIN256 else answer[6:8]
    return said == asked or not any(answer[6:32])
