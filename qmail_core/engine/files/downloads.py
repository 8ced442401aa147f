"""Downloads: made by hand for one minute and one use, or belonging to a received mail for as long as it is there.

A download key opens the byte fetch and nothing else. It is made with a temporary key, because the keys of the files are
wrapped under it: neither the store nor an API token can open a file alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence

from msgspec import Struct

from qmail_core.codec import vault
from qmail_core.engine.context import Context
from qmail_core.engine.files.content import Ahead, Content, Named, OnDisk, type_of
from qmail_core.engine.files.disk import Folder, Reader, in_thread, to_the_end
from qmail_core.engine.files.leases import Lease, Leases
from qmail_core.engine.files.pins import Pins
from qmail_core.engine.files.tokens import KEY_LENGTH, Owner, digest, drawn, new_id
from qmail_core.engine.letters import Letters
from qmail_core.engine.receive import Receiver
from qmail_core.errors import Forbidden, Gone, NotFound, UsageError
from qmail_core.model import DownloadRow, StoredFile

LIFE = 60  # seconds of a download made by hand
MAIL_KEY_LIFE = 3600  # seconds of a key to a received mail's download
MAX_FILES = 1000
CHUNK = 512 * 1024
_REASONS = {
    "used": "This download has been used.",
    "expired": "This download has expired.",
    "deleted": "This download has been deleted.",
}


class KeyRefused(UsageError):
    """This is no temporary key, or no longer."""

    code = "wrong_key"


class Opened(Struct):
    """A download somebody has the key of."""

    id: bytes
    content: Content
    single_use: bool
    etag: str


class DownloadKey(Struct, frozen=True):
    """What opens one download."""

    key: str
    expires_at: int

    def __repr__(self) -> str:
        return f"DownloadKey(until {self.expires_at})"


class Downloads:
    """The downloads of one engine."""

    def __init__(self, ctx: Context, folder: Folder, pins: Pins, receiver: Receiver, letters: Letters) -> None:
        self._ctx = ctx
        self._store = ctx.store.files
        self._folder = folder
        self._pins = pins
        self._receiver = receiver
        self._letters = letters
        self._leases = Leases()

    # ---------------------------------------------------------------------------------------------- records

    async def create(self, owner: Owner, files: Sequence[bytes]) -> DownloadRow:
        """Make a download of files; NotFound if one is not the owner's or lies in the trash."""
        if not 1 <= len(files) <= MAX_FILES:
            raise UsageError(f"A download has 1 to {MAX_FILES} files.")
        if any(self._store.file(owner.user, file).trashed for file in files):
            raise NotFound("File not found.")
        self._forget_idle()
        now = self._ctx.now()
        row = DownloadRow(
            id=new_id(self._ctx.entropy), user=owner.user, files=tuple(files), created_at=now, expires_at=now + LIFE
        )
        await self._store.add_download(row)
        return row

    def get(self, owner: Owner, download: bytes) -> DownloadRow:
        """A download made by hand; NotFound, or Gone with the reason."""
        row = self._store.download(download)
        if row is None or row.user != owner.user:
            raise NotFound("Download not found.")
        self._check(row)
        return row

    def files(self, row: DownloadRow) -> list[StoredFile]:
        """The files of a download."""
        return [self._store.file(row.user, file) for file in row.files]

    async def delete(self, owner: Owner, download: bytes) -> None:
        """End a download."""
        await self._store.end_download(self.get(owner, download).id, "deleted")

    def _check(self, row: DownloadRow) -> None:
        ended = row.ended or ("expired" if row.expires_at <= self._ctx.now() else "")
        if ended:
            raise Gone(_REASONS[ended])

    def _forget_idle(self) -> None:
        for download in self._leases.known():
            row = self._store.download(download)
            if row is None or row.ended or row.expires_at <= self._ctx.now():
                self._leases.end(download)

    # ---------------------------------------------------------------------------------------------- keys

    async def make_key(self, owner: Owner, download: bytes, pin_key: str) -> DownloadKey:
        """The key of a download; KeyRefused for a temporary key that is none."""
        row = self._store.download(download)
        files: list[StoredFile] = []
        if row is None:
            # a received mail's download has the mail's id
            self._ctx.store.mailboxes.by_email_id(owner.user, download)
            expires_at = self._ctx.now() + MAIL_KEY_LIFE
        else:
            row = self.get(owner, download)
            files, expires_at = self.files(row), row.expires_at
        private = self._pins.private(owner, pin_key)
        if private is None:
            raise KeyRefused("Pin key does not exists")
        secrets = b"".join(vault.open_with(private, file.sealed, file.id) for file in files)
        key = drawn(self._ctx.entropy, KEY_LENGTH)
        wrapped = vault.wrap(key.encode(), self._ctx.entropy(vault.NONCE), secrets, b"download key")
        await self._store.add_download_key(digest(key), download, wrapped, expires_at)
        return DownloadKey(key, expires_at)

    # ---------------------------------------------------------------------------------------------- bytes

    async def open(self, download: bytes, key: str) -> Opened:
        """What a key opens; close its content. NotFound, Gone with a reason, Forbidden for a wrong key."""
        await self._leases.settled(download)
        row = self._store.download(download)
        if row is not None:
            self._check(row)
        wrapped = self._store.download_key(digest(key), download, self._ctx.now())
        secrets = None if wrapped is None else vault.unwrap(key.encode(), wrapped, b"download key")
        if secrets is None:
            raise Forbidden("Download key does not exists")
        named = self._named(self.files(row), secrets) if row is not None else await self._attached(download)
        content = Content(named, f"download-{download.hex()[:8]}.zip")
        mark = digest(f"{download.hex()}:{[(file.name, file.data.size, file.crc32) for file in named]}")
        return Opened(download, content, row is not None, f'"{mark.hex()[:32]}"')

    def _named(self, files: Sequence[StoredFile], secrets: bytes) -> list[Named]:
        named: list[Named] = []
        try:
            for position, file in enumerate(files):
                key = secrets[position * vault.KEY : (position + 1) * vault.KEY]
                reader = Reader(self._folder.path(file.id), key, file.id, file.size)
                named.append(Named(file.full_filename, file.type, file.crc32, reader))
        except BaseException:
            for one in named:
                one.data.close()
            raise
        return named

    async def _attached(self, message_id: bytes) -> list[Named]:
        """The attachments of a received mail, fetched from the network if they are not here."""
        rows = self._ctx.store.mail.attachments(message_id)
        if not rows:
            raise NotFound("This mail has no files.")
        named: list[Named] = []
        try:
            for row in rows:
                fetched = await self._receiver.attachment(message_id, row.id, fetch=True)
                if fetched.mode == 0:  # within a message that came by the ordinary way
                    fetched = await self._letters.save(fetched)
                file = OnDisk(fetched.path)
                named.append(Named(row.name, type_of(row.name), 0, file))
                if len(rows) > 1:
                    named[-1].crc32 = await in_thread(file.crc32)
        except BaseException:
            for one in named:
                one.data.close()
            raise
        return named

    async def read(self, opened: Opened, first: int, stop: int, client: str) -> AsyncGenerator[bytes, None]:
        """Bytes [first, stop) of a download, in at least one chunk.

        A single-use download ends when its last missing byte was taken. Close the generator when the client has gone.
        The next chunks are read and opened in threads while one is on its way.
        raises   Conflict while another request reads them, Gone when it has been used meanwhile
        """
        lease = await self._begin(opened, first, stop, client) if opened.single_use else None
        ahead = Ahead(opened.content, opened.content.cut(first, stop, CHUNK))
        try:
            if first == stop:
                yield b""
            while part := await ahead.next():
                yield part
                if lease is not None:
                    lease.take(len(part))
            if lease is None:
                await self._opened(opened.id)
            elif self._leases.finish(lease):
                await self._store.end_download(opened.id, "used")
                self._leases.end(opened.id)
        finally:
            if lease is not None:
                self._leases.drop(lease)
            try:
                await to_the_end(ahead.close())  # no thread may read what is closed
            finally:
                opened.content.close()

    async def _opened(self, mail: bytes) -> None:
        """Who has taken a mail's files has opened it."""
        with contextlib.suppress(NotFound):
            if not self._ctx.store.mail.message_of(mail).is_read:
                await self._ctx.store.mail.set_read(mail, True, self._ctx.now())

    async def _begin(self, opened: Opened, start: int, stop: int, client: str) -> Lease:
        await self._leases.settled(opened.id)
        row = self._store.download(opened.id)  # no await from here on: what is read is what is decided on
        if row is None:
            raise NotFound("Download not found.")
        self._check(row)
        return self._leases.begin(opened.id, opened.content.size, start, stop, client)
