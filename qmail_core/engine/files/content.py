"""What a download consists of, as one row of bytes that can be read at any offset: a file, or an archive of several."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from qmail_core.codec import zip as archive
from qmail_core.codec.stripes import crc32
from qmail_core.codec.zip import Member
from qmail_core.engine.files.disk import ended, over, start
from qmail_core.errors import NotFound

_AHEAD = 2  # chunks read while one is on its way: one in each of two threads, so that none waits for the event loop


class Readable(Protocol):
    """Something with a size that is read at offsets; may block."""

    size: int

    def read(self, offset: int, size: int) -> bytes: ...
    def close(self) -> None: ...


class Whole:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    def close(self) -> None:
        """Nothing to give back."""


class OnDisk:
    """A plain file."""

    def __init__(self, path: str) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound("The stored bytes of this file are gone.") from error
        self.size = os.fstat(self._file).st_size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._file, size, offset)

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def crc32(self) -> int:
        """Of the whole file; reads it."""
        crc, offset = 0, 0
        while part := self.read(offset, 1 << 20):
            crc, offset = crc32(part, crc), offset + len(part)
        return crc


class Named(Struct):
    """One file of a download."""

    name: str
    type: str
    crc32: int
    data: Readable


class Content:
    """The bytes a download serves."""

    def __init__(self, files: Sequence[Named], archive_name: str) -> None:
        if len(files) == 1:
            self.name, self.type = files[0].name, files[0].type
            self._pieces: list[Readable] = [files[0].data]
        else:
            self.name, self.type = archive_name, "application/zip"
            self._pieces = _archive(files)
        self.size = sum(piece.size for piece in self._pieces)

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes, fewer at the end of a piece; blocks. Threads may read at the same time."""
        piece, offset = self._find(offset)
        return piece.read(offset, min(size, piece.size - offset))

    def cut(self, first: int, stop: int, most: int) -> Iterator[tuple[int, int]]:
        """Offsets and sizes that `read` answers in full, of [first, stop) in order."""
        while first < stop:
            piece, offset = self._find(first)
            size = min(most, stop - first, piece.size - offset)
            yield first, size
            first += size

    def _find(self, offset: int) -> tuple[Readable, int]:
        for piece in self._pieces:
            if offset < piece.size:
                return piece, offset
            offset -= piece.size
        raise AssertionError("behind the end")

    def close(self) -> None:
        """Give all files back."""
        for piece in self._pieces:
            with contextlib.suppress(OSError):
                piece.close()


class Ahead:
    """A content in chunks, in order; some are read in threads before they are asked for."""

    def __init__(self, content: Content, spans: Iterator[tuple[int, int]]) -> None:
        self._content = content
        self._spans = spans
        self._reading: deque[tuple[int, asyncio.Future[bytes]]] = deque()

    async def next(self) -> bytes:
        """The next chunk, empty at the end; NotFound if its bytes are gone."""
        self._begin()
        if not self._reading:
            return b""
        size, reading = self._reading[0]
        part = await ended(reading)
        if len(part) != size:
            raise NotFound("The stored bytes of this file are gone.")
        self._reading.popleft()
        self._begin()
        return part

    def _begin(self) -> None:
        while len(self._reading) < _AHEAD and (span := next(self._spans, None)) is not None:
            self._reading.append((span[1], start(self._content.read, *span)))

    async def close(self) -> None:
        """Read no more; the content may be closed then."""
        while self._reading:
            await over(self._reading[0][1])
            self._reading.popleft()


def _archive(files: Sequence[Named]) -> list[Readable]:
    names = archive.unique([file.name for file in files])
    members = [Member(name, file.data.size, file.crc32) for name, file in zip(names, files, strict=True)]
    pieces: list[Readable] = []
    for member, file in zip(members, files, strict=True):
        pieces += [Whole(archive.local_header(member)), file.data]
    return [*pieces, Whole(archive.directory(members))]


def type_of(name: str) -> str:
    """The media type a name suggests."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
