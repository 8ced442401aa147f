"""ZIP archives whose every byte is known before the first is sent: stored members, zip64 where sizes ask for it.

Sizes and CRCs of the members are known, so an archive has a length, ranges of it can be served, and no temporary file
is ever made. APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from msgspec import Struct

_BIG = 0xFFFFFFFF
_UTF8 = 0x0800


class Member(Struct, frozen=True):
    """One file of an archive."""

    name: str
    size: int
    crc32: int


def local_header(member: Member) -> bytes:
    """What stands before a member's bytes."""
    name = member.name.encode()
    extra = struct.pack("<HHQQ", 1, 16, member.size, member.size) if member.size >= _BIG else b""
    shown = _BIG if extra else member.size
    version = 45 if extra else 20
    head = (b"PK\x03\x04", version, _UTF8, 0, 0, 0x21, member.crc32, shown, shown, len(name), len(extra))
    return struct.pack("<4sHHHHHIIIHH", *head) + name + extra


def directory(members: Sequence[Member]) -> bytes:
    """What stands behind the last member: the central directory and its end."""
    rows, offset = [], 0
    for member in members:
        rows.append(_entry(member, offset))
        offset += len(local_header(member)) + member.size
    body = b"".join(rows)
    return body + _end(len(members), len(body), offset)


def _entry(member: Member, offset: int) -> bytes:
    name = member.name.encode()
    big = [member.size, member.size] if member.size >= _BIG else []
    far = [offset] if offset >= _BIG else []
    extra = struct.pack(f"<HH{len(big + far)}Q", 1, 8 * len(big + far), *big, *far) if big or far else b""
    shown = _BIG if big else member.size
    version = 45 if extra else 20
    head = (b"PK\x01\x02", version, version, _UTF8, 0, 0, 0x21, member.crc32, shown, shown, len(name), len(extra))
    tail = (0, 0, 0, 0, _BIG if far else offset)
    return struct.pack("<4sHHHHHHIIIHH", *head) + struct.pack("<HHHII", *tail) + name + extra


def _end(count: int, size: int, offset: int) -> bytes:
    record = b""
    if count >= 0xFFFF or size >= _BIG or offset >= _BIG:
        record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, offset)
        record += struct.pack("<4sIQI", b"PK\x06\x07", 0, offset + size, 1)
    shown = min(count, 0xFFFF)
    return record + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, shown, shown, min(size, _BIG), min(offset, _BIG), 0)


def unique(names: Sequence[str]) -> list[str]:
    """Names no two of which are equal; a repeated one gets a number before its extension."""
    taken: set[str] = set()
    found = []
    for name in names:
        stem, dot, extension = name.rpartition(".")
        stem, ending = (stem, dot + extension) if stem else (name, "")
        chosen, number = name, 1
        while chosen in taken:
            number += 1
            chosen = f"{stem} ({number}){ending}"
        taken.add(chosen)
        found.append(chosen)
    return found
