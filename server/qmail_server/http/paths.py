"""Paths with parameters: all templates of an application as one pattern, so that finding one is one match."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from msgspec import Struct

from qmail_server.http.errors import NODE, Dialect

if TYPE_CHECKING:
    from qmail_server.http.respond import Call

Endpoint = Callable[["Call"], Awaitable[Any]]

_NAME = re.compile(r"\{(\w+)\}")


class Resource(Struct, frozen=True):
    """One template, such as `/users/{user}/mailboxes`, and what its verbs do."""

    template: str
    verbs: Mapping[str, Endpoint]
    dialect: Dialect = NODE


class Paths:
    """Finds resources. A parameter is one path segment, percent-decoded."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        self._found: dict[int, tuple[Resource, list[str]]] = {}
        parts = []
        group = 1
        for resource in resources:
            names = _NAME.findall(resource.template)
            self._found[group] = (resource, names)
            group += 1 + len(names)
            literal = re.split(r"\{\w+\}", resource.template)
            parts.append(f"({'([^/]+)'.join(map(re.escape, literal))})")
        self._pattern = re.compile("|".join(parts)) if parts else None

    def find(self, path: str) -> tuple[Resource, dict[str, str]] | None:
        """The resource of a path and its parameters."""
        match = self._pattern.fullmatch(path) if self._pattern is not None else None
        if match is None or match.lastindex is None:
            return None
        resource, names = self._found[match.lastindex]  # the group around a template is the last to close
        values = match.groups()[match.lastindex : match.lastindex + len(names)]
        return resource, {name: unquote(value) for name, value in zip(names, values, strict=True)}
