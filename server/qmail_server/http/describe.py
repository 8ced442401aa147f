"""What the document of the interface must know of an endpoint beyond its docstring and its return annotation.

Rule: a description decides nothing. Endpoints read their parameters themselves; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from qmail_server.http.paths import Endpoint, Resource
from qmail_server.http.respond import Route

Schema = dict[str, Any]


class Param(Struct, frozen=True):
    """One parameter."""

    name: str
    about: str
    schema: Schema  # of its value
    required: bool = False
    example: Any = None  # of the request shown; None: it is left out there


class Facts(Struct, frozen=True, kw_only=True):
    """One endpoint."""

    takes: tuple[Param, ...] = ()
    answer: Any = None  # type of the answer where the annotation does not say
    status: int = 200
    later: Any = None  # type of the answer with 202 where the work may go on
    media: str = ""  # of an answer that is not JSON; beside JSON if the annotation names a type too
    raw: str = ""  # media type of a body that may be the thing itself instead of parameters
    beside: tuple[str, ...] = ()  # parameters that stand in the query string then
    only: str = ""  # media type of a body where there is but one
    headers: tuple[Param, ...] = ()
    empty: bool = False  # the answer has no body, though its status says it may
    endless: bool = False  # the answer goes on until somebody leaves


class Surface(Struct, frozen=True, kw_only=True):
    """Routes that belong together."""

    name: str
    about: str
    routes: Sequence[Route] = ()
    resources: Sequence[Resource] = ()
    facts: Mapping[Endpoint, Facts]
    refusals: tuple[int, ...] = ()  # statuses of its own, beside those every error has
    everywhere: tuple[Param, ...] = ()  # understood by every route
    security: tuple[str, ...] = ("token",)  # any of these opens it; nothing: everybody may


def text(
    name: str,
    about: str,
    *,
    required: bool = False,
    example: str | None = None,
    one_of: Sequence[str] = (),
    default: str | None = None,
    **limits: Any,
) -> Param:
    """A text; `limits` are words of JSON Schema."""
    schema: Schema = {"type": "string", **({"enum": list(one_of)} if one_of else {}), **limits}
    return Param(name, about, _with_default(schema, default), required, example)


def whole(
    name: str,
    about: str,
    low: int,
    high: int,
    default: int | None = None,
    *,
    required: bool = False,
    example: int | None = None,
) -> Param:
    """A whole number."""
    schema: Schema = {"type": "integer", "minimum": low, "maximum": high}
    return Param(name, about, _with_default(schema, default), required, example)


def decimal(name: str, about: str, low: float, high: float, *, example: float | None = None) -> Param:
    """A number."""
    return Param(name, about, {"type": "number", "minimum": low, "maximum": high}, example=example)


def flag(name: str, about: str, default: bool | None = False, *, example: bool | None = None) -> Param:
    """Yes or no."""
    return Param(name, about, _with_default({"type": "boolean"}, default), example=example)


def several(name: str, about: str, *, most: int, example: Sequence[str] | None = None) -> Param:
    """Texts; the name is repeated."""
    schema: Schema = {"type": "array", "items": {"type": "string"}, "maxItems": most}
    return Param(name, about, schema, example=None if example is None else list(example))


def _with_default(schema: Schema, default: Any) -> Schema:
    return schema if default is None else {**schema, "default": default}
