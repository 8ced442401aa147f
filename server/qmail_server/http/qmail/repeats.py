"""Requests that may be repeated: the key a client names one by, and a digest of everything the request says."""

from __future__ import annotations

import asyncio
import hashlib
import re

from qmail_core.errors import UsageError
from qmail_core.model import RequestKey
from qmail_server.http.respond import Call

_HEADER = b"idempotency-key"
_NAME = "idempotency_key"
_KEY = re.compile(r"[!-~]{1,255}")
_ASIDE = frozenset((_NAME, "debug"))  # parameters that change nothing about what is asked


def has_key(call: Call) -> bool:
    """Whether this request may be a repetition."""
    return bool(_text(call))


async def key_of(call: Call, command: str) -> RequestKey | None:
    """The key of a request, or None; reads the files that came along."""
    text = _text(call)
    if not text:
        return None
    if not _KEY.fullmatch(text):
        raise UsageError("Invalid idempotency_key (1 to 255 visible ASCII characters)")
    digest = hashlib.sha256(command.encode())
    said = [(name, values) for name, values in call.params.items() if name not in _ASIDE]
    digest.update(repr(sorted(said)).encode())
    for source in call.params.files:
        digest.update(repr((source.name, await asyncio.to_thread(_file, source.path))).encode())
    return RequestKey(text, digest.digest())


def _text(call: Call) -> str:
    headers = [value.decode("latin-1").strip() for name, value in call.scope["headers"] if name == _HEADER]
    if len(headers) > 1:
        raise UsageError("Idempotency-Key stands in more than one header")  # nobody can say which one counts
    return (headers[0] if headers else "") or call.params.text(_NAME).strip()


def _file(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
