"""The pages of a port, and the document of its interface: the same for everybody, so nobody needs a token for them.

Each page is one file whose inline script and style are allowed by their hashes, so nothing else on it ever runs.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from starlette.responses import Response
from starlette.types import ASGIApp

from qmail_server.http import openapi
from qmail_server.http.describe import Facts, Surface
from qmail_server.http.paths import Endpoint
from qmail_server.http.respond import Call, Route

_FOLDER = Path(__file__).parent / "page"
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-cache"}


async def home(call: Call) -> ASGIApp:
    """The page of this mailbox."""
    return _page("index.html")


async def docs(call: Call) -> ASGIApp:
    """The document of this interface, to read and to try."""
    return _page("docs.html")


TYPED = [Route("/docs/", docs, effects=False)]  # as people type it; the document has the one name


def surface(others: Sequence[Surface]) -> Surface:
    """The pages, and the document of the other surfaces and of these pages."""
    made: list[Response] = []

    async def document(call: Call) -> ASGIApp:
        """This document."""
        known = [value for name, value in call.scope["headers"] if name == b"if-none-match"]
        tag = made[0].headers["etag"]
        if any(tag.encode() in value for value in known):
            return Response(status_code=304, headers={"etag": tag, **_HEADERS})
        return made[0]

    endpoints: dict[str, Endpoint] = {"/": home, "/docs": docs, "/openapi.json": document}
    own = Surface(
        name="pages",
        about="What a browser may open; no token is needed",
        routes=[Route(path, endpoint, effects=False) for path, endpoint in endpoints.items()],
        facts={
            home: Facts(media="text/html"), docs: Facts(media="text/html"), document: Facts(media="application/json"),
        },
        security=(),
    )  # fmt: skip
    body = openapi.encode([*others, own])
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"etag": tag, "content-security-policy": "default-src 'none'; frame-ancestors 'none'", **_HEADERS}
    made.append(Response(body, media_type="application/json", headers=headers))
    return own


@functools.cache
def _page(name: str) -> Response:
    html = (_FOLDER / name).read_text(encoding="utf-8")
    sources = {kind: _hash(text) for kind, text in _INLINE.findall(html)}
    policy = (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Response(html, media_type="text/html", headers={"content-security-policy": policy, **_HEADERS})


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
