"""What `qmail_core._framing` must compute, written the slow and obvious way from the wire description.

Rule: nothing here imports the native module, and every step is spelled as the specification spells it.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    """Counter mode, block by block from the raw block cipher, the counter one big-endian number of 128 bits."""
    # Single-block ECB is the primitive CTR is defined with; no message is ever encrypted in ECB mode here.
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    start = int.from_bytes(iv, "big")
    counters = b"".join(((start + i) % 2**128).to_bytes(16, "big") for i in range(-(-len(data) // 16)))
    stream = block.update(counters)
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))


def interleave(block: bytes, d: int) -> list[bytes]:
    """QMail wire D.2, bit by bit."""
    positions = (8 * len(block) + d - 1) // d
    size = (positions + 7) // 8
    stripes = [bytearray(size) for _ in range(d)]
    for k in range(8 * len(block)):
        bit = block[k // 8] >> k % 8 & 1
        stripes[k % d][k // d // 8] |= bit << k // d % 8
    return [bytes(stripe) for stripe in stripes]


def deinterleave(stripes: Sequence[bytes], length: int) -> bytes:
    """The inverse of D.2, bit by bit."""
    d = len(stripes)
    block = bytearray(length)
    for k in range(8 * length):
        position = k // d
        block[k // 8] |= (stripes[k % d][position // 8] >> position % 8 & 1) << k % 8
    return bytes(block)


def pack(
    group: int, command: int, enc: int, raida: int, key: bytes, selector: bytes, plain: bytes, entropy: bytes, page: int
) -> bytes:
    """One request frame; `plain` is what follows the challenge (A.2, A.3.2, A.3.3, A.4)."""
    nonce, rnd = entropy[:-12], entropy[-12:]
    if enc == 5:
        nonce, selector = selector[5:] + nonce[5:], selector[:5]
    challenge = rnd + zlib.crc32(rnd).to_bytes(4, "big")
    if enc < 4 or group == 6:
        plain = challenge + plain
    body = {
        0: lambda: plain,
        1: lambda: aes_ctr(key, nonce + bytes(8), plain),
        2: lambda: aes_ctr(key, nonce + bytes(8), plain),
        4: lambda: aes_ctr(key, nonce[:16], plain),
        5: lambda: aes_ctr(key, nonce[:16], plain),
    }[enc]()
    if enc >= 4:
        body += hmac.new(key, body, hashlib.sha256).digest()
    body += b"\x3e\x3e"

    header = bytearray(48 if enc >= 4 else 32)
    header[0] = 0 if group == 6 and command in range(76, 85) else 1
    header[2], header[4], header[5] = raida, group, command
    header[6:8] = b"\x00\x06"
    if group == 6 and command in range(75, 85):
        header[10:14] = len(body).to_bytes(4, "big")
        if command == 75:
            header[14:16] = page.to_bytes(2, "big")
    elif len(body) > 65535:
        raise ValueError("body too long")
    short = min(len(body), 65535).to_bytes(2, "big")
    header[16] = enc
    if enc >= 4:
        header[17:19], header[19:24], header[24:48] = short, selector, nonce
    else:
        header[22:24] = short
        if enc == 0:
            header[30:32] = nonce[6:8]
        else:
            header[17:22], header[24:32] = selector, nonce
    return bytes(header) + body


def unpack(frame: bytes, node: int, enc: int, key: bytes, draw: bytes) -> tuple[int, int, bytes] | None:
    """One answer (A.5): status, microseconds, payload; None if it cannot be trusted."""
    nonce, challenge = draw[:-12], draw[-12:] + zlib.crc32(draw[-12:]).to_bytes(4, "big")
    header = 48 if enc == 4 and frame[16:17] == b"\x04" else 32
    if len(frame) < header or frame[0] != node or len(frame) != header + int.from_bytes(frame[9:12], "big"):
        return None
    status, body = frame[2], frame[header:]
    success = status in (0, 241, 250)
    if header == 48:
        micros = int.from_bytes(frame[4:8], "big")
        if frame[46:48] != nonce[22:24]:
            return None
        if not body:
            return status, micros, b""
        text, mac = body[:-34], body[-34:-2]
        if len(body) < 34 or body[-2:] != b">>" or hmac.digest(key, text, "sha256") != mac:
            return None
        return status, micros, aes_ctr(key, frame[24:40], text)
    micros = int.from_bytes(frame[12:16], "big")
    if enc == 4:
        return None if success else (status, micros, b"")
    signature = bytes(a ^ b for a, b in zip(challenge, key if enc else bytes(16), strict=True))
    if (success or body) and frame[16:32] != signature:
        return None
    if not body:
        return status, micros, b""
    if len(body) < 2 or body[-2:] != b">>":
        return None
    return status, micros, aes_ctr(key, nonce + bytes(8), body[:-2]) if enc else body[:-2]


def answer(
    group: int,
    enc: int,
    raida: int,
    key: bytes,
    selector: bytes,
    draw: bytes,
    status: int,
    payload: bytes,
    iv: bytes,
) -> bytes:
    """What a node of ours answers (A.5); `key` is the AN or locker key, `draw` the entropy of the request."""
    asked, challenge = draw[:-12], draw[-12:] + zlib.crc32(draw[-12:]).to_bytes(4, "big")
    header = bytearray(48 if enc == 4 else 32)
    header[0], header[2], header[3] = raida, status, group
    if enc == 4:
        header[16], header[17:22], header[24:40], header[46:48] = 4, selector, iv, asked[22:24]
        secret = hashlib.sha256(key).digest()
        body = aes_ctr(secret, iv, payload)
        body += hmac.new(secret, body, hashlib.sha256).digest()
    else:
        header[5], header[6:8] = 1, asked[6:8]
        header[16:32] = bytes(a ^ b for a, b in zip(challenge, key if enc else bytes(16), strict=True))
        body = aes_ctr(key, asked + bytes(8), payload) if enc else payload
    frame = bytes(header)
    if payload:
        body += b"\x3e\x3e"
        header[9:12] = len(body).to_bytes(3, "big")
        frame = bytes(header) + body
    if enc == 4:
        frame = frame[:40] + proof(frame, asked, secret) + frame[46:]
    return frame


def proof(frame: bytes, nonce: bytes, key: bytes) -> bytes:
    """Bytes 40..45 of a 48-byte answer (docs/protocol.md): what binds its header to its body and to its request."""
    tag = frame[-34:-2] if len(frame) > 48 else b""
    return hmac.digest(key, b"QMail answer" + frame[:40] + nonce + tag, "sha256")[:6]
