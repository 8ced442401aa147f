"""Parts of files: what a Range header asks for, and files that are answered whole or in part."""

from __future__ import annotations

import mimetypes
import os
import re

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from qmail_server.http.errors import Failed
from qmail_server.http.respond import disposition, failure

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


def range_of(text: str, size: int) -> tuple[int, int] | None:
    """The bytes a Range header asks for, as [start, stop); None for all of them.

    What is no range, or several, is passed over, as RFC 9110 14.2 allows. Failed 416 for one behind the end.
    """
    match = _RANGE.fullmatch(text)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= stop:
        limits = {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
        raise Failed(416, "The requested range is not in the file.", headers=limits)
    return start, stop


class Attachment(FileResponse):
    """A file as a download that no browser will run or guess the type of."""

    def __init__(self, path: str, name: str, operation: str) -> None:
        stat = os.stat(path)
        self._size = stat.st_size
        headers = {
            "content-disposition": disposition(name),
            "x-content-type-options": "nosniff",
            "content-security-policy": "sandbox; default-src 'none'",
            "cache-control": "no-store",
            "x-qmail-operation-id": operation,
        }
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        super().__init__(path, media_type=kind, headers=headers, stat_result=stat)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # what FileResponse says to ranges it cannot serve is no answer of this interface
        headers = Headers(scope=scope)
        same = headers.get("if-range") in (None, self.headers["etag"], self.headers["last-modified"])
        try:
            wanted = range_of(headers.get("range", ""), self._size) if same else None
        except Failed as error:
            await failure(error)(scope, receive, send)
            return
        if wanted is None:
            scope = {**scope, "headers": [item for item in scope["headers"] if item[0] != b"range"]}
        await super().__call__(scope, receive, send)
