"""Frames, answers, AES-CTR and CRC-32, each against the obvious alternative.

What is measured: one thread, data seeded and warm in the cache, through the Python interface. The peer of a frame or an
answer is the same in pure Python with struct, zlib and `cryptography`; the peer of AES-CTR is `cryptography` with a
fresh key and nonce per message, as frames need it; the peer of CRC-32 is zlib. An answer is decrypted in place, so its
bytes are restored for every call; the copy is measured alone and taken off on both sides.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import struct
import zlib
from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bench.measure import Row, Timing, row, timings, want
from qmail_core import _framing
from qmail_core.codec import packet
from qmail_core.codec.cipher import Key

RNG = random.Random(25)
HEADER = struct.Struct(">BBBBBBH8xB5sH8s")
HEADER_4 = struct.Struct(">BBBBBBH8xBH5s24s")
PYTHON = "pure Python, cryptography"


def openssl(key: bytes, iv: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor().update(data)


def pack_python(enc: int, raida: int, key: bytes, selector: bytes, head: bytes, tail: bytes, entropy: bytes) -> bytes:
    nonce, challenge = entropy[:-12], entropy[-12:]
    plain = challenge + zlib.crc32(challenge).to_bytes(4, "big") + head + tail
    if enc == 4:
        body = openssl(key, nonce[:16], plain)
        body += hmac.digest(key, body, hashlib.sha256) + b">>"
        return HEADER_4.pack(1, 0, raida, 0, 6, 70, 6, 4, len(body), selector, nonce) + body
    body = openssl(key, nonce + bytes(8), plain) + b">>"
    return HEADER.pack(1, 0, raida, 0, 6, 70, 6, enc, selector, len(body), nonce) + body


def unpack_python(frame: bytearray, node: int, enc: int, key: bytes, draw: bytes) -> tuple[int, int, bytes]:
    nonce, challenge = draw[:-12], draw[-12:]
    if enc == 4:
        text, mac = bytes(frame[48:-34]), bytes(frame[-34:-2])
        if frame[0] != node or frame[46:48] != nonce[22:24] or frame[-2:] != b">>":
            raise ValueError
        if not hmac.compare_digest(hmac.digest(key, text, hashlib.sha256), mac):
            raise ValueError
        return frame[2], int.from_bytes(frame[4:8], "big"), openssl(key, bytes(frame[24:40]), text)
    challenge += zlib.crc32(challenge).to_bytes(4, "big")
    signature = (int.from_bytes(challenge, "big") ^ int.from_bytes(key, "big")).to_bytes(16, "big")
    if frame[0] != node or frame[-2:] != b">>" or not hmac.compare_digest(bytes(frame[16:32]), signature):
        raise ValueError
    return frame[2], int.from_bytes(frame[12:16], "big"), openssl(key, nonce + bytes(8), bytes(frame[32:-2]))


def pack_rows(enc: int, count: int, goal: str | None) -> Iterator[Row]:
    keys = [RNG.randbytes(32 if enc == 4 else 16) for _ in range(count)]
    per = 36 if enc == 4 else 20
    entropy = RNG.randbytes(per * count)
    head, tail, selector, raidas = RNG.randbytes(72), RNG.randbytes(1024), RNG.randbytes(5), list(range(count))
    args = (6, 70, enc, raidas, keys, [selector] * count, [head] * count, [tail] * count, entropy)

    def python() -> list[bytes]:
        draws = [entropy[i : i + per] for i in range(0, len(entropy), per)]
        return [
            pack_python(enc, i, key, selector, head, tail, draw)
            for i, (key, draw) in enumerate(zip(keys, draws, strict=True))
        ]

    def fanout() -> list[packet.Sent]:
        return packet.pack(batch, entropy)

    batch = packet.Batch(6, 70, raidas, [Key(enc, key, selector) for key in keys], [head] * count, [tail] * count)
    assert [bytes(f) for f in _framing.pack_many(*args)] == python()
    ours, requests, peer = timings([lambda: _framing.pack_many(*args), fanout, python])
    name = f"pack, {count} frame{'s' * (count > 1)} of 1 KiB, type {enc}"
    line = against(name, ours, peer)
    yield want(line, goal) if goal else line
    yield against(f"{name}, with their records", requests, peer)


def against(name: str, ours: Timing, peer: Timing) -> Row:
    return row(name, ours.seconds * 1e6, "us", ours.spread, (PYTHON, peer.seconds / ours.seconds))


def unpack_rows(enc: int, goal: str | None) -> Iterator[Row]:
    an = RNG.randbytes(16)
    key = Key(enc, hashlib.sha256(an).digest() if enc == 4 else an, bytes(5))
    draw = RNG.randbytes(36 if enc == 4 else 20)
    challenge = draw[-12:] + zlib.crc32(draw[-12:]).to_bytes(4, "big")
    header = packet.Header(3, 6, 74, enc, bytes(5), 0, draw[:-12], draw[-14:-12])
    request = packet.Request(header, an, challenge, memoryview(b""))
    answer = bytes(packet.build_reply(request, 250, RNG.randbytes(1024), 77, RNG.randbytes(16)))
    buffer = bytearray(answer)
    frame = memoryview(buffer)
    sent = packet.Sent(3, b"", key, draw)

    def restore() -> None:
        frame[:] = answer

    def native() -> object:
        frame[:] = answer
        return _framing.unpack(frame, 3, enc, key.secret, draw)

    def reply() -> object:
        frame[:] = answer
        return packet.open_reply(sent, frame)

    def python() -> object:
        frame[:] = answer
        return unpack_python(buffer, 3, enc, key.secret, draw)

    status, micros, payload = _framing.unpack(frame, 3, enc, key.secret, draw)
    plain = bytes(payload)
    assert python() == (status, micros, plain)
    copy, *spent = timings([restore, native, reply, python])
    ours, opened, peer = (Timing(one.seconds - copy.seconds, one.spread) for one in spent)
    line = against(f"unpack, 1 KiB, type {enc}", ours, peer)
    yield want(line, goal) if goal else line
    yield against(f"unpack, 1 KiB, type {enc}, with its record", opened, peer)


def speed_row(name: str, size: int, peer: str, calls: tuple[Callable[[], object], Callable[[], object]]) -> Row:
    ours, theirs = timings(calls)
    return row(name, size / ours.seconds / 1e9, "GB/s", ours.spread, (peer, theirs.seconds / ours.seconds))


def cipher_row(size: int, bits: int, goal: float) -> Row:
    key, iv, data, out = RNG.randbytes(bits // 8), RNG.randbytes(16), RNG.randbytes(size), bytearray(size)
    calls = (lambda: _framing.aes_ctr(key, iv, data, out), lambda: openssl(key, iv, data))
    return want(speed_row(f"AES-{bits}-CTR, {size >> 10} KiB", size, "cryptography", calls), f">= {goal} x")


def crc_row(size: int, goal: float) -> Row:
    data = RNG.randbytes(size)
    calls = (lambda: _framing.crc32(data), lambda: zlib.crc32(data))
    return want(speed_row(f"CRC-32, {size >> 10} KiB", size, "zlib", calls), f">= {goal} x")


def rows() -> Iterator[Row]:
    """Every figure of this file."""
    for enc, count, pack_goal in ((1, 1, "<= 0.4 us"), (1, 25, "<= 10 us"), (4, 1, None), (4, 25, "<= 10 us")):
        yield from pack_rows(enc, count, pack_goal)
    for enc, goal in ((1, "<= 0.4 us"), (4, None)):
        yield from unpack_rows(enc, goal)
    for size, bits, least in ((1024, 128, 10), (65536, 128, 2), (1 << 20, 128, 1.8), (1 << 20, 256, 1.8)):
        yield cipher_row(size, bits, least)
    for size, least in ((1024, 2), (65536, 3), (1 << 20, 3)):
        yield crc_row(size, least)
