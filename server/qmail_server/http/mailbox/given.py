"""What a request gave: query, then body, then path, later ones winning; checked by the fields of an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qmail_core.model import Source
from qmail_server.http.errors import Failed
from qmail_server.http.guard import TRUSTED
from qmail_server.http.mailbox.fields import Field, read
from qmail_server.http.mailbox.who import me, speaker
from qmail_server.http.params import MAX_FORM, MAX_PARAMETERS, json_of, pairs_of, read_multipart, whole
from qmail_server.http.paths import Endpoint
from qmail_server.http.respond import Call

_NOBODYS = {"type": "http", "method": "GET", "query_string": b"", "headers": [(b"content-type", b"application/json")]}
NOBODY = Call(None, _NOBODYS | {TRUSTED: "token"}, None, "", None)  # type: ignore[arg-type]  # nothing of it is reached
MAX_BODY = 90 << 20  # bytes of JSON with a message in it: base64 takes a third more than the largest one has
_BODIES = ("POST", "PUT", "DELETE")


class Asked(Exception):
    """Stands in for the values when nobody has asked yet: which fields an endpoint wants."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)


async def given(call: Call, *fields: Field, most: int = MAX_FORM, anybody: bool = False) -> dict[str, Any]:
    """The values of these fields; Failed with every problem at once. A body has at most so many bytes.

    anybody   also of who shows no token; of others no body is read
    """
    if call is NOBODY:
        raise Asked(fields)
    if not anybody:
        speaker(call)
    found = query_of(call)
    strict = call.scope["method"] in _BODIES
    if strict:
        found |= await _body(call, most)
    path = call.path if call.path.get("user") != "me" else call.path | {"user": me(call).hex()}
    return read(found | path, fields, strict=strict)


def fields_of(endpoint: Endpoint) -> tuple[Field, ...]:
    """The fields an endpoint wants: it is begun with a request of nobody's, and asks for them before all else."""
    try:
        endpoint(NOBODY).send(None)  # type: ignore[attr-defined]  # an endpoint is an async function
    except Asked as asked:
        return asked.fields
    raise TypeError(f"{endpoint} does not begin with given()")


def query_of(call: Call) -> dict[str, Any]:
    """What stands in the query string."""
    return _pairs(call.scope["query_string"])


def _pairs(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs_of(raw):
        name, many = (name[:-2], True) if name.endswith("[]") else (name, name in found)
        found[name] = [*(found[name] if isinstance(found.get(name), list) else []), value] if many else value
    return found


async def _body(call: Call, most: int) -> dict[str, Any]:
    kind = content_type(call)
    if kind == "multipart/form-data":
        form = _Form()
        await read_multipart(form, header(call, "content-type").encode("latin-1"), call.receive, None)
        return form.found
    raw = await whole(call.receive, most)
    if not raw.strip():
        return {}
    # curl calls whatever it posts a form, and no form begins like this
    if kind == "application/x-www-form-urlencoded" and not raw.lstrip().startswith(b"{"):
        return _pairs(raw)
    try:
        document = json_of(raw)
    except ValueError as error:
        raise Failed(400, f"Invalid JSON: {error}", code="InvalidContent") from None
    if not isinstance(document, dict):
        raise Failed(400, "Invalid JSON: an object is expected", code="InvalidContent")
    return document


class _Form:
    """Takes the fields of a multipart form; unlike elsewhere, names have case here."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.files: list[Source] = []  # there are none: nobody opens them

    def add(self, name: str, value: str) -> None:
        """One field; the last one of a name counts."""
        if len(self.found) >= MAX_PARAMETERS:
            raise Failed(413, "Too many request parameters", code="InputValidationError")
        self.found[name] = value


def content_type(call: Call) -> str:
    """The media type of the body, in lower case."""
    header = next((value for name, value in call.scope["headers"] if name == b"content-type"), b"")
    return header.partition(b";")[0].strip().lower().decode("latin-1")


def header(call: Call, name: str) -> str:
    """The first header of this (lower-case) name, or an empty text."""
    wanted = name.encode()
    return next((value for key, value in call.scope["headers"] if key == wanted), b"").decode("latin-1")


def values(fields: Sequence[Field], found: dict[str, Any]) -> dict[str, Any]:
    """Only those of the fields that were given."""
    return {field.name: found[field.name] for field in fields if found[field.name] is not None}
