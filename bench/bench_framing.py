"""Frames, AES-CTR and the bit interleave, each against the obvious alternative.

What is measured: the median of several timed batches in one thread, data seeded and warm in the cache. The peer of a
frame is the same frame built in pure Python with struct, zlib and `cryptography`; the peer of AES-CTR is
`cryptography` with a fresh key and nonce per message, as frames need it; the peer of the interleave is the same
function of Python integers. `ratio` is peer time over our time, `goal` the least ratio that is good enough.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import statistics
import struct
import time
import zlib
from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from qmail_core import _framing

RNG = random.Random(25)
HEADER = struct.Struct(">BBBBBBH8xB5sH8s")
HEADER_4 = struct.Struct(">BBBBBBH8xBH5s24s")


def seconds(call: Callable[[], object], least: float = 0.02) -> float:
    """Time of one call: median of seven batches of at least `least` seconds."""
    count = 1
    while True:
        start = time.perf_counter()
        for _ in range(count):
            call()
        if (spent := time.perf_counter() - start) >= least or count > 1 << 20:
            break
        count = max(count * 2, int(count * least / max(spent, 1e-9)))
    batches = [spent]
    for _ in range(6):
        start = time.perf_counter()
        for _ in range(count):
            call()
        batches.append(time.perf_counter() - start)
    return statistics.median(batches) / count


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


def interleave_python(block: bytes, d: int) -> list[int]:
    bits = bin(int.from_bytes(block, "little"))[:1:-1].ljust(8 * len(block), "0")
    return [int(bits[i::d][::-1] or "0", 2) for i in range(d)]


def row(what: str, unit: str, value: float, peer: float, ratio: float, goal: float) -> dict[str, object]:
    return {"what": what, "value": round(value, 3), "unit": unit, "peer": round(peer, 3), "ratio": round(ratio, 2),
            "goal": goal, "holds": ratio >= goal}  # fmt: skip


def frame_rows() -> Iterator[dict[str, object]]:
    kinds = [(1, 1, 22, 8), (1, 1, 1024, 8), (1, 25, 1024, 12), (4, 1, 1024, 4), (4, 25, 1024, 5)]
    for enc, count, size, goal in kinds:
        keys = [RNG.randbytes(32 if enc == 4 else 16) for _ in range(count)]
        per = 36 if enc == 4 else 20
        entropy = RNG.randbytes(per * count)
        head, tail, selector, raidas = RNG.randbytes(72), RNG.randbytes(size), RNG.randbytes(5), list(range(count))
        selectors, heads, tails = [selector] * count, [head] * count, [tail] * count
        args = (6, 70, enc, raidas, keys, selectors, heads, tails, entropy)

        def python(enc: int = enc, keys: list[bytes] = keys, e: bytes = entropy, per: int = per, *,
                   rest: tuple[bytes, bytes, bytes] = (selector, head, tail)) -> list[bytes]:  # fmt: skip
            return [pack_python(enc, i, k, *rest, e[i * per : i * per + per]) for i, k in enumerate(keys)]

        assert [bytes(f) for f in _framing.pack_many(*args)] == python()
        ours = seconds(lambda args=args: _framing.pack_many(*args))  # type: ignore[misc]
        peer = seconds(python)
        name = f"pack {count} frame{'s' * (count > 1)} of {size} B, type {enc}"
        yield row(name, "us", ours * 1e6, peer * 1e6, peer / ours, goal)


def rows() -> Iterator[dict[str, object]]:
    """Every figure of this file: what, value, unit, peer, ratio, goal, holds."""
    yield from frame_rows()
    for size, bits, goal in [(1024, 128, 10), (65536, 128, 2.0), (1 << 20, 128, 1.8), (1 << 20, 256, 1.8)]:
        key, iv, data, out = RNG.randbytes(bits // 8), RNG.randbytes(16), RNG.randbytes(size), bytearray(size)
        ours = seconds(lambda k=key, i=iv, d=data, o=out: _framing.aes_ctr(k, i, d, o))  # type: ignore[misc]
        peer = seconds(lambda k=key, i=iv, d=data: openssl(k, i, d))  # type: ignore[misc]
        name = f"AES-{bits}-CTR of {size >> 10} KiB"
        yield row(name, "GB/s", size / ours / 1e9, size / peer / 1e9, peer / ours, goal)
    block = RNG.randbytes(1 << 18)
    for d in (4, 7, 24):
        stripes = _framing.interleave(block, d)
        assert [int.from_bytes(s, "little") for s in stripes] == interleave_python(block, d)
        peer = seconds(lambda d=d: interleave_python(block, d))  # type: ignore[misc]
        for name, ours in [
            ("interleave", seconds(lambda d=d: _framing.interleave(block, d))),  # type: ignore[misc]
            ("deinterleave", seconds(lambda s=stripes: _framing.deinterleave(s, len(block)))),  # type: ignore[misc]
        ]:
            what = f"{name} 256 KiB, {d} stripes"
            yield row(what, "GB/s", len(block) / ours / 1e9, len(block) / peer / 1e9, peer / ours, 50)
