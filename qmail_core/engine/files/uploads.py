"""Uploads: whole ones from a form, and ones that stop and go on (tus).

Bytes are sealed as they come; no more than a few hundred KiB of a file are ever in memory. A form's file appears in the
list when it is on disk with its row, and otherwise leaves nothing. A resumable one is safe up to its last commit: at
the end of each request, and every 32 MiB within one. Its key lies wrapped under the token it began with.
"""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from types import TracebackType

import msgspec

from qmail_core.codec import vault
from qmail_core.engine.context import Context
from qmail_core.engine.files.disk import Folder, Mark, Sealing, Writer, in_thread, to_the_end
from qmail_core.engine.files.pins import Pins
from qmail_core.engine.files.tokens import Owner, new_id
from qmail_core.errors import Conflict, NotFound, QuotaError, Tampered, UsageError
from qmail_core.model import StoredFile
from qmail_core.store.files import UploadRow

MAX_SIZE = 4 << 30  # bytes of one file: what a mail's attachment may have
LIFE = 86_400  # seconds an upload waits for its next byte
_COMMIT = 32 << 20  # bytes between two commits within a request
_OPEN = 32  # unfinished uploads whose files are kept open


def split_name(name: str) -> tuple[str, str]:
    """Name and extension, as a file shows them."""
    stem, dot, extension = name.rpartition(".")
    return (stem, extension) if stem and dot and len(extension) <= 32 else (name, "")


class Incoming:
    """One file of a form on its way in."""

    def __init__(self, writer: Writer, file_id: bytes, key: bytes, name: str, kind: str, room: int | None) -> None:
        self._room = room
        self.id, self.key, self.name, self.kind = file_id, key, name, kind
        self.writer = writer
        self.added = False  # to the list, or on the way there
        self._sealing = Sealing(writer)

    async def write(self, data: bytes | memoryview) -> None:
        """Take bytes; UsageError beyond the limit, QuotaError beyond what the user may keep."""
        size = self._sealing.size + len(data)
        if size > MAX_SIZE:
            raise UsageError(f"A file has at most {MAX_SIZE} bytes.", hint=413)
        _check_room(size, self._room)
        await self._sealing.write(data)

    async def finish(self) -> None:
        """Make the whole file durable."""
        await self._sealing.flush()
        await in_thread(self.writer.finish)
        self.writer.close()

    async def drop(self) -> None:
        """Take nothing more, and close the file."""
        await self._sealing.drop()
        self.writer.close()

    @property
    def size(self) -> int:
        """Plain bytes so far."""
        return self._sealing.size


class Uploads:
    """The uploads of one engine."""

    def __init__(self, ctx: Context, folder: Folder, pins: Pins) -> None:
        self._ctx = ctx
        self._store = ctx.store.files
        self._folder = folder
        self._pins = pins
        self._open: OrderedDict[bytes, Writer] = OrderedDict()
        self._busy: set[bytes] = set()

    # ---------------------------------------------------------------------------------------------- whole files

    def begin(self, owner: Owner, name: str, kind: str, beside: int = 0) -> Incoming:
        """Take in a file, beside so many bytes that are to be added with it; Conflict before the user has a PIN."""
        self._pins.public(owner.user)
        file_id, key = new_id(self._ctx.entropy), self._ctx.entropy(vault.KEY)
        room = self._room(owner)
        left = None if room is None else room - beside
        return Incoming(self._new_writer(file_id, key), file_id, key, name, kind, left)

    def _room(self, owner: Owner) -> int | None:
        return self._store.room(owner.user, self._ctx.config.file_quota)

    def _new_writer(self, file_id: bytes, key: bytes) -> Writer:
        return Writer(self._folder.path(file_id), key, file_id, self._ctx.entropy)

    async def commit(self, owner: Owner, files: Sequence[Incoming]) -> list[StoredFile]:
        """Add finished files, all or none; they are on disk when this returns."""
        rows = [self._row(owner, one.id, one.key, one.name, one.kind, one.size, one.writer) for one in files]
        await in_thread(self._folder.sync)
        await to_the_end(self._add(files, rows))
        return rows

    async def _add(self, files: Sequence[Incoming], rows: Sequence[StoredFile]) -> None:
        for one in files:
            one.added = True
        try:
            await self._store.add_files(rows, self._ctx.config.file_quota)
        except Exception:  # not when cancelled: nobody knows, and the next start removes what has no row
            for one in files:
                one.added = False
            raise

    async def discard(self, files: Sequence[Incoming]) -> None:
        """Leave nothing of files that have not been added."""
        for one in files:
            await one.drop()
            if not one.added:
                self._folder.remove(one.id)

    def _row(
        self, owner: Owner, file_id: bytes, key: bytes, name: str, kind: str, size: int, writer: Writer
    ) -> StoredFile:
        stem, extension = split_name(name)
        return StoredFile(
            id=file_id,
            user=owner.user,
            filename=stem,
            extension=extension,
            type=kind or mimetypes.guess_type(name)[0] or "application/octet-stream",
            size=size,
            stored=writer.stored(size),
            sha256=writer.sha256,
            crc32=writer.crc32,
            sealed=vault.seal_to(self._pins.public(owner.user), self._ctx.entropy(vault.KEY), key, file_id),
            created_at=self._ctx.now(),
        )

    # ---------------------------------------------------------------------------------------------- in pieces

    async def create(self, owner: Owner, name: str, kind: str, length: int | None) -> UploadRow:
        """Begin an upload in pieces; `length` None is said later. QuotaError if the user may not keep as much."""
        self._pins.public(owner.user)
        _check_length(length)
        file_id, key = new_id(self._ctx.entropy), self._ctx.entropy(vault.KEY)
        row = UploadRow(
            id=file_id,
            user=owner.user,
            token=owner.token,
            name=name,
            type=kind,
            length=length,
            size=0,
            segments=0,
            tail=b"",
            wrapped=vault.wrap(owner.secret, self._ctx.entropy(vault.NONCE), key, b"upload"),
            expires_at=self._ctx.now() + LIFE,
        )
        self._keep(file_id, self._new_writer(file_id, key))
        await to_the_end(self._begin(row))
        if length == 0:
            async with self.append(owner, file_id, 0):
                pass
        return row

    async def _begin(self, row: UploadRow) -> None:
        try:
            await in_thread(self._folder.sync)
            await self._store.add_upload(row, self._ctx.config.file_quota)
        except Exception:
            self._forget(row.id)
            self._folder.remove(row.id)
            raise

    def get(self, owner: Owner, upload: bytes) -> UploadRow:
        """An upload under way; NotFound with any token but the one it began with, or when it is over."""
        row = self._store.upload(owner.token, upload)
        if row.expires_at <= self._ctx.now():
            raise NotFound("Upload not found.")
        return row

    def append(self, owner: Owner, upload: bytes, offset: int, length: int | None = None) -> Appending:
        """A context in which bytes are added; see Appending. Conflict if they are not to go to `offset`."""
        row = self.get(owner, upload)
        if upload in self._busy:
            raise Conflict("Another request writes to this upload.", hint=423)
        if offset != row.size:
            raise Conflict("The upload is at another offset.")
        # what was said at the start has its place; what was not must find one
        quota = self._ctx.config.file_quota if row.length is None else None
        if length is not None:
            if row.length not in (None, length):
                raise UsageError("The length has been said already.")
            _check_length(length)
            if length < row.size:
                raise UsageError("The upload has more bytes than that.")
            if row.length is None:
                _check_room(length - row.size, self._room(owner))
            row = msgspec.structs.replace(row, length=length)
        return Appending(self, self._ctx, owner, row, quota)

    async def terminate(self, owner: Owner, upload: bytes) -> None:
        """Forget an upload; NotFound, Conflict while somebody writes to it."""
        self.get(owner, upload)
        if upload in self._busy:
            raise Conflict("Another request writes to this upload.", hint=423)
        self._busy.add(upload)
        try:
            await to_the_end(self._terminate(upload))
        finally:
            self._busy.discard(upload)

    async def _terminate(self, upload: bytes) -> None:
        await self._store.drop_upload(upload)
        self._forget(upload)
        self._folder.remove(upload)

    async def expire(self) -> None:
        """Forget uploads nobody has gone on with."""
        for upload in await self._store.expire_uploads(self._ctx.now(), frozenset(self._busy)):
            self.drop(upload)

    def drop(self, upload: bytes) -> None:
        """Remove the file of an upload whose row has gone; if somebody writes to it, they close it."""
        writer = self._open.pop(upload, None)
        if writer is not None and upload not in self._busy:
            writer.close()
        self._folder.remove(upload)

    def close(self) -> None:
        """Give all files back."""
        for upload in list(self._open):
            self._forget(upload)

    def _keep(self, upload: bytes, writer: Writer) -> None:
        self._open[upload] = writer
        idle = [known for known in self._open if known not in self._busy and known != upload]
        for known in idle[: max(0, len(self._open) - _OPEN)]:
            self._forget(known)

    def _forget(self, upload: bytes) -> None:
        writer = self._open.pop(upload, None)
        if writer is not None:
            writer.close()

    async def _writer(self, owner: Owner, row: UploadRow, key: bytes) -> Writer:
        """The writer of an upload, opened again if a restart came between."""
        writer = self._open.get(row.id)
        if writer is None:
            tail = vault.unwrap(key, row.tail, b"tail") if row.tail else b""
            if tail is None:
                raise Tampered("a stored upload is damaged")
            writer = Writer(self._folder.path(row.id), key, row.id, self._ctx.entropy, new=False)
            try:
                await in_thread(writer.resume, row.segments, tail)
            except BaseException:
                writer.close()
                raise
            self._keep(row.id, writer)
        return writer


class Appending:
    """Bytes added to an upload: committed when the context ends well, forgotten since the last commit when it does not.

    `atomic` set: no commit in between. `done` is the file once the last byte is in.
    """

    def __init__(self, uploads: Uploads, ctx: Context, owner: Owner, row: UploadRow, quota: int | None) -> None:
        self._uploads, self._ctx, self._owner = uploads, ctx, owner
        self._key = vault.unwrap(owner.secret, row.wrapped, b"upload")
        self._writer: Writer | None = None
        self._mark: Mark | None = None
        self._sealing: Sealing | None = None
        self._quota = quota  # None: there is room for it
        self._room = None if row.length is not None else uploads._room(owner)
        self.row = row
        self._base = row.size
        self.atomic = False
        self.done: StoredFile | None = None

    async def __aenter__(self) -> Appending:
        if self._key is None:
            raise Tampered("a stored upload is damaged")
        self._uploads._busy.add(self.row.id)
        try:
            self._writer = await self._uploads._writer(self._owner, self.row, self._key)
        except BaseException:
            self._uploads._busy.discard(self.row.id)
            raise
        self._mark = self._writer.mark()
        self._sealing = Sealing(self._writer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.commit()
        finally:
            try:
                if self._sealing is not None:
                    await self._sealing.drop()
            finally:
                if self._writer is not None and self._mark is not None:
                    self._undo(self._writer, self._mark)
                self._uploads._busy.discard(self.row.id)

    def _undo(self, writer: Writer, mark: Mark) -> None:
        if self._uploads._open.get(self.row.id) is not writer:
            writer.close()  # it has become a file, or its row is gone
            return
        try:
            writer.back(mark)
        except Exception:  # the file is as the store knows it, once it is opened again
            self._uploads._forget(self.row.id)

    async def write(self, data: bytes) -> None:
        """Take bytes; UsageError beyond the length that was said."""
        sealing = self._sealing
        assert sealing is not None
        most = MAX_SIZE if self.row.length is None else self.row.length
        if sealing.size + len(data) > most:
            raise UsageError("More bytes than the upload has.", hint=413)
        _check_room(sealing.size + len(data) - self._base, self._room)
        await sealing.write(data)
        if not self.atomic and sealing.size - self.row.size >= _COMMIT:
            await self.commit()

    async def commit(self) -> None:
        """Make what has come durable; with the last byte the upload becomes a file."""
        writer = self._writer
        assert writer is not None
        assert self._sealing is not None
        assert self._key is not None
        await self._sealing.flush()
        if writer.size == self.row.length:
            await self._finish(writer)
            return
        await in_thread(writer.sync)
        nonce = self._ctx.entropy(vault.NONCE)
        row = msgspec.structs.replace(
            self.row,
            size=writer.size,
            segments=writer.segments,
            tail=vault.wrap(self._key, nonce, writer.tail, b"tail") if writer.tail else b"",
            expires_at=self._ctx.now() + LIFE,
        )
        await to_the_end(self._save(writer, row))

    async def _save(self, writer: Writer, row: UploadRow) -> None:
        with self._one_of_both():
            await self._ctx.store.files.save_upload(row, self._quota)
        self.row, self._mark = row, writer.mark()

    async def _finish(self, writer: Writer) -> None:
        assert self._key is not None
        size = await in_thread(writer.finish)
        row = self.row
        file = self._uploads._row(self._owner, row.id, self._key, row.name, row.type, size, writer)
        await to_the_end(self._become(file))

    async def _become(self, file: StoredFile) -> None:
        with self._one_of_both():
            await self._ctx.store.files.finish_upload(file, self._quota)
        self.done, self.row = file, msgspec.structs.replace(self.row, size=file.size)
        self._uploads._forget(file.id)

    @contextlib.contextmanager
    def _one_of_both(self) -> Iterator[None]:
        """A write to the store; when even this is cancelled (the loop ends), the file is left for either answer."""
        try:
            yield
        except asyncio.CancelledError:
            self._uploads._forget(self.row.id)
            raise
        except NotFound:  # terminated by somebody, or its token was revoked
            self._uploads.drop(self.row.id)
            raise


def _check_room(size: int, room: int | None) -> None:
    if room is not None and size > room:
        raise QuotaError("This does not fit: it is more than may be kept.")


def _check_length(length: int | None) -> None:
    if length is not None and not 0 <= length <= MAX_SIZE:
        raise UsageError(f"A file has at most {MAX_SIZE} bytes.", hint=413)
