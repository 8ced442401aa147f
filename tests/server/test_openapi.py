"""The document of the interface: it names all there is, says what endpoints read, and its examples run."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from qmail_server.http import openapi
from qmail_server.http.app import surfaces
from qmail_server.http.describe import Facts, Param, Surface
from qmail_server.http.guard import GuardSettings, hosts_for
from qmail_server.http.mailbox import routes as mailbox
from qmail_server.http.qmail import described as node
from qmail_server.http.qmail.routes import ROUTES
from qmail_server.http.respond import VERBS, Call, Route
from qmail_server.http.transfer import routes as transfer

from qmail_core.errors import QMailError
from tests.server.fake_engine import BASE, FakeEngine, ask
from tests.server.reads import reads
from tests.server.scenes import Shown, new_world, operations
from tests.server.scenes import ask as ask_shown

JSON = "application/json"
CLOSED = GuardSettings(hosts=hosts_for(8080), token="s3cret")


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


@pytest.fixture
def document(engine: FakeEngine) -> dict[str, Any]:
    found: dict[str, Any] = ask(engine, "GET", "/openapi.json", guard=CLOSED).json()
    return found


def strict(document: dict[str, Any]) -> dict[str, Any]:
    """The document with no member left that it does not name."""
    closed = copy.deepcopy(document)
    for schema in closed["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return closed


def validate(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    schemas = document["components"]["schemas"]
    needed: dict[str, Any] = {}
    left = list(references(schema))
    while left:  # a validator reads all it is given, so it is given little
        name = left.pop().rpartition("/")[2]
        if name not in needed:
            needed[name] = schemas[name]
            left += references(schemas[name])
    jsonschema.Draft202012Validator({**schema, "components": {"schemas": needed}}).validate(value)


# ------------------------------------------------------------------------------------------------------------------
# Complete


def test_every_endpoint_is_described() -> None:
    assert openapi.undescribed(surfaces()) == []


def test_an_endpoint_nobody_described_is_noticed() -> None:
    async def quiet(call: Call) -> None:
        """Nothing."""

    async def wordless(call: Call) -> None:
        return None

    more = Surface(name="more", about="", routes=[Route("/a", quiet), Route("/b", wordless)], facts={wordless: Facts()})
    assert openapi.undescribed([more]) == ["tests.server.test_openapi.quiet", "tests.server.test_openapi.wordless"]


def test_every_path_and_verb_is_in_the_document(document: dict[str, Any]) -> None:
    paths = {route.path: set(route.verbs) - {"HEAD"} for route in ROUTES}
    paths |= {resource.template: set(resource.verbs) for resource in mailbox.RESOURCES}
    paths |= {resource.template: set(resource.verbs) for resource in transfer.RESOURCES}
    paths |= {path: set(VERBS) - {"HEAD"} for path in ("/events", "/api/events", "/api/events/ticket")}
    paths |= {path: {"GET"} for path in ("/", "/docs", "/openapi.json")}
    assert {path: {verb.upper() for verb in item} for path, item in document["paths"].items()} == paths


def test_routes_of_one_server_are_in_its_document(engine: FakeEngine) -> None:
    async def more(call: Call) -> dict[str, object]:
        """More."""
        return {}

    found = ask(engine, "GET", "/openapi.json", extra_routes=[Route("/api/more", more)]).json()
    assert found["paths"]["/api/more"]["get"]["summary"] == "More"


def test_the_document_holds_together(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    shown = operations(document)
    ids = [one.operation["operationId"] for one in shown]
    assert len(set(ids)) == len(ids)
    for reference in references(document):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    tags = [tag["name"] for tag in document["tags"]]
    assert {one.operation["tags"][0] for one in shown} == set(tags)
    for one in shown:
        assert one.operation["summary"], one.name
        assert set(map(int, one.operation["responses"])) - {200, 201, 202, 204} <= set(openapi.MEANINGS), one.name


def references(node: Any) -> Iterator[str]:
    """All `$ref` below a node."""
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from references(value)
    if isinstance(node, dict) and isinstance(node.get("$ref"), str):
        yield node["$ref"]


def test_every_status_of_an_error_has_a_meaning() -> None:
    def hints(kind: type[QMailError]) -> Iterator[int]:
        yield kind.hint
        for below in kind.__subclasses__():
            yield from hints(below)

    assert set(hints(QMailError)) <= set(openapi.MEANINGS)


# ------------------------------------------------------------------------------------------------------------------
# Parameters


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_the_table_names_what_the_source_reads(route: Route) -> None:
    read = reads(route.endpoint) | (reads(route.sink) if route.sink is not None else set())
    assert {param.name for param in node.TAKES[route.endpoint]} == read


def test_a_read_is_found_through_helpers_and_loops() -> None:
    from qmail_server.http.qmail import net
    from qmail_server.http.qmail.db import contacts, drafts, queue

    assert reads(net.download) == {"file_guid", "sender_sn", "async"}
    assert reads(drafts.update_draft) >= {"draft_id", "email_id", "id", "subject", "bcc"}
    assert reads(contacts.create_contact) >= {"custom_sn", "serial_number"}
    assert reads(queue.dismiss_notification) == {"id", "file_guid"}


def params() -> list[tuple[str, Param]]:
    return [
        (openapi.key_of(endpoint), param)
        for surface in surfaces()
        for endpoint, facts in surface.facts.items()
        for param in facts.takes
    ]


@pytest.mark.parametrize(("endpoint", "param"), params(), ids=lambda value: getattr(value, "name", value))
def test_a_parameter_has_words_a_shape_and_a_fitting_example(endpoint: str, param: Param) -> None:
    assert param.about
    jsonschema.Draft202012Validator.check_schema(param.schema)
    assert param.schema
    assert not param.required or param.example is not None
    for value in (param.example, param.schema.get("default")):
        if value is not None:
            jsonschema.validate(value, param.schema)


# ------------------------------------------------------------------------------------------------------------------
# Examples


def test_every_request_shown_is_answered_as_described() -> None:
    async def story() -> list[str]:
        wrong = []
        async with new_world() as world:
            document = (await world.http.get("/openapi.json")).json()
            closed = strict(document)
            for shown in operations(document):
                answer, _ = await ask_shown(world, shown)
                if problem := disagreement(closed, shown, answer):
                    wrong.append(f"{shown.name}: {problem}")
        return wrong

    assert asyncio.run(story()) == []


def disagreement(document: dict[str, Any], shown: Shown, answer: httpx.Response) -> str:
    """How an answer differs from what the document says of it; empty if it does not."""
    if answer.status_code != shown.status:
        return f"{answer.status_code} {answer.text}"
    if not shown.content:
        return answer.text
    kind = answer.headers["content-type"].partition(";")[0]
    media = shown.content.get(kind) or shown.content.get("*/*") or shown.content.get("application/octet-stream")
    if media is None:
        return f"answers {kind}"
    try:
        validate(document, media["schema"], answer.json() if kind == JSON else answer.text)
    except jsonschema.ValidationError as error:
        return f"{error.json_path}: {error.message}"
    return ""


def test_every_answer_shown_fits_its_description(document: dict[str, Any]) -> None:
    closed = strict(document)
    for shown in operations(document):
        for kind, media in shown.content.items():
            if kind == "text/event-stream" or (kind == JSON and shown.path != "/openapi.json"):
                assert "example" in media, f"{shown.name} (see tests/server/scenes.py)"
                validate(closed, media["schema"], media["example"])


def test_no_example_is_left_of_an_endpoint_that_is_gone(document: dict[str, Any]) -> None:
    kept = json.loads(openapi.EXAMPLES.read_bytes())
    assert set(kept) <= {shown.endpoint for shown in operations(document)}


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("PATCH", "/api/wallets/list", {}, 405),
        ("GET", "/api/qmail/db/messages/get", {"params": {"email_id": "0" * 32}}, 404),
        ("POST", "/api/wallets/list", {"json": {str(n): "" for n in range(400)}}, 413),
        ("POST", "/api/wallets/list", {"content": b"x", "headers": {"content-type": "text/csv"}}, 415),
        ("PATCH", "/users/{user}/mailboxes", {}, 405),
        ("GET", "/users/{user}/mailboxes/{mailbox}", {}, 404),
        ("GET", "/users/{user}/mailboxes", {"params": {str(n): "" for n in range(400)}}, 413),
        ("GET", "/api/wallets/list", {"headers": {"host": "elsewhere.example"}}, 421),
        ("GET", "/api/wallets/list", {"headers": {"origin": "http://elsewhere.example"}}, 403),
    ],
)
def test_refusals_look_as_described(method: str, path: str, options: Any, status: int) -> None:
    async def story() -> None:
        async with new_world() as world:
            document = strict((await world.http.get("/openapi.json")).json())
            live = path.format(user=world.user, mailbox="0" * 24)
            answer = await world.http.request(method, live, **options)
            assert answer.status_code == status
            verb = method.lower() if method != "PATCH" else "get"
            described = document["paths"][path][verb]["responses"][str(status)]
            response = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
            validate(document, response["content"][JSON]["schema"], answer.json())

    asyncio.run(story())


# ------------------------------------------------------------------------------------------------------------------
# Served


def test_the_document_is_kept_by_clients(engine: FakeEngine) -> None:
    first = ask(engine, "GET", "/openapi.json", guard=CLOSED)
    assert first.headers["content-type"] == JSON
    tag = first.headers["etag"]
    again = ask(engine, "GET", "/openapi.json", guard=CLOSED, headers={"if-none-match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert ask(engine, "GET", "/openapi.json", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/docs/", "/openapi.json"])
def test_the_pages_need_no_token_and_no_other_site_reads_them(engine: FakeEngine, path: str) -> None:
    assert ask(engine, "GET", path, guard=CLOSED).status_code == 200
    linked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert ask(engine, "GET", path, guard=CLOSED, headers=linked).status_code == 200
    fetched = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "origin": "http://elsewhere.example"}
    assert ask(engine, "GET", path, guard=CLOSED, headers=fetched).status_code == 403
    assert ask(engine, "GET", path, headers={"host": "elsewhere.example"}).status_code == 421


def test_the_docs_page_comes_whole(engine: FakeEngine) -> None:
    page = ask(engine, "GET", "/docs")
    assert "sha256-" in page.headers["content-security-policy"]
    assert "http://" not in page.text.replace(BASE, "")
    assert "https://" not in page.text
