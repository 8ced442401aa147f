"""Master keys that content servers preloaded on a node."""

from __future__ import annotations

from typing import Protocol

from qmail_core.raida.state.medium import MemoryTables


class KeyState(Protocol):
    """Master keys of a node. MUST NOT show a secret in any error."""

    def master_key(self, server_id: bytes, kid: int) -> bytes | None:
        """The secret of a content server's key."""

    def set_master_key(self, server_id: bytes, kid: int, secret: bytes) -> None:
        """Keep a key, replacing an older one of the same id."""


class MemoryKeys(MemoryTables):
    """KeyState in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._master_keys: dict[tuple[bytes, int], bytes] = {}

    def master_key(self, server_id: bytes, kid: int) -> bytes | None:
        return self._master_keys.get((server_id, kid))

    def set_master_key(self, server_id: bytes, kid: int, secret: bytes) -> None:
        self._put(self._master_keys, (server_id, kid), secret)
