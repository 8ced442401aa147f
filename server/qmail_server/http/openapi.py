"""The whole interface as one OpenAPI 3.1 document, made once from the tables of routes and what describes them.

Rule: nothing is listed here. Paths and verbs come from the tables, words from docstrings, answers from annotations or
the surface's own description, errors from the dialects. What several operations share is a component.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from qmail_core import __version__
from qmail_core.errors import QMailError
from qmail_server.http.describe import Facts, Param, Schema, Surface
from qmail_server.http.errors import NODE, Dialect
from qmail_server.http.paths import Endpoint, Resource
from qmail_server.http.respond import Route

EXAMPLES = Path(__file__).parent / "examples.json"
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
_MULTIPART = "multipart/form-data"
_IN_PATH = re.compile(r"\{(\w+)\}")
_made: dict[tuple[tuple[str, str, str], ...], bytes] = {}
_GUARDED = {401, 403, 421}  # by the guard, in front of the routes
_ABOUT = (
    "Parameters of a static route come from the query string and from the body, whatever the verb; an empty value "
    "counts as not given, further names are ignored. HEAD is answered where GET is. A page of another site is refused."
)
_SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "description": "The server's own; not asked for where it is open"},
    "transferToken": {"type": "http", "scheme": "bearer", "description": "Of the file-transfer API: /api/tokens"},
    "accessToken": {"type": "apiKey", "in": "header", "name": "X-Access-Token", "description": "Of one user"},
}
MEANINGS = {
    400: "A parameter is missing, malformed or refused",
    401: "No valid bearer token",
    402: "The wallet cannot pay",
    403: "A browser of another site, or something that belongs elsewhere",
    404: "There is no such thing",
    405: "Another verb",
    409: "It has been done already, or cannot be done in this state",
    410: "It is there no more",
    412: "Another version of tus",
    413: "Too large or too many",
    415: "Unknown content type",
    416: "A range that is not there",
    421: "A host this server does not answer for",
    422: "An address is none",
    429: "Too many failures; Retry-After says when to come back",
    460: "A checksum does not fit",
    500: "A network operation failed, or something unexpected happened",
    502: "Servers refused, or gave nonsense",
    503: "Too few servers, or the store is not available",
    507: "There is no room on the disk",
}


def encode(surfaces: Sequence[Surface]) -> bytes:
    """The document as JSON; ports with the same routes share it."""
    routes = tuple((path, verb, key_of(end)) for surface in surfaces for _, path, verb, end in operations(surface))
    if routes not in _made:
        _made[routes] = msgspec.json.encode(document(surfaces))
    return _made[routes]


def document(surfaces: Sequence[Surface]) -> dict[str, Any]:
    """The document; an endpoint nobody described has no parameters and answers anything."""
    return _Builder(surfaces).document


def key_of(endpoint: Endpoint) -> str:
    """The name of an endpoint, under which its example answer is kept."""
    module = endpoint.__module__.removeprefix("qmail_server.").removeprefix("http.")
    return f"{module}.{_function(endpoint).__name__}"


def operations(surface: Surface) -> Iterator[tuple[Route | Resource, str, str, Endpoint]]:
    """All operations of a surface: where they stand, path, verb, endpoint."""
    for route in surface.routes:
        for verb in route.verbs if surface.security else ("GET",):
            if verb != "HEAD":  # answered where GET is
                yield route, route.path, verb, route.endpoint
    for resource in surface.resources:
        for verb, endpoint in resource.verbs.items():
            yield resource, resource.template, verb, endpoint


def undescribed(surfaces: Iterable[Surface]) -> list[str]:
    """Endpoints without words, or that nobody described."""
    found = {
        key_of(endpoint)
        for surface in surfaces
        for *_, endpoint in operations(surface)
        if not _words(endpoint) or endpoint not in surface.facts
    }
    return sorted(found)


def _function(endpoint: Endpoint) -> Any:
    return inspect.unwrap(endpoint)


def _words(endpoint: Endpoint) -> str:
    return inspect.getdoc(_function(endpoint)) or ""


class _Builder:
    """Puts the document together; components are made when the first operation needs them."""

    def __init__(self, surfaces: Sequence[Surface]) -> None:
        self._examples: dict[str, Any] = msgspec.json.decode(EXAMPLES.read_bytes())
        self._types: dict[str, type] = {}
        self._failures: dict[Dialect, str] = {}
        self._first: dict[str, str] = {}  # of an endpoint, which its other paths point to
        self._responses: dict[str, Any] = {}
        self._refused: dict[tuple[Dialect, str], dict[str, Schema]] = {}
        self._bodies: dict[str, Any] = {}
        paths: dict[str, dict[str, Any]] = {}
        for surface in surfaces:
            for place, path, verb, endpoint in operations(surface):
                paths.setdefault(path, {})[verb.lower()] = self._operation(surface, place, path, verb, endpoint)
        self.document = self._whole(surfaces, paths)

    def _whole(self, surfaces: Sequence[Surface], paths: dict[str, dict[str, Any]]) -> dict[str, Any]:
        tags = dict.fromkeys(operation["tags"][0] for item in paths.values() for operation in item.values())
        about = {surface.name: surface.about for surface in surfaces}
        schemas = _schemas(list(self._types.values()))
        schemas |= {name: _failure(dialect) for dialect, name in self._failures.items()}
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "qmail",
                "version": __version__,
                "description": _ABOUT,
                "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"token": []}],
            "tags": [{"name": tag, "description": about.get(tag, "The same under other names")} for tag in tags],
            "paths": paths,
            "components": {
                "schemas": schemas,
                "responses": self._responses,
                "requestBodies": self._bodies,
                "securitySchemes": _SECURITY,
            },
        }

    def _operation(
        self, surface: Surface, place: Route | Resource, path: str, verb: str, endpoint: Endpoint
    ) -> dict[str, Any]:
        key, facts = key_of(endpoint), surface.facts.get(endpoint, Facts())
        first = self._first.setdefault(f"{verb} {key}", path)
        summary, _, rest = _words(endpoint).partition("\n")
        named = _IN_PATH.findall(path)
        inside = [param for param in facts.takes if param.name in named]
        outside = [param for param in (*facts.takes, *surface.everywhere) if param.name not in named]
        query = [param for param in outside if verb == "GET" or param.name in facts.beside]
        shown: dict[str, Any] = {
            "operationId": re.sub("[^0-9A-Za-z]+", "_", f"{verb.lower()}{path}").rstrip("_"),
            "tags": [surface.name if first == path else f"{surface.name}, other names"],
            "summary": summary.rstrip("."),
            "description": (rest if first == path else f"Another name of `{first}`. {rest}").strip(),
            "x-endpoint": key,
            "parameters": [_parameter(param, "path") for param in inside]
            + [_parameter(p, "query") for p in query]
            + [_parameter(param, "header") for param in facts.headers],
            "responses": self._answers(key, endpoint, place.dialect, facts, surface),
        }
        if verb != "GET" and (outside or facts.only):
            shown["requestBody"] = self._body(key, place, outside, facts)
        if facts.endless:
            shown["x-endless"] = True
        if surface.security != ("token",):
            shown["security"] = [{name: []} for name in surface.security]
        return {name: value for name, value in shown.items() if value or name == "security"}

    def _body(self, key: str, place: Route | Resource, params: Sequence[Param], facts: Facts) -> Schema:
        sink = isinstance(place, Route) and place.sink is not None
        name = f"{key}.files" if sink else key
        if name not in self._bodies:
            schema = {"type": "object", "properties": {param.name: _property(param) for param in params}}
            required = [param.name for param in params if param.required]
            media = {"schema": {**schema, "required": required} if required else schema, "example": _example(params)}
            kinds: dict[str, Any] = {_JSON: media, _FORM: media}
            if facts.only:
                kinds = {facts.only: media if params else {"schema": {}}}
            if sink:
                kinds[_MULTIPART] = {"schema": _with_files(media["schema"]), "example": media["example"]}
            if facts.raw:
                kinds[facts.raw] = {"schema": {}}
            self._bodies[name] = {"content": kinds, "required": bool(required) and not facts.raw}
        return {"$ref": f"#/components/requestBodies/{name}"}

    # --- answers -----------------------------------------------------------------------------------------------

    def _answers(
        self, key: str, endpoint: Endpoint, dialect: Dialect, facts: Facts, surface: Surface
    ) -> dict[str, Schema]:
        if key not in self._responses:
            self._responses[key] = {"description": "Success"}
            if content := self._content(key, endpoint, facts):
                self._responses[key]["content"] = content
        found: dict[str, Schema] = {str(facts.status): {"$ref": f"#/components/responses/{key}"}}
        if facts.later is not None:
            name = facts.later.__name__
            self._types.setdefault(name, facts.later)
            schema = {"$ref": f"#/components/schemas/{name}"}
            found["202"] = {"description": "Accepted; a task does the rest", "content": {_JSON: {"schema": schema}}}
        return {**found, **self._refusals(dialect, surface)}

    def _refusals(self, dialect: Dialect, surface: Surface) -> dict[str, Schema]:
        """All a route of this dialect may answer instead; the guard in front of it speaks its own."""
        if (dialect, surface.name) not in self._refused:
            own = {405, *surface.refusals}
            if surface.security:
                own |= _statuses(QMailError) | {*dialect.statuses.values(), 413, 415}
            refused = _GUARDED if surface.security else _GUARDED - {401}
            self._refused[dialect, surface.name] = {
                str(status): self._failed(status, NODE if status in refused else dialect, dialect)
                for status in sorted(own | refused)
            }
        return self._refused[dialect, surface.name]

    def _content(self, key: str, endpoint: Endpoint, facts: Facts) -> dict[str, Any]:
        types = [facts.answer] if facts.answer is not None else list(_types(endpoint))
        if facts.empty or facts.status == 204 or (facts.status == 201 and not types):
            return {}
        content: dict[str, Any] = {}
        example = {"example": self._examples[key]} if key in self._examples else {}
        if types or not facts.media:
            for kind in types:
                if self._types.setdefault(kind.__name__, kind) is not kind:
                    raise ValueError(f"two answers are called {kind.__name__}")
            schemas = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in types]
            content[_JSON] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas} if schemas else {}}
            content[_JSON] |= example
        if facts.media:
            text = facts.media.startswith("text/")
            content[facts.media] = {"schema": {"type": "string"} if text else {}, **({} if types else example)}
        return content

    def _failed(self, status: int, first: Dialect, other: Dialect) -> Schema:
        dialects = dict.fromkeys((first, other) if status in (401, 403) else (first,))  # these are said by both
        names = [self._failures.setdefault(dialect, _title(dialect, self._failures)) for dialect in dialects]
        name = f"{'Or'.join(names)}{status}"
        refs = [{"$ref": f"#/components/schemas/{each}"} for each in names]
        content = {_JSON: {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}
        self._responses[name] = {"description": MEANINGS.get(status, "Refused"), "content": content}
        return {"$ref": f"#/components/responses/{name}"}


def _statuses(kind: type[QMailError]) -> set[int]:
    return {kind.hint}.union(*map(_statuses, kind.__subclasses__()))


def _title(dialect: Dialect, taken: dict[Dialect, str]) -> str:
    name = f"{type(dialect).__name__.removesuffix('Dialect')}Failure"
    return name if name not in taken.values() else f"{name}{len(taken) + 1}"


def _failure(dialect: Dialect) -> Schema:
    """The body of a failure, by the look of one."""
    body = dialect.body(400, "sentence", "code", {}, "0123456789abcdef")
    kinds = {str: "string", bool: "boolean", int: "integer"}
    properties = {name: {"type": kinds[type(value)]} for name, value in body.items()}
    return {"type": "object", "properties": properties, "required": list(body), "example": body}


def _types(endpoint: Endpoint) -> Iterator[type]:
    annotation = get_type_hints(_function(endpoint)).get("return")
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield kind


def _schemas(types: Sequence[type]) -> dict[str, Schema]:
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    for schema in components.values():
        properties = schema.get("properties", {})
        # what has a default is always sent; only what may be unset has none and is not required
        always = {*schema.get("required", ()), *(name for name, value in properties.items() if "default" in value)}
        if always:
            schema["required"] = [name for name in properties if name in always]
    return components


# ------------------------------------------------------------------------------------------------------------------
# Parameters


def _parameter(param: Param, place: str) -> Schema:
    shown: Schema = {"name": param.name, "in": place, "description": param.about, "schema": param.schema}
    if param.required or place == "path":
        shown["required"] = True
    if param.example is not None:
        shown["example"] = param.example
    return shown


def _property(param: Param) -> Schema:
    return {**param.schema, "description": param.about}


def _example(params: Sequence[Param]) -> dict[str, Any]:
    return {param.name: param.example for param in params if param.example is not None}


def _with_files(schema: Schema) -> Schema:
    files = {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}}
    files["description"] = "Files that come along; `file_guid` stands before them"
    return {**schema, "properties": {**schema["properties"], "attachments": files}}
