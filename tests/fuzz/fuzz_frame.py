"""The frame parsers under arbitrary bytes: `python -m tests.fuzz.fuzz_frame` (needs atheris; its options apply).

Rule: `parse` is all there is to fuzz. Whatever the bytes are, only the errors named there may come out, and every
parser gets memory of exactly the size it was told, so that the sanitized build sees a read beyond it. The ordinary
tests run the same function over examples of hypothesis.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
from typing import Any

from qmail_core.codec import consts as c
from qmail_core.codec import exchange, packet
from qmail_core.codec.cipher import Key
from qmail_core.errors import RemoteProtocolError

AN = bytes(range(16))
DRAW = bytes(range(100, 136))
KEYS = {
    0: Key(c.ENC_NONE, b"", bytes(5)),
    1: Key(c.ENC_COIN, AN, bytes(5)),
    2: Key(c.ENC_LOCKER, AN, bytes(5)),
    4: Key(c.ENC_COIN256, hashlib.sha256(AN).digest(), bytes(5)),
    5: Key(c.ENC_COINS256, hashlib.sha256(AN + AN).digest(), bytes(10)),
}
COMMANDS = {0: range(256), 6: range(256)}


class Keys:
    """Knows every coin and every locker whose selector starts with an even byte."""

    def coin_an(self, selector: bytes) -> bytes | None:
        return AN if selector[0] % 2 == 0 else None

    def locker_an(self, prefix: bytes) -> bytes | None:
        return self.coin_an(prefix)


def parse(data: bytes) -> None:
    """Give the same bytes to every parser of both ends."""
    frame = bytearray(data)
    with contextlib.suppress(RemoteProtocolError):
        size = exchange.request_size(memoryview(frame))
        if size is not None and len(frame) >= size:
            parse_request(frame[:size])
    for enc in KEYS:
        size = exchange.reply_size(memoryview(frame), enc)
        assert size is None or size >= c.HEADER_SIZE
        for part in (frame[:size], bytearray(frame)):  # the frame as it is cut out, and whatever else there is
            with contextlib.suppress(RemoteProtocolError):
                draw = DRAW if enc >= c.ENC_COIN256 else DRAW[:20]
                packet.open_reply(packet.Sent(data[0] if data else 0, b"", KEYS[enc], draw), memoryview(part))


def parse_request(frame: bytearray) -> None:
    """What a node does with a whole request."""
    view = memoryview(frame)
    header = packet.read_header(view)
    with contextlib.suppress(packet.Refused):
        packet.check_header(view, header, header.raida, COMMANDS)
        request = packet.open_request(view, header, Keys())
        assert len(request.payload) <= len(frame)


def main() -> None:
    atheris: Any = importlib.import_module("atheris")
    atheris.instrument_all()  # without it nothing guides the search through the Python half of the parsers
    atheris.Setup(sys.argv, parse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
