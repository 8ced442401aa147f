"""What this API shows of its resources. Key order is that of its documents."""

from __future__ import annotations

import hashlib
import time
import uuid
from typing import Any

from qmail_core.engine.files.library import Person
from qmail_core.model import StoredFile, Token

_UNITS = ("B", "KB", "MB", "GB", "TB")


def identity(raw: bytes) -> str:
    """An id as a UUID."""
    return str(uuid.UUID(bytes=raw))


def identifier(raw: bytes) -> str:
    """The short name of a mail: four letters and digits."""
    return raw[:2].hex().upper()


def moment(seconds: int) -> str:
    """A time in UTC; the empty text for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) if seconds else ""


def human(size: int) -> str:
    """A size in the largest unit it fills, to two decimals; 1024 bytes are 1.00 KB."""
    value, unit = float(size), 0
    while round(value, 2) >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.2f} {_UNITS[unit]}"


def person(who: Person) -> dict[str, Any]:
    """Who made or gets something; initials are the first name and the first letter of the last."""
    words = who.name.split()
    initials = f"{words[0]} {words[-1][0]}." if len(words) > 1 else who.name
    return {"name": who.name, "initials": initials, "email": who.email, "photo_url": "", "timezone": "UTC"}


def _sizes(size: int, stored: int) -> dict[str, Any]:
    return {
        "size": size,
        "formatted_size": human(size),
        "encrypted_size": stored,
        "formatted_encrypted_size": human(stored),
    }


def file(row: StoredFile, owner: Person) -> dict[str, Any]:
    """An uploaded file."""
    return {
        "id": identity(row.id),
        "filename": row.filename,
        "type": row.type,
        "extension": row.extension,
        "full_filename": row.full_filename,
        **_sizes(row.size, row.stored),
        "created_by": person(owner),
        "created_at": moment(row.created_at),
        "disk": "local",
        "trashed": row.trashed,
        "checksum": row.sha256.hex(),
    }


def mail_file(mail: bytes, position: int, name: str, kind: str, size: int, who: Person, at: int) -> dict[str, Any]:
    """A file of a mail: its bytes are in the network, in stripes."""
    stem, dot, extension = name.rpartition(".")
    stem, extension = (stem, extension) if stem and dot else (name, "")
    return {
        "id": identity(hashlib.sha256(mail + bytes((position,))).digest()[:16]),
        "filename": stem,
        "type": kind,
        "extension": extension,
        "full_filename": name,
        **_sizes(size, size),
        "created_by": person(who),
        "created_at": moment(at),
        "disk": "raida",
        "trashed": False,
        "checksum": "",
    }


def token(row: Token) -> dict[str, Any]:
    """A token without its text."""
    return {"id": row.id, "name": row.name, "created_at": moment(row.created_at)}
