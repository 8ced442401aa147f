"""Files kept for sending, their tokens, and downloads."""

from __future__ import annotations

from msgspec import Struct


class StoredFile(Struct, frozen=True, kw_only=True):
    """One uploaded file; its bytes lie sealed in the engine's folder."""

    id: bytes
    user: int
    filename: str  # without extension
    extension: str
    type: str
    size: int
    stored: int  # bytes on disk
    sha256: bytes
    crc32: int
    sealed: bytes  # its key, to the user's public key
    created_at: int
    trashed: bool = False

    @property
    def full_filename(self) -> str:
        """Name and extension."""
        return f"{self.filename}.{self.extension}" if self.extension else self.filename


class Token(Struct, frozen=True, kw_only=True):
    """A bearer token, without its text."""

    id: int
    user: int
    name: str
    created_at: int


class DownloadRow(Struct, frozen=True, kw_only=True):
    """A download somebody made."""

    id: bytes
    user: int
    files: tuple[bytes, ...]
    created_at: int
    expires_at: int
    ended: str = ""  # why it is over


class SentRow(Struct, frozen=True, kw_only=True):
    """One recipient of a sent mail."""

    id: bytes
    guid: bytes
    position: int
    subject: str
    recipient: str
    denomination: int
    serial: int
    created_at: int
    sent_at: int
    status: str
    opened_at: int = 0


class Listing(Struct, frozen=True, kw_only=True):
    """Which rows of a list, in which order."""

    keyword: str = ""
    sort: str = ""  # a name the list knows; empty is newest first
    descending: bool = False
    limit: int = 50
    offset: int = 0
    trashed: bool = False  # of files: the trash instead
