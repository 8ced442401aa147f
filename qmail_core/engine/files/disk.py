"""Sealed files on disk: one writer that may stop anywhere and go on, one reader at any offset. Both block.

`Sealing` is how a writer is used from the event loop: what comes is gathered, and one batch is sealed and written in a
thread while the next one gathers. So there are two batches of a file in memory, and no more come in before the disk has
taken one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import os
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, TypeVar

from typing_extensions import Buffer

from qmail_core.codec import vault
from qmail_core.codec.stripes import crc32
from qmail_core.codec.vault import FRESH, HEADER, SEGMENT, Segments
from qmail_core.errors import NotFound, Tampered
from qmail_core.folders import make_private, sync_folder
from qmail_core.store.medium import translated

BATCH = 512 * 1024  # bytes sealed at a time
AHEAD = 8 << 20  # bytes after which the disk is set to work
_PIECES = 512  # of one system call that writes; the least any system allows is 1024
T = TypeVar("T")


_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)  # of Linux
_SYNC_FILE_RANGE_WRITE = 2


def begin_writing(descriptor: int, place: int, size: int) -> None:
    """Have the system write so many bytes to the disk now, which leaves less to wait for when the file is synced."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, ctypes.c_int64(place), ctypes.c_int64(size), _SYNC_FILE_RANGE_WRITE)


def start(work: Callable[..., T], *args: object) -> asyncio.Future[T]:
    """Run what blocks in a thread. Whoever starts it sees to it that it has ended before files are closed."""
    return asyncio.get_running_loop().run_in_executor(None, work, *args)


async def ended(future: asyncio.Future[T]) -> T:
    """What was started; when cancelled, not before it has ended, so that files can be closed behind it."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await over(future)
        raise


async def over(future: asyncio.Future[T] | None) -> None:
    """Wait until what was started has ended, in whatever way, and however often this is cancelled meanwhile."""
    cancelled: BaseException | None = None
    while future is not None and not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if future is not None and not future.cancelled():
        future.exception()  # seen
    if cancelled is not None:
        raise cancelled


async def in_thread(work: Callable[..., T], *args: object) -> T:
    """Run what blocks in a thread, and wait for it as `ended` does."""
    return await ended(start(work, *args))


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Work that goes on while whoever wants it is cancelled, as `ended` does: a store write and what follows from it.

    The store carries out what was asked of it, so nobody may leave between its change and their own.
    """
    return await ended(asyncio.ensure_future(work))


class Folder:
    """Where the sealed files of an engine lie, each under its id."""

    def __init__(self, path: str) -> None:
        self._path = path
        make_private(path)

    def path(self, file_id: bytes) -> str:
        """Of one file."""
        return os.path.join(self._path, file_id.hex())

    def remove(self, file_id: bytes) -> None:
        """Remove a file; one that is gone is no trouble."""
        with contextlib.suppress(OSError):
            os.remove(self.path(file_id))

    def sweep(self, known: Collection[bytes]) -> None:
        """Remove all files that belong to none of these; what else lies there (lost+found) is not ours."""
        names = {file_id.hex() for file_id in known}
        for name in os.listdir(self._path):
            if name not in names:
                with contextlib.suppress(OSError):
                    os.remove(os.path.join(self._path, name))

    def sync(self) -> None:
        """Make the names durable."""
        sync_folder(self._path)


class Writer:
    """Plain bytes in, whole sealed segments to the file; what is behind them waits in `tail`.

    The last segment is sealed by `finish` only, so a file that was cut short is never taken for a whole one.
    """

    def __init__(
        self, path: str, key: bytes, file_id: bytes, entropy: Callable[[int], bytes], *, new: bool = True
    ) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if new else 0)
        with translated():
            self._file = os.open(path, flags, 0o600)
        try:
            head = vault.NEW if new else os.pread(self._file, HEADER, 0)
            self._segments = Segments(head, key, file_id)
            if not self._segments.resumable:
                raise NotFound("An upload of an older layout cannot go on: begin it anew.")
            if new:
                self._put([head], 0)
        except BaseException:
            self.close()
            if new:
                os.remove(path)
            raise
        self._entropy = entropy
        self.segments = 0
        self._begun = 0  # bytes of the file the disk has been set to work on
        self.tail = b""
        self._sha = hashlib.sha256()
        self.crc32 = 0

    @property
    def size(self) -> int:
        """Plain bytes so far."""
        return self.segments * SEGMENT + len(self.tail)

    @property
    def sha256(self) -> bytes:
        """Of the plain bytes so far."""
        return self._sha.digest()

    def stored(self, size: int) -> int:
        """Bytes on disk of the finished file with so many plain ones."""
        return self._segments.stored(size)

    def resume(self, segments: int, tail: bytes) -> None:
        """Go on behind what was safe: read it once, because sums of a file cannot be stored half-way."""
        os.ftruncate(self._file, self._segments.place(segments))
        for number in range(segments):
            sealed = os.pread(self._file, self._segments.step, self._segments.place(number))
            self._sum(self._segments.open(number, memoryview(sealed), last=False))
        self.segments, self.tail = segments, tail
        self._sum(tail)

    def write(self, data: Buffer) -> None:
        """Append plain bytes."""
        view = memoryview(data)
        self._sum(view)
        sealed: list[bytes] = []
        number = self.segments
        while len(self.tail) + len(view) > SEGMENT:  # a full segment stays until more comes: it may be the last
            missing = SEGMENT - len(self.tail)
            sealed += self._seal(number, self.tail + view[:missing] if self.tail else view[:missing])
            self.tail, view, number = b"", view[missing:], number + 1
        self._put(sealed, self._segments.place(self.segments))
        self.segments = number
        self.tail += view
        self._begin()

    def _begin(self) -> None:
        behind = self._segments.place(self.segments)
        if behind >= self._begun + AHEAD:
            begin_writing(self._file, self._begun, behind - self._begun)
            self._begun = behind

    def _seal(self, number: int, plain: bytes | memoryview, *, last: bool = False) -> tuple[bytes, bytes]:
        return self._segments.seal(number, plain, self._entropy(FRESH), last=last)

    def _put(self, pieces: Sequence[bytes], place: int) -> None:
        for at in range(0, len(pieces), _PIECES):
            some = pieces[at : at + _PIECES]
            with translated():
                done = os.pwritev(self._file, some, place)
                rest = memoryview(b"".join(some))[done:] if done < sum(map(len, some)) else b""
                place += done
                while rest:
                    done = os.pwrite(self._file, rest, place)
                    rest, place = rest[done:], place + done

    def _sum(self, data: Buffer) -> None:
        self._sha.update(data)
        self.crc32 = crc32(data, self.crc32)

    def mark(self) -> Mark:
        """A place `back` can return to."""
        return self.segments, self.tail, self._sha.copy(), self.crc32

    def back(self, mark: Mark) -> None:
        """Forget what was written since."""
        self.segments, self.tail, sha, self.crc32 = mark
        self._begun = min(self._begun, self._segments.place(self.segments))
        self._sha = sha.copy()
        with translated():
            os.ftruncate(self._file, self._segments.place(self.segments))

    def sync(self) -> None:
        """Make what was written durable."""
        with translated():
            os.fsync(self._file)

    def finish(self) -> int:
        """Seal the last segment and make the file durable; returns its plain size."""
        size = self.size
        self._put(self._seal(self.segments, self.tail, last=True), self._segments.place(self.segments))
        self.segments, self.tail = self.segments + 1, b""
        self.sync()
        return size

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


Mark = tuple[int, bytes, "hashlib._Hash", int]


class Sealing:
    """Hands what comes to a writer, in batches."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._batch = bytearray()
        self._running: asyncio.Future[None] | None = None
        self.size = writer.size  # plain bytes so far, with those on their way

    async def write(self, data: Buffer) -> None:
        """Take bytes; what is wrong with earlier ones may be raised."""
        view = memoryview(data)
        self.size += len(view)
        self._batch += view
        if len(self._batch) >= BATCH:
            await self._hand_over()

    async def flush(self) -> None:
        """All that has come is with the writer."""
        if self._batch:
            await self._hand_over()
        running, self._running = self._running, None
        if running is not None:
            await ended(running)

    async def _hand_over(self) -> None:
        if self._running is not None:
            await ended(self._running)
        batch, self._batch = self._batch, bytearray()
        self._running = start(self._writer.write, batch)

    async def drop(self) -> None:
        """Forget what the writer does not have; when this returns it does nothing more."""
        self._batch = bytearray()
        running, self._running = self._running, None
        await over(running)


class Reader:
    """A sealed file, open for reading at any offset."""

    def __init__(self, path: str, key: bytes, file_id: bytes, size: int) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound("The stored bytes of this file are gone.") from error
        try:
            self._segments = Segments(os.pread(self._file, HEADER, 0), key, file_id)
            if os.fstat(self._file).st_size != self._segments.stored(size):
                raise Tampered("a stored file is damaged: it is longer or shorter than it was")
        except BaseException:
            self.close()
            raise
        self.size = size
        self._last = vault.segments_of(size) - 1

    def read(self, offset: int, size: int) -> bytes:
        """Plain bytes, as many as there are; Tampered if they are not what was stored."""
        stop = min(offset + size, self.size)
        first, behind = offset // SEGMENT, max(-(-stop // SEGMENT), offset // SEGMENT + 1)
        step, place = self._segments.step, self._segments.place(first)
        sealed = memoryview(os.pread(self._file, (behind - first) * step, place))
        parts = []
        for number in range(first, min(behind, self._last + 1)):
            at = (number - first) * step
            parts.append(self._segments.open(number, sealed[at : at + step], last=number == self._last))
        plain = parts[0] if len(parts) == 1 else b"".join(parts)
        begin = offset - first * SEGMENT
        return plain[begin : begin + max(0, stop - offset)]

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
