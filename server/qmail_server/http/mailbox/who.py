"""Who asks, and whose mail it is about.

The guard in front says how far a request is trusted: it came with this server's own token, or the server is open on
loopback. A request that shows an access token of a user speaks for that user and nobody else, trusted or not.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from qmail_core.engine.accounts import Origin
from qmail_server.http.errors import Failed
from qmail_server.http.guard import TRUSTED
from qmail_server.http.respond import Call

_SPEAKER = "qmail.speaker"  # in a request's scope: the user of the access token it shows


def speaker(call: Call) -> bytes | None:
    """The user a request speaks for; None: all of them. InvalidToken if it shows nothing that is good."""
    trusted = call.scope.get(TRUSTED, "")
    if trusted == "token":
        return None
    text = token_of(call)
    if not text and trusted == "open":
        return None
    if not text:
        raise Failed(403, "Invalid accessToken value", code="InvalidToken")
    if _SPEAKER not in call.scope:  # asked before a body is read, and again of whom the path is about
        call.scope[_SPEAKER] = call.engine.accounts.tokens.verify(text).token.user
    user: bytes | None = call.scope[_SPEAKER]
    return user


def token_of(call: Call) -> str:
    """The access token a request shows, wherever it does."""
    headers = dict(call.scope["headers"])
    shown: bytes = headers.get(b"x-access-token", b"")
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    if not shown and scheme.lower() == b"bearer":
        shown = bearer.strip()
    if shown:
        return shown.decode("latin-1")
    query: str = call.scope["query_string"].decode("latin-1")
    return parse_qs(query).get("accessToken", [""])[0]


def user_of(call: Call, oid: bytes) -> int:
    """The number of a user, if the request may speak for that one; NotFound if there is none."""
    allowed = speaker(call)
    if allowed not in (None, oid):
        raise missing_privileges()
    return call.engine.mailboxes.user(oid)


def for_all(call: Call) -> None:
    """Refuse who speaks for one user only."""
    if speaker(call) is not None:
        raise missing_privileges()


def me(call: Call) -> bytes:
    """The user whose token it is."""
    allowed = speaker(call)
    if allowed is None:
        raise Failed(404, "This user does not exist", code="UserNotFound")
    return allowed


def missing_privileges() -> Failed:
    """The answer to who asks about others."""
    return Failed(403, "Not enough privileges", code="MissingPrivileges")


def origin(found: dict[str, object]) -> Origin:
    """Where the request says it comes from."""
    return Origin(ip=str(found.get("ip") or ""), session=str(found.get("sess") or ""))
