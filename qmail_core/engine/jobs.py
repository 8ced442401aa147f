"""The intent of one send, as it is committed before the answer: enough to finish it after any crash."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct
from typing_extensions import Buffer

from qmail_core.codec import cbdf
from qmail_core.codec import consts as c
from qmail_core.engine.paths import Paths
from qmail_core.errors import ErasureError, InputInvalid, PathRefused
from qmail_core.folders import sync_folder
from qmail_core.model import Durability, FileEntry, Recipient, Source, Striping
from qmail_core.store.base import SendStore


class JobSource(Struct, frozen=True, kw_only=True):
    """One attachment: where it is, and what it looked like when it was accepted."""

    name: str
    path: str = ""  # empty: its bytes are kept in the store
    size: int
    mtime_ns: int = 0
    spooled: bool = False


class Job(Struct, frozen=True, kw_only=True):
    """One accepted send."""

    guid: bytes
    task_id: str
    tell: bool  # go on to the tell when the upload is done
    wallet: str
    duration_weeks: int
    durability: Durability
    striping: Striping
    servers: tuple[int, ...]  # node of each stripe, by stripe index
    seed: bytes  # every object's sealing keys derive from it, so a repeated send makes the same stripes
    created_at: int
    subject: str
    body: str
    recipients: tuple[Recipient, ...]
    sources: tuple[JobSource, ...]
    hold_until: int = 0  # the tell waits for this time, and can be taken back until then
    entries: tuple[FileEntry, ...] = ()  # known once the upload has read every object

    @property
    def files(self) -> int:
        """What is paid per server: the mail itself and each attachment."""
        return 1 + len(self.sources)


def check_subject(text: str) -> None:
    """InputInvalid for a subject that would not arrive whole."""
    if len(text.encode("utf-8", "replace")) > cbdf.MAX_VALUE:
        raise InputInvalid({"subject": f"subject is too long (max {cbdf.MAX_VALUE} bytes)"})


def encode(job: Job) -> bytes:
    """For the store."""
    return msgspec.json.encode(job)


def decode(raw: bytes) -> Job:
    """From the store."""
    return msgspec.json.decode(raw, type=Job)


def unit_of(file_type: int) -> int:
    """What a file type is paid as: 0 the mail itself, 1 the first attachment, and so on."""
    return max(0, file_type - c.FILE_ATTACHMENT + 1)


class Object:
    """One object of a send, open for reading at any offset."""

    def __init__(self, file_type: int, name: str, size: int, data: bytes | None, descriptor: int = -1) -> None:
        self.file_type = file_type
        self.name = name
        self.size = size
        self._data = data
        self._descriptor = descriptor

    @property
    def role(self) -> str:
        """The word receipts use."""
        return {c.FILE_META: "meta", c.FILE_BODY: "body"}.get(self.file_type, "attachment")

    @property
    def label(self) -> str:
        """The words a user knows it by: meta and body are one e-mail to everybody but us."""
        unit = unit_of(self.file_type)
        return f"attachment {unit}" if unit else "email"

    @property
    def flags(self) -> int:
        """Manifest flags."""
        return {"meta": c.FLAG_META, "body": c.FLAG_BODY}.get(self.role, c.FLAG_ATTACHMENT)

    def read(self, offset: int, size: int) -> Buffer:
        """Exactly `size` bytes, or fewer if the file has shrunk meanwhile."""
        if self._data is not None:
            return memoryview(self._data)[offset : offset + size]
        parts: list[bytes] = []
        while size > 0:
            part = os.pread(self._descriptor, size, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Give the file back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Objects:
    """All objects of a send, opened together and closed together."""

    def __init__(self, job: Job, store: SendStore, paths: Paths) -> None:
        self._open: list[Object] = []
        try:
            for file_type in (c.FILE_META, c.FILE_BODY):
                data = store.object(job.guid, file_type)
                self._open.append(Object(file_type, {0: "meta", 1: "body"}[file_type], len(data), data))
            for position, source in enumerate(job.sources):
                self._open.append(_open_source(job, position, source, store, paths))
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Object]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Give all files back."""
        for item in self._open:
            item.close()


def _open_source(job: Job, position: int, source: JobSource, store: SendStore, paths: Paths) -> Object:
    file_type = c.FILE_ATTACHMENT + position
    if not source.path:
        data = store.object(job.guid, file_type)
        return Object(file_type, source.name, len(data), data)
    try:
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC) if source.spooled else paths.open(source.path)
    except OSError as error:
        raise PathRefused(f"attachment {position + 1} cannot be read any more: {error.strerror}") from error
    except PathRefused as error:
        raise PathRefused(f"attachment {position + 1} cannot be read any more") from error
    state = os.fstat(descriptor)
    if state.st_size != source.size or state.st_mtime_ns != source.mtime_ns:
        os.close(descriptor)
        raise ErasureError(f"attachment {position + 1} changed after it was accepted; send it again")
    return Object(file_type, source.name, source.size, None, descriptor)


def _sync_names(path: str) -> None:
    """Make a spooled file's name durable: its writer has synced the bytes, not the folders above them."""
    for folder in (os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        sync_folder(folder)


def sources_of(sources: Sequence[Source], paths: Paths) -> tuple[list[JobSource], dict[int, bytes]]:
    """Fix what each attachment is at acceptance.

    returns  the sources, and the bytes of those that have no file, by file type
    raises   PathRefused if a file cannot be read
    """
    fixed, kept = [], {}
    for position, source in enumerate(sources):
        if source.data is not None:
            kept[c.FILE_ATTACHMENT + position] = source.data
            fixed.append(JobSource(name=source.name, size=len(source.data)))
            continue
        if source.spooled:
            path, state = source.path, os.stat(source.path)
            _sync_names(path)
        else:
            path, state = paths.check(source.path)
        fixed.append(
            JobSource(
                name=source.name, path=path, size=state.st_size, mtime_ns=state.st_mtime_ns, spooled=source.spooled
            )
        )
    return fixed, kept
