"""Uploads that stop and go on: tus 1.0.0 with creation, creation-with-upload, creation-defer-length, expiration,
checksum and termination. https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from email.utils import formatdate
from typing import Any, ClassVar

from starlette.responses import Response

from qmail_core.engine.files.tokens import Owner
from qmail_core.engine.files.uploads import MAX_SIZE, Appending
from qmail_core.errors import NotFound, UsageError
from qmail_server.http.errors import Failed, TransferDialect
from qmail_server.http.params import ClientGone, chunks, file_name
from qmail_server.http.paths import Endpoint
from qmail_server.http.respond import Call
from qmail_server.http.transfer import schema
from qmail_server.http.transfer.given import header, owner_of, path_id

PATH = "/api/files/tus"
VERSION = "1.0.0"
_DIGESTS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}
_ABOUT = {
    "Tus-Version": VERSION,
    "Tus-Extension": "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination",
    "Tus-Max-Size": str(MAX_SIZE),
    "Tus-Checksum-Algorithm": ",".join(_DIGESTS),
}
_SILENCE = 30.0  # seconds
_OFFSET = "application/offset+octet-stream"
_MISMATCH = 460  # what tus answers when a checksum does not fit


class TusDialect(TransferDialect):
    """Refusals name the version as well."""

    headers: ClassVar = ((b"tus-resumable", VERSION.encode()),)


DIALECT = TusDialect({}, {})


def spoken(endpoint: Callable[[Call, Owner], Awaitable[Response]]) -> Endpoint:
    """An endpoint for clients that speak this version of tus and have a token."""

    @functools.wraps(endpoint)
    async def checked(call: Call) -> Response:
        owner = owner_of(call)
        if header(call, b"tus-resumable") != VERSION:
            raise Failed(412, "This version of tus is not spoken here.", headers=_ABOUT)
        return await endpoint(call, owner)

    return checked


async def about(call: Call) -> Response:
    """What of tus is spoken here."""
    return _answer(204, **_ABOUT)


async def create(call: Call, owner: Owner) -> Response:
    """Begin an upload; bytes may come along."""
    length = _length(call)
    if length is None and header(call, b"upload-defer-length") != "1":
        raise UsageError("Upload-Length or Upload-Defer-Length is needed.")
    meta = _metadata(header(call, b"upload-metadata"))
    name, kind = file_name(meta.get("filename") or meta.get("name") or "file"), meta.get("filetype", "")
    uploads = call.engine.transfer.uploads
    row = await uploads.create(owner, name, kind if kind.isprintable() and len(kind) < 128 else "", length)
    place = {"Location": f"{PATH}/{schema.identity(row.id)}"}
    offset, expires = 0, row.expires_at
    if header(call, b"content-type") == _OFFSET and length != 0:
        async with uploads.append(owner, row.id, 0) as adding:
            await _take(call, adding)
        offset, expires = adding.row.size, adding.row.expires_at
    return _answer(201, **place, **{"Upload-Offset": str(offset), "Upload-Expires": formatdate(expires, usegmt=True)})


async def look(call: Call, owner: Owner) -> Response:
    """How far an upload is."""
    upload = path_id(call, "Upload")
    try:
        row = call.engine.transfer.uploads.get(owner, upload)
    except NotFound:
        size = call.engine.transfer.library.get(owner, upload).size  # it is a file by now
        return _answer(200, **{"Upload-Offset": str(size), "Upload-Length": str(size)})
    known = {"Upload-Defer-Length": "1"} if row.length is None else {"Upload-Length": str(row.length)}
    expires = formatdate(row.expires_at, usegmt=True)
    return _answer(200, **known, **{"Upload-Offset": str(row.size), "Upload-Expires": expires})


async def add(call: Call, owner: Owner) -> Response:
    """Bytes at an offset, on disk when this is answered."""
    if header(call, b"content-type") != _OFFSET:
        raise UsageError(f"The content type must be {_OFFSET}.", hint=415)
    offset = _number(header(call, b"upload-offset"))
    if offset is None:
        raise UsageError("Upload-Offset is needed.")
    upload = path_id(call, "Upload")
    async with call.engine.transfer.uploads.append(owner, upload, offset, _length(call)) as adding:
        await _take(call, adding)
    headers = {"Upload-Offset": str(adding.row.size)}
    if adding.done is None:
        headers["Upload-Expires"] = formatdate(adding.row.expires_at, usegmt=True)
    return _answer(204, **headers)


async def _take(call: Call, adding: Appending) -> None:
    """The body of a request; what came before a connection broke is kept, unless a checksum is to vouch for it."""
    algorithm, wanted = _checksum(header(call, b"upload-checksum"))
    adding.atomic = algorithm is not None
    found = algorithm() if algorithm is not None else None
    try:
        async for chunk in _chunks(call):
            if found is not None:
                found.update(chunk)
            await adding.write(chunk)
    except ClientGone:
        if found is None:
            await adding.commit()
        raise
    if found is not None and not hmac.compare_digest(found.digest(), wanted):
        raise Failed(_MISMATCH, "The checksum does not fit.")


async def _chunks(call: Call) -> AsyncIterator[bytes]:
    """A body; whoever is silent for too long has gone, and does not keep others from the upload."""
    source = chunks(call.receive)
    while True:
        try:
            async with asyncio.timeout(_SILENCE):
                chunk = await anext(source, None)
        except TimeoutError:
            raise ClientGone from None
        if chunk is None:
            return
        yield chunk


async def terminate(call: Call, owner: Owner) -> Response:
    """Forget an upload."""
    await call.engine.transfer.uploads.terminate(owner, path_id(call, "Upload"))
    return _answer(204)


async def overridden(call: Call, owner: Owner) -> Response:
    """POST, for clients that can send nothing else."""
    verb = header(call, b"x-http-method-override")
    endpoint = {"PATCH": add, "DELETE": terminate, "HEAD": look}.get(verb)
    if endpoint is None:
        raise Failed(405, "POST needs X-HTTP-Method-Override here.", headers={"Allow": "HEAD, PATCH, DELETE"})
    return await endpoint(call, owner)


def _answer(status: int, **headers: str) -> Response:
    return Response(status_code=status, headers={"Tus-Resumable": VERSION, "Cache-Control": "no-store", **headers})


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None


def _length(call: Call) -> int | None:
    text = header(call, b"upload-length")
    found = _number(text)
    if text and found is None:
        raise UsageError("Upload-Length is not a number.")
    return found


def _metadata(text: str) -> Mapping[str, str]:
    """Pairs of a name and a base64 value, separated by commas."""
    found = {}
    for pair in text.split(",") if text else ():
        name, _, value = pair.strip().partition(" ")
        try:
            found[name] = base64.b64decode(value, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            raise UsageError("Upload-Metadata is not base64.") from None
    return found


def _checksum(text: str) -> tuple[Callable[[], Any] | None, bytes]:
    if not text:
        return None, b""
    name, _, value = text.partition(" ")
    if name not in _DIGESTS:
        raise UsageError("This checksum algorithm is not known here.")
    try:
        return _DIGESTS[name], base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("Upload-Checksum is not base64.") from None
