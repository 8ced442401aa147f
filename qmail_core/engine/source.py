"""Where the bytes of an object come from."""

from __future__ import annotations

import os
from typing import Protocol

from typing_extensions import Buffer

from qmail_core.errors import ErasureError, PathRefused


class Reader(Protocol):
    """Bytes that are no file."""

    @property
    def size(self) -> int: ...
    def read(self, offset: int, size: int) -> Buffer:
        """Exactly these bytes, the same each time; may be called from other threads."""


class File:
    """A file as a Reader, of one inode whatever happens to its name. It owns its descriptor."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._descriptor = descriptor
        self.path = os.path.abspath(path)
        found = os.fstat(descriptor)
        self.size, self.mtime_ns = found.st_size, found.st_mtime_ns

    @classmethod
    def at(cls, path: str) -> File:
        """Open a path; PathRefused if that cannot be."""
        try:
            return cls(path, os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            raise PathRefused("the file cannot be read") from None

    def read(self, offset: int, size: int) -> bytes:
        parts = []
        while size:
            part = os.pread(self._descriptor, size, offset)
            if not part:
                raise ErasureError("the file is shorter than when it was accepted")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)
