"""The key that lies beside the store, and what is done with it: seal second factors, hash application passwords.

Whoever steals the store alone has neither. The file holds 32 random bytes, mode 0600; it is made when first needed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from qmail_core.engine.durable import put_in_place
from qmail_core.errors import ConfigError, StoreError

FILE = "accounts.key"
_SIZE = 32
_NONCE = 12


class Keys:
    """The keys of one engine's accounts.

    folder   the engine's own
    entropy  for the key and for nonces
    """

    def __init__(self, folder: str, entropy: Callable[[int], bytes]) -> None:
        self._path = os.path.join(folder, FILE)
        self._entropy = entropy
        self._root = b""

    def __repr__(self) -> str:
        return "Keys()"

    def seal(self, secret: bytes, owner: bytes) -> bytes:
        """Encrypt for the store; it can be opened as that owner's only."""
        nonce = self._entropy(_NONCE)
        return nonce + AESGCM(self._key(b"totp")).encrypt(nonce, secret, owner)

    def open(self, sealed: bytes, owner: bytes) -> bytes:
        """Undo `seal`; StoreError if the key is another one."""
        cipher = AESGCM(self._key(b"totp"))
        try:
            return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], owner)
        except (InvalidTag, ValueError) as error:
            raise StoreError(f"a second factor was not sealed with the key in {FILE}") from error

    def fingerprint(self, password: str, owner: bytes) -> tuple[bytes, bytes]:
        """Selector and hash of an application password, which has too many values to be guessed."""
        data = owner + password.encode()
        selector = hmac.digest(self._key(b"asp selector"), data, hashlib.sha256)[:8]
        return selector, hmac.digest(self._key(b"asp hash"), data, hashlib.sha256)

    def _key(self, purpose: bytes) -> bytes:
        self._root = self._root or self._load()
        return hmac.digest(self._root, purpose, hashlib.sha256)

    def _load(self) -> bytes:
        if not os.path.exists(self._path):
            self._make()
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:
            if os.fstat(descriptor).st_mode & 0o077:
                raise ConfigError(f"{self._path} can be read by others: chmod 600 it")
            root = file.read(_SIZE + 1)
        if len(root) != _SIZE:
            raise ConfigError(f"{self._path} does not hold {_SIZE} bytes")
        return root

    def _make(self) -> None:
        """Write a new key under another name first, so that a crash leaves a whole key or none."""
        part = f"{self._path}.part"
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(self._entropy(_SIZE))
            file.flush()
            os.fsync(file.fileno())
        put_in_place(part, self._path)
