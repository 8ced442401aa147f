"""Sealed files on disk: one writer that may stop anywhere and go on, one reader at any offset. Both block."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from typing_extensions import Buffer

from qmail_core.codec import vault
from qmail_core.codec.vault import HEADER, SEGMENT, TAG, Segments
from qmail_core.errors import NotFound, StoreUnavailable, Tampered

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *args: object) -> T:
    """Run what blocks in a thread; when cancelled, not before it has ended, so that files can be closed behind it."""
    future = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


class Folder:
    """Where the sealed files of an engine lie, each under its id."""

    def __init__(self, path: str) -> None:
        self._path = path
        os.makedirs(path, mode=0o700, exist_ok=True)

    def path(self, file_id: bytes) -> str:
        """Of one file."""
        return os.path.join(self._path, file_id.hex())

    def remove(self, file_id: bytes) -> None:
        """Remove a file; one that is gone is no trouble."""
        with contextlib.suppress(OSError):
            os.remove(self.path(file_id))

    def sweep(self, known: Collection[bytes]) -> None:
        """Remove everything that belongs to none of these."""
        names = {file_id.hex() for file_id in known}
        for name in os.listdir(self._path):
            if name not in names:
                os.remove(os.path.join(self._path, name))

    def sync(self) -> None:
        """Make the names durable."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Writer:
    """Plain bytes in, whole sealed segments to the file; what is behind them waits in `tail`.

    The last segment is sealed by `finish` only, so a file that was cut short is never taken for a whole one.
    """

    def __init__(self, path: str, key: bytes, file_id: bytes, *, new: bool = True) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if new else 0)
        with translated():
            self._file = os.open(path, flags, 0o600)
        self._head = vault.header() if new else os.pread(self._file, HEADER, 0)
        self._segments = Segments(self._head, key, file_id)
        self.segments = 0
        self.tail = b""
        self._sha = hashlib.sha256()
        self.crc32 = 0
        if new:
            self._put(self._head, 0)

    @property
    def size(self) -> int:
        """Plain bytes so far."""
        return self.segments * SEGMENT + len(self.tail)

    @property
    def sha256(self) -> bytes:
        """Of the plain bytes so far."""
        return self._sha.digest()

    def resume(self, segments: int, tail: bytes) -> None:
        """Go on behind what was safe: read it once, because sums of a file cannot be stored half-way."""
        os.ftruncate(self._file, _place(segments))
        for number in range(segments):
            sealed = os.pread(self._file, SEGMENT + TAG, _place(number))
            self._sum(self._segments.open(number, sealed, last=False))
        self.segments, self.tail = segments, tail
        self._sum(tail)

    def write(self, data: Buffer) -> None:
        """Append plain bytes."""
        view = memoryview(data)
        self._sum(view)
        if self.tail:
            missing = SEGMENT - len(self.tail)
            self.tail += view[:missing]
            view = view[missing:]
        # a full segment stays until more comes: it may be the last
        while view:
            if self.tail:
                self._flush(self.tail)
            self.tail, view = bytes(view[:SEGMENT]), view[SEGMENT:]

    def _flush(self, plain: bytes, *, last: bool = False) -> None:
        self._put(self._segments.seal(self.segments, plain, last=last), _place(self.segments))
        self.segments += 1
        self.tail = b""

    def _put(self, data: bytes, place: int) -> None:
        view = memoryview(data)
        with translated():
            while view:
                done = os.pwrite(self._file, view, place)
                view, place = view[done:], place + done

    def _sum(self, data: Buffer) -> None:
        self._sha.update(data)
        self.crc32 = zlib.crc32(data, self.crc32)

    def mark(self) -> Mark:
        """A place `back` can return to."""
        return self.segments, self.tail, self._sha.copy(), self.crc32

    def back(self, mark: Mark) -> None:
        """Forget what was written since."""
        self.segments, self.tail, sha, self.crc32 = mark
        self._sha = sha.copy()
        with translated():
            os.ftruncate(self._file, _place(self.segments))

    def sync(self) -> None:
        """Make what was written durable."""
        with translated():
            os.fsync(self._file)

    def finish(self) -> int:
        """Seal the last segment and make the file durable; returns its plain size."""
        size = self.size
        self._flush(self.tail, last=True)
        self.sync()
        return size

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


Mark = tuple[int, bytes, "hashlib._Hash", int]


class Reader:
    """A sealed file, open for reading at any offset."""

    def __init__(self, path: str, key: bytes, file_id: bytes, size: int) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound("The stored bytes of this file are gone.") from error
        try:
            if os.fstat(self._file).st_size != vault.sealed_size(size):
                raise Tampered("a stored file is damaged: it is longer or shorter than it was")
            self._segments = Segments(os.pread(self._file, HEADER, 0), key, file_id)
        except BaseException:
            self.close()
            raise
        self.size = size
        self._last = vault.segments_of(size) - 1

    def read(self, offset: int, size: int) -> bytes:
        """Plain bytes, as many as there are; Tampered if they are not what was stored."""
        stop = min(offset + size, self.size)
        first, behind = offset // SEGMENT, max(-(-stop // SEGMENT), offset // SEGMENT + 1)
        sealed = memoryview(os.pread(self._file, (behind - first) * (SEGMENT + TAG), _place(first)))
        parts = []
        for number in range(first, min(behind, self._last + 1)):
            at = (number - first) * (SEGMENT + TAG)
            parts.append(self._segments.open(number, sealed[at : at + SEGMENT + TAG], last=number == self._last))
        plain = parts[0] if len(parts) == 1 else b"".join(parts)
        begin = offset - first * SEGMENT
        return plain[begin : begin + max(0, stop - offset)]

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _place(segment: int) -> int:
    return HEADER + segment * (SEGMENT + TAG)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """What a disk says, in our words."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"The file could not be written: {error.strerror}") from error
