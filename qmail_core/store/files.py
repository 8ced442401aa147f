"""What the file-transfer API remembers: tokens, PINs, keys, sealed files, uploads, downloads, and its view of mail.

The rules of `store.base` hold: a coroutine that returned is durable and was one transaction; plain calls read. A method
that takes a user touches only that user's rows. Secrets come as SHA-256 or wrapped, never as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from qmail_core.model import Address, DownloadRow, Listing, MessageState, SentRow, StoredFile, Token
from qmail_core.store.when import FOREVER


class VaultRow(Struct, frozen=True, kw_only=True):
    """A user's key pair, the private half locked by the PIN."""

    user: int
    public: bytes
    salt: bytes
    cost: int
    wrapped: bytes


class UploadRow(Struct, frozen=True, kw_only=True):
    """An upload under way: what of it survives a crash."""

    id: bytes
    user: int
    token: int
    name: str
    type: str
    length: int | None
    size: int
    segments: int
    tail: bytes
    wrapped: bytes
    expires_at: int


class OpenedRow(Struct, frozen=True, kw_only=True):
    """A received mail that was opened, and whose sender is to be told."""

    guid: bytes
    denomination: int
    serial: int
    opened_at: int  # 0: just now
    tries: int


class FileStore(Protocol):
    """Everything behind the file-transfer API."""

    # ------------------------------------------------------------------ tokens
    async def add_token(self, user: int, name: str, digest: bytes, now: int) -> Token: ...
    def token(self, digest: bytes) -> Token | None: ...
    def tokens(self) -> list[Token]: ...
    async def drop_token(self, token: int) -> list[bytes]:
        """NotFound if there is none; returns the ids of uploads that can not go on without it."""
        ...

    def person(self, user: int) -> tuple[str, str]:
        """(user name, name) of a user."""
        ...

    def room(self, user: int, quota: int) -> int | None:
        """Bytes a user may still add, below 0 for too many; None: no limit.

        The user's own quota is for messages, files and what uploads have said they bring; `quota`, which holds for
        users without one unless it is 0, for files and uploads alone.
        """
        ...

    # ------------------------------------------------------------------ PIN
    def vault(self, user: int) -> VaultRow | None: ...
    async def set_vault(self, row: VaultRow, *, new: bool) -> None:
        """Set the PIN; with `new`, Conflict if there is one. Keys the old one gave end."""
        ...

    async def begin_guess(self, user: int, now: int, window: int, most: int) -> int:
        """Count a PIN that is about to be tried; 0, or after `most` in `window` seconds how long to wait."""
        ...

    async def forget_guesses(self, user: int) -> None: ...
    async def add_pin_key(self, user: int, digest: bytes, wrapped: bytes, now: int, expires_at: int) -> None: ...
    def pin_key(self, user: int, digest: bytes, now: int) -> bytes | None:
        """What is wrapped under a key that has not expired."""
        ...

    async def drop_pin_key(self, user: int, digest: bytes) -> None:
        """NotFound if there is none."""
        ...

    # ------------------------------------------------------------------ files
    async def add_files(self, files: Iterable[StoredFile], quota: int) -> None:
        """Add files of one user, all or none; QuotaError as in `room`."""
        ...

    def file(self, user: int, file: bytes) -> StoredFile: ...
    def files(self, user: int, listing: Listing) -> tuple[list[StoredFile], int]:
        """A page and how many there are in all; sorts: filename, size, encrypted_size, created_at."""
        ...

    async def change_file(
        self, user: int, file: bytes, *, name: tuple[str, str] | None = None, trashed: bool | None = None
    ) -> StoredFile: ...
    async def drop_file(self, user: int, file: bytes) -> None: ...
    def known_files(self) -> set[bytes]:
        """Ids of all files and uploads: what may lie in the folder."""
        ...

    # ------------------------------------------------------------------ uploads
    async def add_upload(self, row: UploadRow, quota: int) -> None:
        """QuotaError as in `room`, if its length is known."""
        ...

    def upload(self, token: int, upload: bytes) -> UploadRow: ...
    async def save_upload(self, row: UploadRow, quota: int | None = None) -> None:
        """How far it has come; NotFound if it has gone meanwhile, QuotaError as in `room`; None: it has its room."""
        ...

    async def finish_upload(self, file: StoredFile, quota: int | None = None) -> None:
        """The upload of this id becomes a file; raises as `save_upload` does."""
        ...

    async def drop_upload(self, upload: bytes) -> None: ...
    async def expire_uploads(self, now: int, busy: Collection[bytes] = ()) -> list[bytes]:
        """Forget those that are over, but for the busy ones; returns their ids."""
        ...

    # ------------------------------------------------------------------ downloads
    async def add_download(self, row: DownloadRow) -> None:
        """Also forgets downloads and keys that have been over for a day."""
        ...

    def download(self, download: bytes) -> DownloadRow | None: ...
    async def end_download(self, download: bytes, why: str) -> bool:
        """End it and its keys; whether it was not over before."""
        ...

    async def add_download_key(self, digest: bytes, download: bytes, wrapped: bytes, expires_at: int) -> None: ...
    def download_key(self, digest: bytes, download: bytes, now: int) -> bytes | None:
        """What is wrapped under a key of a download that has not expired."""
        ...

    # ------------------------------------------------------------------ mail
    def received(self, user: int, listing: Listing) -> tuple[list[MessageState], int]:
        """Received mail outside trash, junk and drafts; sorts: subject, created_by_email, received_at."""
        ...

    def sent(self, listing: Listing) -> tuple[list[SentRow], int]:
        """Sent mail of the engine's own user; sorts: subject, recipient_email, created_at, sent_at."""
        ...

    def sent_row(self, mail: bytes) -> SentRow: ...
    def sent_rows(self, guid: bytes) -> Sequence[SentRow]: ...
    async def mark_opened(self, guid: bytes, recipient: Address, at: int) -> bool:
        """A recipient of a sent mail has opened it; whether that is news."""
        ...

    def due_opened(self, now: int, limit: int, longest: int = FOREVER) -> list[OpenedRow]:
        """Received mails whose senders are to be told now that they were opened, oldest first.

        longest  seconds one waits at most, whatever clock put it off
        """
        ...

    async def put_off_opened(self, guid: bytes, at: int, due: int | None) -> None:
        """A sender could not be told: remember when the mail was opened, and try again; None: it is over."""
        ...
