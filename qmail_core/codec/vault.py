"""Files at rest: segments sealed one by one, a file's key sealed to its owner, secrets wrapped under other secrets.

A sealed file is an 8-byte header and segments of 64 KiB (the last is shorter, and may be empty). In layout 2, which new
files have, a segment is 7 random bytes, the text under ChaCha20-Poly1305, and a 16-byte tag. The nonce is those bytes,
the segment's number and whether it is the last one (STREAM, with a prefix for each segment instead of each file); the
associated data are header and file id. So segments cannot be cut off, swapped, or moved to another file. A key seals
one file and no other, and the random bytes keep a nonce from coming again where an upload that was interrupted seals a
segment of a number it has sealed before.

Layout 1, which is read and continued but not begun, has no random bytes, and AES-256-GCM-SIV for that reason: it
forgives a nonce that comes again, at a tenth of the speed. There are files of ChaCha20-Poly1305 without random bytes
too: these are read only. Nonces and keys are arguments.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from qmail_core.errors import Tampered

SEGMENT = 64 * 1024
TAG = 16
HEADER = 8
KEY = 32
NONCE = 12
FRESH = 7  # random bytes of a segment's nonce


class Layout(NamedTuple):
    """What a header says."""

    aead: type[AESGCMSIV] | type[ChaCha20Poly1305]
    fresh: int  # random bytes in front of a segment

    @property
    def step(self) -> int:
        """Stored bytes of a whole segment."""
        return self.fresh + SEGMENT + TAG

    @property
    def resumable(self) -> bool:
        """Whether a segment may be sealed again: its nonce is another one then, or may come twice."""
        return self.fresh > 0 or self.aead is AESGCMSIV


_LAYOUTS = {
    b"QMF1\1\0\0\0": Layout(AESGCMSIV, 0),
    b"QMF1\2\0\0\0": Layout(ChaCha20Poly1305, 0),
    b"QMF2\2\0\0\0": Layout(ChaCha20Poly1305, FRESH),
}
NEW = b"QMF2\2\0\0\0"  # the first bytes of a file that is sealed now


def segments_of(size: int) -> int:
    """How many segments hold so many bytes; an empty file has one."""
    return max(1, -(-size // SEGMENT))


class Segments:
    """Seals and opens the segments of one file."""

    def __init__(self, head: bytes, key: bytes, file_id: bytes) -> None:
        layout = _LAYOUTS.get(head)
        if layout is None:
            raise Tampered("a stored file is damaged: its header is not one")
        self._aead = layout.aead(key)
        self._bound = head + file_id
        self._fresh = layout.fresh
        self.step = layout.step  # stored bytes of a whole segment
        self.resumable = layout.resumable

    def place(self, number: int) -> int:
        """Where a segment begins."""
        return HEADER + number * self.step

    def stored(self, size: int) -> int:
        """Bytes of the whole file when it has so many plain ones."""
        return HEADER + size + segments_of(size) * (self.step - SEGMENT)

    def seal(self, number: int, plain: bytes | memoryview, fresh: bytes, *, last: bool) -> tuple[bytes, bytes]:
        """One segment: what is in front of it, and itself with its tag.

        fresh    FRESH random bytes, for this call only; a file of layout 1 has no use for them
        """
        front = fresh[: self._fresh]
        return front, self._aead.encrypt(self._nonce(front, number, last), plain, self._bound)

    def open(self, number: int, sealed: memoryview, *, last: bool) -> bytes:
        """The plain bytes; Tampered if they are not what was sealed here."""
        nonce = self._nonce(bytes(sealed[: self._fresh]), number, last)
        try:
            return self._aead.decrypt(nonce, sealed[self._fresh :], self._bound)
        except (InvalidTag, ValueError):
            raise Tampered(f"a stored file is damaged: segment {number} is not what was stored") from None

    def _nonce(self, front: bytes, number: int, last: bool) -> bytes:
        if not self._fresh:
            return bytes((*bytes(7), last)) + number.to_bytes(4, "big")
        return front + number.to_bytes(4, "big") + (b"\1" if last else b"\0")


# ------------------------------------------------------------------------------------------------------------------
# Keys


def public_of(private: bytes) -> bytes:
    """The X25519 public key of a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _derive(secret: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), KEY, salt, b"qmail " + purpose).derive(secret)


def seal_to(public: bytes, ephemeral: bytes, plain: bytes, bound: bytes) -> bytes:
    """Seal a secret to a public key.

    ephemeral  a fresh private key of 32 random bytes, for this call only
    bound      what the secret belongs to; opening needs the same
    returns    the ephemeral public key, then the sealed secret
    """
    mine = X25519PrivateKey.from_private_bytes(ephemeral)
    shown = mine.public_key().public_bytes_raw()
    shared = mine.exchange(X25519PublicKey.from_public_bytes(public))
    key = _derive(shared, shown + public, b"file key")
    return shown + ChaCha20Poly1305(key).encrypt(bytes(NONCE), plain, bound)


def open_with(private: bytes, sealed: bytes, bound: bytes) -> bytes:
    """What `seal_to` sealed; Tampered if it was not for this key and thing."""
    mine = X25519PrivateKey.from_private_bytes(private)
    shown, rest = sealed[:KEY], sealed[KEY:]
    try:
        shared = mine.exchange(X25519PublicKey.from_public_bytes(shown))
        key = _derive(shared, shown + mine.public_key().public_bytes_raw(), b"file key")
        return ChaCha20Poly1305(key).decrypt(bytes(NONCE), rest, bound)
    except (InvalidTag, ValueError):
        raise Tampered("a stored key is damaged") from None


def wrap(secret: bytes, nonce: bytes, plain: bytes, purpose: bytes) -> bytes:
    """Put a secret under another one: nonce, then sealed bytes.

    secret  at least 128 bits that cannot be guessed: a key, or what `pin_secret` made of a PIN
    nonce   12 bytes, never twice with one secret
    """
    return nonce + ChaCha20Poly1305(_derive(secret, b"", purpose)).encrypt(nonce, plain, purpose)


def unwrap(secret: bytes, wrapped: bytes, purpose: bytes) -> bytes | None:
    """What `wrap` put under this secret for this purpose; None if it did not."""
    try:
        aead = ChaCha20Poly1305(_derive(secret, b"", purpose))
        return aead.decrypt(wrapped[:NONCE], wrapped[NONCE:], purpose)
    except (InvalidTag, ValueError):
        return None


def pin_secret(pin: str, salt: bytes, cost: int) -> bytes:
    """A key from a PIN: scrypt with r = 8, p = 1 and N = cost; takes a while and 1 KiB of memory times N."""
    return hashlib.scrypt(pin.encode(), salt=salt, n=cost, r=8, p=1, maxmem=cost * 1024 + (8 << 20), dklen=KEY)
