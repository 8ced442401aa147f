"""The bytes of a download as an answer: ranges, resuming, and the care that only a whole fetch uses a download up.

A server learns of a lost connection only when it looks: after every chunk, before the next is counted. What a
connection has taken and the client never got cannot be told apart from what it got.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

from starlette.types import Receive, Scope, Send

from qmail_core.engine.files.downloads import Opened
from qmail_core.errors import QMailError
from qmail_server.http.errors import TRANSFER, Failed
from qmail_server.http.params import ClientGone
from qmail_server.http.ranges import range_of
from qmail_server.http.respond import Call, disposition, failure
from qmail_server.http.transfer.given import header

_AHEAD = re.compile(r"prefetch|prerender|preview", re.I)
_PREVIEWERS = re.compile(
    r"facebookexternalhit|slackbot|twitterbot|whatsapp|telegrambot|discordbot|linkedinbot|skypeuripreview|embedly", re.I
)


def is_preview(scope: Scope) -> bool:
    """Whether nobody has asked for the bytes yet: a browser fetches ahead, or a chat shows what a link leads to."""
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        if name in (b"purpose", b"sec-purpose", b"x-purpose", b"x-moz") and _AHEAD.search(text):
            return True
        if name == b"user-agent" and _PREVIEWERS.search(text):
            return True
    return False


class Bytes:
    """Answers with a download, or the part a Range header asks for."""

    def __init__(self, call: Call, opened: Opened) -> None:
        self._opened = opened
        self._downloads = call.engine.transfer.downloads
        self._client = call.scope["client"][0] if call.scope.get("client") else ""
        size = opened.content.size
        same = header(call, b"if-range") in ("", opened.etag)
        try:
            wanted = range_of(header(call, b"range"), size) if same else None
        except Failed:
            opened.content.close()
            raise
        self._start, self._stop = wanted or (0, size)
        self._status = 200 if wanted is None else 206

    def _headers(self) -> list[tuple[bytes, bytes]]:
        opened = self._opened
        found = {
            "content-type": opened.content.type,
            "content-disposition": disposition(opened.content.name),
            "content-length": str(self._stop - self._start),
            "accept-ranges": "bytes",
            "etag": opened.etag,
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "content-security-policy": "sandbox; default-src 'none'",
            "referrer-policy": "no-referrer",
            "x-robots-tag": "noindex",
        }
        if self._status == 206:
            found["content-range"] = f"bytes {self._start}-{self._stop - 1}/{opened.content.size}"
        return [(name.encode(), value.encode("latin-1", "replace")) for name, value in found.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            self._opened.content.close()
            await self._begin(send)
            await send({"type": "http.response.body", "body": b""})
            return
        reading = self._downloads.read(self._opened, self._start, self._stop, self._client)
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await self._send(reading, gone, scope, receive, send)
        finally:
            gone.cancel()
            await reading.aclose()
            self._opened.content.close()

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers()})

    async def _send(
        self,
        reading: AsyncGenerator[bytes, None],
        gone: asyncio.Future[None],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            part: bytes | None = await anext(reading)
        except QMailError as error:  # nothing is out yet, so it can be said
            await failure(error, TRANSFER)(scope, receive, send)
            return
        await self._begin(send)
        while part is not None:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)  # a lost connection is heard of now
            if gone.done():
                raise ClientGone
            part = await anext(reading, None)
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
