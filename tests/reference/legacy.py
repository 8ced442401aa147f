"""What an early client sent, stored and understood, written the slow way from QMail wire C.10 and D.3 "Python (old)".

Rule: nothing here imports the package; every frame is put together byte by byte, at the offsets the reference counts.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from tests.reference.framing import deinterleave, interleave

T = b"\x3e\x3e"


def frame(command: int, raida: int, body: bytes) -> bytearray:
    """A type 0 request: 32 header bytes, all of the body in the clear."""
    header = bytearray(32)
    header[0], header[2], header[4], header[5] = 1, raida, 6, command
    header[6:8] = b"\0\6"
    header[15] = 1
    header[22:24] = len(body).to_bytes(2, "big")
    header[30:32] = b"\x11\x22"
    return header + body


def preamble(denomination: int, serial: int, an: bytes) -> bytes:
    """48 bytes: challenge, session id, coin, device, authenticity number."""
    out = bytearray(48)
    out[0:12] = bytes(range(12))
    out[12:16] = zlib.crc32(bytes(range(12))).to_bytes(4, "big")
    out[24:26] = b"\0\6"
    out[26] = denomination & 0xFF
    out[27:31] = serial.to_bytes(4, "big")
    out[31] = 1
    out[32:48] = an
    return bytes(out)


def upload(who: bytes, guid: bytes, locker: bytes, file_type: int, duration: int, data: bytes) -> bytes:
    """Command 60."""
    body = bytearray(84)
    body[0:48], body[48:64], body[64:72] = who, guid, locker
    body[74], body[75] = file_type, duration
    body[80:84] = len(data).to_bytes(4, "big")
    return bytes(body) + data + T


def address_entry(denomination: int, serial: int, locker: bytes) -> bytes:
    entry = bytearray(32)
    entry[1:3], entry[3], entry[4:8], entry[8:16] = b"\0\6", denomination, serial.to_bytes(4, "big"), locker
    return bytes(entry)


def location(index: int, parity: int, ip: Sequence[int], port: int) -> bytes:
    """Index, type, locker 8, IP 16 with the IPv4 in its last four bytes, port, reserved."""
    entry = bytearray(32)
    entry[0], entry[1], entry[2:10] = index, parity, b"LOCK-ERX"
    entry[22:26], entry[26:28] = bytes(ip), port.to_bytes(2, "big")
    return bytes(entry)


def tell(
    who: bytes, guid: bytes, size: int, timestamp: int, fee: bytes, recipients: list[bytes], places: list[bytes]
) -> bytes:
    """Command 61."""
    body = bytearray(88)
    body[0:48], body[48:64] = who, guid
    body[64:68] = size.to_bytes(4, "big")
    body[72:76] = timestamp.to_bytes(4, "big")
    body[77], body[78], body[79:87] = len(recipients), len(places), fee
    return bytes(body) + b"".join(recipients) + b"".join(places) + T


def poll(who: bytes, since: int | None) -> bytes:
    """Commands 62 and 63."""
    return who + (b"" if since is None else since.to_bytes(4, "big")) + T


def download(who: bytes, guid: bytes, file_type: int, size_code: int, page: int) -> bytes:
    """Command 64."""
    return who + guid + bytes((file_type, 1, size_code, page)) + T


def read_tells(payload: bytes) -> tuple[int, list[dict[str, object]]]:
    """The answer to 62 and 63: how many wait besides, and the tells."""
    assert payload[3:8] == bytes(5)
    remaining, at, found = int.from_bytes(payload[1:3], "big"), 8, []
    for _ in range(payload[0]):
        head = payload[at : at + 40]
        count = int.from_bytes(head[36:40], "big")
        places = payload[at + 40 : at + 40 + 32 * count]
        footer = payload[at + 40 + 32 * count :][:18]
        assert head[:6] == b"\0\0\0\0\0\6"
        assert footer[:2] == b"\x50\x10"
        found.append(
            {
                "sender": (head[6], int.from_bytes(head[7:11], "big")),
                "timestamp": int.from_bytes(head[11:15], "big"),
                "type": head[15],
                "guid": head[16:32],
                "size": int.from_bytes(head[32:36], "big"),
                "places": [
                    (p[0], p[1], tuple(p[22:26]), int.from_bytes(p[26:28], "big"))
                    for p in (places[i : i + 32] for i in range(0, len(places), 32))
                ],
                "locker": footer[2:],
            }
        )
        at += 40 + 32 * count + 18
    assert at == len(payload)
    return remaining, found


def read_page(payload: bytes) -> tuple[tuple[int, int, int, int], bytes]:
    """The answer to 64: type, version, size code, page; data."""
    assert payload[8] == 0
    assert int.from_bytes(payload[4:8], "big") == len(payload) - 9
    return (payload[0], payload[1], payload[2], payload[3]), payload[9:]


def stripes(data: bytes, d: int, *, attachment: bool = False, crc: bool = True) -> list[bytes]:
    """d data stripes with their CRC-32 behind them, and the parity over all of it."""
    if attachment:
        data = len(data).to_bytes(4, "big") + data
    out = interleave(data, d)
    if crc:
        out = [stripe + zlib.crc32(stripe).to_bytes(4, "big") for stripe in out]
    parity = bytearray(len(out[0]))
    for stripe in out:
        for i, byte in enumerate(stripe):
            parity[i] ^= byte
    return [*out, bytes(parity)]


def joined(whole: Sequence[bytes], length: int) -> bytes:
    """What the early client made of its own data stripes."""
    for stripe in whole:
        assert zlib.crc32(stripe[:-4]).to_bytes(4, "big") == stripe[-4:]
    return deinterleave([stripe[:-4] for stripe in whole], length)
