"""What an upload of an object must remember before its first request leaves, one small file for each.

A file is written beside, brought down to the medium and renamed, so that after any crash it is there whole or not at
all.
"""

from __future__ import annotations

import contextlib
import os
import re

import msgspec
from msgspec import Struct

from qmail_core.engine.durable import put_in_place
from qmail_core.errors import NotFound
from qmail_core.folders import make_private
from qmail_core.model import Striping

_NAME = re.compile("([0-9a-f]{32})[.]json")  # others may lie in the folder


class Upload(Struct, frozen=True, kw_only=True):
    """One object on its way to its nodes. The lists are parallel, by stripe."""

    id: bytes  # of the upload
    object_id: bytes
    file_type: int
    generation: int
    expected: int  # generation to be replaced; 0 creates
    retention: int  # seconds, 0: what each node likes
    striping: Striping
    seed: bytes
    wallet: str  # that pays; empty where storage is free
    size: int  # of the source
    path: str = ""  # empty: the bytes are given again for a resumption
    mtime_ns: int = 0
    nodes: tuple[int, ...]
    transfers: tuple[bytes, ...]
    hashes: tuple[bytes, ...] = ()  # of the stripe objects, once known
    sha256: bytes = b""  # of the source
    root: bytes = b""


class Journal:
    """The uploads of one engine that have not ended."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def _path(self, upload_id: bytes) -> str:
        return os.path.join(self._folder, f"{upload_id.hex()}.json")

    def save(self, upload: Upload) -> None:
        """Durable when this returns."""
        make_private(self._folder)
        path = self._path(upload.id)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(f"{path}.new", flags, 0o600), "wb") as file:
            file.write(msgspec.json.encode(upload))
            file.flush()
            os.fsync(file.fileno())
        put_in_place(f"{path}.new", path)

    def load(self, upload_id: bytes) -> Upload:
        """NotFound if there is none."""
        try:
            with open(self._path(upload_id), "rb") as file:
                return msgspec.json.decode(file.read(), type=Upload)
        except FileNotFoundError:
            raise NotFound("no such upload") from None

    def remove(self, upload_id: bytes) -> None:
        """Forget an upload that has ended."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._path(upload_id))

    def open_uploads(self) -> list[bytes]:
        """Ids of uploads that have not ended."""
        names = os.listdir(self._folder) if os.path.isdir(self._folder) else []
        return sorted(bytes.fromhex(found[1]) for name in names if (found := _NAME.fullmatch(name)))
