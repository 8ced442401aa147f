"""What a request gave, checked; every wrong field is reported, in the words of this API."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from qmail_core.engine.files.tokens import Owner
from qmail_core.errors import NotFound, UsageError
from qmail_server.http.errors import Failed
from qmail_server.http.params import MAX_PARAMETERS, json_of, whole
from qmail_server.http.paths import Endpoint
from qmail_server.http.respond import Call

INVALID = "The given data was invalid."


def header(call: Call, name: bytes) -> str:
    """A header, empty if it is not there; of a repeated one nobody can say which counts, so all are joined."""
    return ",".join(value.decode("latin-1") for key, value in call.scope["headers"] if key == name)


def owner_of(call: Call) -> Owner:
    """Who speaks, by the bearer token; Failed 401."""
    scheme, _, token = header(call, b"authorization").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise NotFound("")
        return call.engine.transfer.tokens.owner(token.strip())
    except NotFound:
        raise Failed(401, "Unauthenticated.", headers={"WWW-Authenticate": "Bearer"}) from None


def authorized(endpoint: Callable[[Call, Owner], Awaitable[Any]]) -> Endpoint:
    """An endpoint that only the bearer of a token reaches."""

    @functools.wraps(endpoint)
    async def checked(call: Call) -> Any:
        return await endpoint(call, owner_of(call))

    return checked


def invalid(**errors: str) -> Failed:
    """The answer to wrong fields."""
    return wrong({name.rstrip("_"): text for name, text in errors.items()})


def wrong(errors: Mapping[str, str]) -> Failed:
    """The same for names that are no identifiers."""
    return Failed(422, INVALID, errors={name: [text] for name, text in errors.items()})


def query(call: Call) -> dict[str, str]:
    """The query string, the last of repeated values."""
    try:
        raw = call.scope["query_string"].decode("utf-8", "replace")
        return dict(parse_qsl(raw, keep_blank_values=True, max_num_fields=MAX_PARAMETERS))
    except ValueError:
        raise UsageError("Too many request parameters.", hint=413) from None


async def body(call: Call) -> dict[str, Any]:
    """The members of a JSON object or a form; `name[]` of a form is a list."""
    raw = await whole(call.receive)
    kind = header(call, b"content-type").partition(";")[0].strip().lower()
    # `curl -d '{...}'` calls JSON a form; no form of this API begins so
    if kind == "application/x-www-form-urlencoded" and not raw.lstrip().startswith(b"{"):
        return _form(raw)
    if not raw.strip():
        return {}
    try:
        document = json_of(raw)
    except ValueError:
        raise UsageError("The body is not JSON.") from None
    if not isinstance(document, dict):
        raise UsageError("The body is not a JSON object.")
    return document


def _form(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        pairs = parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise UsageError("Too many request parameters.", hint=413) from None
    for name, value in pairs:
        if name.endswith("[]"):
            found.setdefault(name[:-2], []).append(value)
        else:
            found[name] = value
    return found


def text(found: Mapping[str, Any], name: str, *, required: bool = False, most: int = 1 << 20) -> str:
    """A text field; Failed if it is none, or missing."""
    value = found.get(name)
    if value is None or value == "":
        if required:
            raise wrong({name: f"The {name} field is required."})
        return ""
    if not isinstance(value, str):
        raise wrong({name: f"The {name} must be a string."})
    if len(value) > most:
        raise wrong({name: f"The {name} may not be greater than {most} characters."})
    return value


def uid(value: object) -> bytes | None:
    """The bytes of a UUID; None if it is not one."""
    try:
        return uuid.UUID(value).bytes if isinstance(value, str) and len(value) == 36 else None
    except ValueError:
        return None


def path_id(call: Call, what: str) -> bytes:
    """The id in the path; NotFound if it is none."""
    found = uid(call.path["id"])
    if found is None:
        raise NotFound(f"{what} not found.")
    return found
