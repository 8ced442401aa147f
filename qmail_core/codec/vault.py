"""Files at rest: segments sealed one by one, a file's key sealed to its owner, secrets wrapped under other secrets.

A sealed file is an 8-byte header and segments of 64 KiB (the last is shorter, and may be empty), each followed by a
16-byte tag. The nonce is the segment's number and whether it is the last one, the associated data are header and file
id; so segments cannot be cut off, swapped, or moved to another file. A key seals one file and no other.

AES-256-GCM-SIV is used where the library has it: an upload that a crash interrupts may seal a segment of a number it
has sealed before, which ChaCha20-Poly1305 would not forgive. The header says which one it was. Nonces and keys are
arguments.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
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
_MAGIC = b"QMF1"
_KINDS: dict[int, type[AESGCMSIV] | type[ChaCha20Poly1305]] = {1: AESGCMSIV, 2: ChaCha20Poly1305}


def _pick() -> int:
    try:
        AESGCMSIV(bytes(KEY))
    except UnsupportedAlgorithm:
        return 2
    return 1


CIPHER = _pick()  # what new files are sealed with


def header(cipher: int = CIPHER) -> bytes:
    """The first bytes of a sealed file."""
    return _MAGIC + bytes((cipher, 0, 0, 0))


def segments_of(size: int) -> int:
    """How many segments hold so many bytes; an empty file has one."""
    return max(1, -(-size // SEGMENT))


def sealed_size(size: int) -> int:
    """Stored bytes of a file of so many."""
    return HEADER + size + segments_of(size) * TAG


class Segments:
    """Seals and opens the segments of one file."""

    def __init__(self, head: bytes, key: bytes, file_id: bytes) -> None:
        kind = _KINDS.get(head[4]) if len(head) == HEADER and head[:4] == _MAGIC else None
        if kind is None:
            raise Tampered("a stored file is damaged: its header is not one")
        self._aead = kind(key)
        self._bound = head + file_id

    def seal(self, number: int, plain: bytes, *, last: bool) -> bytes:
        """One segment with its tag."""
        return self._aead.encrypt(_nonce(number, last), plain, self._bound)

    def open(self, number: int, sealed: bytes | memoryview, *, last: bool) -> bytes:
        """The plain bytes; Tampered if they are not what was sealed here."""
        try:
            return self._aead.decrypt(_nonce(number, last), sealed, self._bound)
        except InvalidTag:
            raise Tampered(f"a stored file is damaged: segment {number} is not what was stored") from None


def _nonce(number: int, last: bool) -> bytes:
    return bytes((*bytes(7), last)) + number.to_bytes(4, "big")


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
