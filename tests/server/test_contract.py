"""Requests made up from the document: no failure nobody meant, and no answer the document does not describe.

`QMAIL_TEST_REQUESTS` is how many requests of each kind an operation gets; scripts/long-tests makes more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.server.fake_engine import BASE
from tests.server.scenes import World, new_world

CONFORMS: list[Any] = [status_code_conformance, content_type_conformance, response_schema_conformance]
REQUESTS = int(os.environ.get("QMAIL_TEST_REQUESTS", "1"))
MADE_UP = settings(
    max_examples=REQUESTS,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@schemathesis.serializer("application/offset+octet-stream")
def piece(context: Any, value: Any) -> bytes:
    """Bytes of an upload: whatever was made up."""
    return str(value).encode("utf-8", "replace")


Run = Callable[[Coroutine[Any, Any, Any]], Any]


def all_operations(document: dict[str, Any]) -> list[Any]:
    """The operations of a document that end, each under its first name."""
    schema = schemathesis.openapi.from_dict(document)
    results: Any = schema.get_all_operations()
    found = [result.ok() for result in results]
    return [each for each in found if not _raw(each).get("x-endless") and not _repeats(each)]


def _repeats(operation: Any) -> bool:
    """Whether it is another by another name: PUT and DELETE of a static route are POST."""
    same = operation.method.upper() in ("PUT", "DELETE") and _raw(operation)["tags"] == ["node"]
    return "other names" in _raw(operation)["tags"][0] or (same and REQUESTS == 1)


def _raw(operation: Any) -> dict[str, Any]:
    return operation.definition.raw  # type: ignore[no-any-return]


def attack(world: World, run: Run, operation: Any, mode: schemathesis.GenerationMode) -> None:
    """Ask what was made up for one operation; half of the ids are real ones."""

    @given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
    @MADE_UP
    def story(case: Any, real: bool) -> None:
        for given_ in (case.query, case.path_parameters, case.body):
            if real and isinstance(given_, dict):
                given_ |= {name: value for name, value in world.values.items() if name in given_}
        if "beacon/ping" in case.path or case.path.endswith("/poll"):
            case.query["timeout_ms"] = "1"  # nobody waits ten minutes
        asked = case.as_transport_kwargs(base_url=BASE)
        asked.pop("cookies", None)
        for name, value in dict(asked.get("files") or {}).items():  # the client sends text and bytes only
            if not isinstance(value, bytes | str | tuple | list):
                asked["files"][name] = str(value)
        if isinstance(asked.get("data"), bytes | str):
            asked["content"] = asked.pop("data")
        if real and "/api/" in case.path:
            asked["headers"]["Authorization"] = f"Bearer {world.values['transferToken']}"
        try:
            request = world.http.build_request(**asked)
        except httpx.InvalidURL:
            return  # longer than the client sends
        request.read()  # the checks look at it
        answer = run(world.http.send(request))
        if answer.status_code >= 500:  # of the network, as documented; never of this process
            assert answer.json().keys() & {"reason", "file_guid"}, f"{case.method} {case.path}: {answer.text}"
        case.validate_response(answer, checks=CONFORMS)

    story()


@pytest.mark.timeout(60 * REQUESTS + 120)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_made_up_requests_are_answered_as_described(mode: schemathesis.GenerationMode) -> None:
    wrong = []
    with asyncio.Runner() as runner:
        context = new_world()
        world = runner.run(context.__aenter__())
        document = runner.run(world.http.get("/openapi.json")).json()
        for operation in all_operations(document):
            if mode.value == "negative" and not (_raw(operation).get("parameters") or operation.body):
                continue
            try:
                attack(world, runner.run, operation, mode)
            except Exception as error:
                wrong.append(f"{operation.label}: {type(error).__name__} {error}"[:600])
        runner.run(context.__aexit__(None, None, None))
    assert wrong == []
