"""The files a user has uploaded: lists, names, the trash."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from qmail_core.codec import vault
from qmail_core.engine.context import Context
from qmail_core.engine.files.disk import Folder, Reader, in_thread
from qmail_core.engine.files.downloads import KeyRefused
from qmail_core.engine.files.pins import Pins
from qmail_core.engine.files.tokens import Owner
from qmail_core.engine.files.uploads import split_name
from qmail_core.engine.send import Sender
from qmail_core.errors import NotFound, UsageError
from qmail_core.model import Listing, Source, StoredFile
from qmail_core.store.mailbox import HOME

_CHUNK = 1 << 20


class Person(Struct, frozen=True):
    """Who made something."""

    name: str
    email: str


class Library:
    """The files of one engine's users."""

    def __init__(self, ctx: Context, folder: Folder, pins: Pins, sender: Sender, home_address: str) -> None:
        self._ctx = ctx
        self._store = ctx.store.files
        self._folder = folder
        self._pins = pins
        self._sender = sender
        self._home_address = home_address

    def person(self, user: int) -> Person:
        """The user behind an id."""
        username, name = self._store.person(user)
        email = self._home_address if user == HOME else username
        return Person(name or (email if user == HOME else username), email)

    def listed(self, owner: Owner, listing: Listing) -> tuple[Sequence[StoredFile], int]:
        """A page of files and how many there are."""
        return self._store.files(owner.user, listing)

    def get(self, owner: Owner, file: bytes) -> StoredFile:
        """NotFound if the owner has no such file."""
        return self._store.file(owner.user, file)

    async def rename(self, owner: Owner, file: bytes, name: str) -> StoredFile:
        """Give a file another name, extension and all."""
        if not name:
            raise UsageError("A file needs a name.")
        return await self._store.change_file(owner.user, file, name=split_name(name))

    async def trash(self, owner: Owner, file: bytes, trashed: bool) -> StoredFile:
        """Put a file into the trash, or take it out."""
        return await self._store.change_file(owner.user, file, trashed=trashed)

    async def remove(self, owner: Owner, file: bytes) -> None:
        """Trash a file; one that is there already is removed for good."""
        if not self.get(owner, file).trashed:
            await self.trash(owner, file, True)
            return
        await self._store.drop_file(owner.user, file)
        self._folder.remove(file)

    async def spool(self, owner: Owner, files: Sequence[bytes], pin_key: str, guid: bytes) -> list[Source]:
        """Plain copies for a send, of mode 0600 in its spool, which is removed after the upload.

        The send goes on after a crash, without anybody who knows the PIN; so it cannot read the sealed file itself.
        raises   KeyRefused, NotFound
        """
        rows = [self._store.file(owner.user, file) for file in files]
        if any(row.trashed for row in rows):
            raise NotFound("File not found.")
        private = self._pins.private(owner, pin_key) if rows else b""
        if private is None:
            raise KeyRefused("Pin key does not exists")
        sources = []
        for row in rows:
            with self._opened(row, private) as reader:
                file, source = self._sender.spool(guid, row.full_filename)
                with file:
                    for offset in range(0, row.size, _CHUNK):
                        file.write(await in_thread(reader.read, offset, _CHUNK))
                    file.flush()
                    await in_thread(os.fsync, file.fileno())
            sources.append(source)
        return sources

    @contextmanager
    def _opened(self, row: StoredFile, private: bytes) -> Iterator[Reader]:
        key = vault.open_with(private, row.sealed, row.id)
        reader = Reader(self._folder.path(row.id), key, row.id, row.size)
        try:
            yield reader
        finally:
            reader.close()
