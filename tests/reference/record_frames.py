"""`python -m tests.reference.record_frames` writes tests/vectors/frames.json: the bytes of every command on the wire.

The frames come from the slow packer (framing.py), with entropy that is a digest of the row's own name: adding a row
changes no other. The test of these frames compares what the native path makes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from qmail_core.codec import consts as c
from tests.reference import framing
from tests.reference.commands import COIN, COMMANDS, LOCKER_KEY, NODE, Command

FRAMES = Path(__file__).parents[1] / "vectors" / "frames.json"
SELECTOR = bytes.fromhex("000000002a")


def draw(command: Command, enc: int, size: int) -> bytes:
    """The entropy of one frame."""
    return hashlib.shake_256(f"{command.name}/{enc}".encode()).digest(size)


def encodings(command: Command) -> tuple[int, ...]:
    """The types a command is recorded with: mail is never sent in clear, lockers have a key of their own."""
    if command.group == c.GROUP_MAIL:
        return (c.ENC_COIN, c.ENC_COIN256)
    locker = (c.ENC_LOCKER,) if command.group == c.GROUP_LOCKER else ()
    return (c.ENC_NONE, c.ENC_COIN, *locker, c.ENC_COIN256)


def secrets(enc: int) -> tuple[bytes, bytes, bytes]:
    """(number it comes from, wire key, selector) of an encryption type."""
    an = COIN.an(NODE)
    return {
        c.ENC_NONE: (b"", b"", bytes(5)),
        c.ENC_COIN: (an, an, SELECTOR),
        c.ENC_LOCKER: (LOCKER_KEY, LOCKER_KEY, LOCKER_KEY[:5]),
        c.ENC_COIN256: (an, hashlib.sha256(an).digest(), SELECTOR),
    }[enc]


def record() -> Iterator[dict[str, str | int]]:
    """The rows of the file."""
    for command in COMMANDS:
        for enc in encodings(command):
            an, key, selector = secrets(enc)
            size = 36 if enc == c.ENC_COIN256 else 20
            request = framing.pack(
                command.group,
                command.number,
                enc,
                NODE,
                key,
                selector,
                command.request,
                draw(command, enc, size),
                command.page,
            )
            iv = draw(command, enc, size + 16)[size:] if enc == c.ENC_COIN256 else b""
            reply = framing.answer(
                command.group, enc, NODE, an, selector, draw(command, enc, size), command.status, command.answer, iv
            )
            yield {"name": command.name, "enc": enc, "request": request.hex(), "answer": reply.hex()}


def text() -> str:
    """The file."""
    rows = ",\n".join(f" {json.dumps(row)}" for row in record())
    return f"[\n{rows}\n]\n"


if __name__ == "__main__":
    FRAMES.write_text(text(), encoding="utf-8")
