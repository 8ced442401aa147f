"""Who may speak to this port at all: pure ASGI middleware in front of every route (layers 1-4 and 6).

1 Host            exact allow list with ports, against DNS rebinding; 421
2 Sec-Fetch-Site  a browser's word that another site caused the request; 403
3 Origin          must be this server's own or listed; `null` never is; 403
4 token           `Authorization: Bearer`, unless compat_open was chosen (loopback, documented calls run unchanged); 401
6 CORS            headers and preflight for listed origins only

Rule: a request without any browser header passes 2 and 3, so curl and programs notice nothing.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Collection, Iterable

from msgspec import Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qmail_core.errors import ConfigError
from qmail_server.http.errors import Failed
from qmail_server.http.events import Tickets
from qmail_server.http.respond import failure

TRUSTED = "qmail.trusted"  # in a request's scope: "token" if it showed the server's own, "open" if none is asked for
# of a surface whose users have tokens of their own
OWN_TOKENS = ("/users", "/user", "/authenticate", "/addresses", "/webhooks")

_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    (
        b"access-control-allow-headers",
        b"Content-Type, Authorization, Idempotency-Key, X-Access-Token, Last-Event-ID, Range, If-Range, Tus-Resumable,"
        b" Upload-Length, Upload-Defer-Length, Upload-Offset, Upload-Metadata, Upload-Checksum, X-HTTP-Method-Override",
    ),
    (b"access-control-max-age", b"600"),
)
_EXPOSED = (
    b"access-control-expose-headers",
    b"Content-Disposition, Content-Length, X-QMail-Operation-Id, Location, Upload-Offset, Upload-Length,"
    b" Upload-Expires, Upload-Metadata, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size,"
    b" Tus-Checksum-Algorithm, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset",
)
_NOTHING = re.compile(r"(?!)")


class GuardSettings(Struct, frozen=True, kw_only=True):
    """What one port accepts."""

    hosts: frozenset[str]  # values of the Host header, lower case, with port; see hosts_for
    origins: frozenset[str] = frozenset()  # foreign origins that may read and write, such as http://localhost:5173
    token: str = ""
    compat_open: bool = False  # no token; only ever on loopback

    def __post_init__(self) -> None:
        if not self.token and not self.compat_open:
            raise ConfigError("an HTTP surface needs a token, or compat_open on loopback")
        if "null" in self.origins or "*" in self.origins:
            raise ConfigError("origins are listed by name: neither null nor * is one")


def hosts_for(port: int, *names: str) -> frozenset[str]:
    """The Host values of a loopback port, and of further names for it."""
    hosts = {f"{name.lower()}:{port}" for name in ("localhost", "127.0.0.1", "[::1]", *names)}
    if port == 80:  # clients leave the default port out
        hosts |= {host.rpartition(":")[0] for host in hosts}
    return frozenset(hosts)


class Guard:
    """Refuses what the layers forbid; adds CORS headers for listed origins.

    pages       paths that show a page: reachable by links from anywhere and without a token; they hold no data
    readable    paths without effects: reachable from the address bar
    streams     paths that `?ticket=` opens instead of a token: a browser's EventSource cannot send one
    apart       paths whose routes ask for a token of their own, in any case
    links       paths that a link from anywhere may open: what they ask for is in the link
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: GuardSettings,
        *,
        pages: Collection[str] = (),
        readable: Collection[str] = (),
        streams: Collection[str] = (),
        tickets: Tickets | None = None,
        apart: re.Pattern[str] = _NOTHING,
        links: re.Pattern[str] = _NOTHING,
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.encode() for host in settings.hosts)
        self._origins = frozenset(origin.encode() for origin in settings.origins)
        self._token = b"" if settings.compat_open else settings.token.encode()
        self._bearer = b"Bearer " + self._token  # as nearly everybody writes it
        self._pages = frozenset(pages)
        self._readable = frozenset(readable) | self._pages
        self._streams = frozenset(streams)
        self._tickets = tickets
        self._apart = apart
        self._links = links

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if len(headers) != len(scope["headers"]):
            headers = _joined(scope["headers"])
        try:
            host = headers.get(b"host", b"").lower()
            if host not in self._hosts:
                raise Failed(421, "Misdirected request: this server does not answer for that host")
            origin = headers.get(b"origin")
            if origin is not None and origin in self._origins:
                send = _with_cors(send, origin)
                if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                    return _preflight(send)
            elif origin is not None and origin != scope["scheme"].encode() + b"://" + host:
                raise Failed(403, "Requests from this origin are not allowed")
            elif b"sec-fetch-site" in headers:
                self._check_site(headers, scope["path"])
            self._check_token(headers, scope)
        except Failed as refusal:
            return failure(refusal)(scope, receive, send)
        return self._app(scope, receive, send)

    def _check_site(self, headers: dict[bytes, bytes], path: str) -> None:
        site = headers[b"sec-fetch-site"]
        if site == b"same-origin":
            return
        navigation = headers.get(b"sec-fetch-mode") == b"navigate"
        if site == b"none" and (not navigation or path in self._readable):
            return
        if navigation and (path in self._pages or self._links.fullmatch(path)):
            return
        raise Failed(403, "Requests from another site are not allowed")

    def _check_token(self, headers: dict[bytes, bytes], scope: Scope) -> None:
        if not self._token:
            scope[TRUSTED] = "open"
            return
        given = headers.get(b"authorization", b"")
        if hmac.compare_digest(given, self._bearer) or self._is_token(given):
            scope[TRUSTED] = "token"
        elif not (scope["path"] in self._pages or self._has_ticket(scope) or self._asks_itself(scope["path"])):
            raise Failed(401, "A valid bearer token is required", headers={"WWW-Authenticate": "Bearer"})

    def _is_token(self, given: bytes) -> bool:
        """Whether this is the token, the scheme's name in any case."""
        scheme, _, token = given.partition(b" ")
        return hmac.compare_digest(token.strip(), self._token) and scheme.lower() == b"bearer"

    def _asks_itself(self, path: str) -> bool:
        """Whether the routes of a path ask for a token of their own."""
        return path.startswith(OWN_TOKENS) or self._apart.fullmatch(path) is not None

    def _has_ticket(self, scope: Scope) -> bool:
        if self._tickets is None or scope["path"] not in self._streams:
            return False
        word, _, ticket = scope["query_string"].partition(b"=")
        return word == b"ticket" and self._tickets.redeem(ticket)


def _joined(given: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Of a repeated header nobody can say which one counts; joined, it matches nothing."""
    headers: dict[bytes, bytes] = {}
    for name, value in given:
        headers[name] = headers[name] + b"," + value if name in headers else value
    return headers


async def _preflight(send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": list(_PREFLIGHT)})
    await send({"type": "http.response.body", "body": b""})


def _with_cors(send: Send, origin: bytes) -> Send:
    headers = ((b"access-control-allow-origin", origin), (b"vary", b"Origin"), _EXPOSED)

    def sender(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        return send(message)

    return sender
