"""Object Transfer over HTTP: its words, its verbs, its refusals, and one object all the way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.scenes import World, new_world

OBJECTS, TRANSFERS = "/api/qmail/net/objects", "/api/qmail/net/object-transfers"
ID = "5d0e7a1c9b8f42d3a6e07714c2bb9f10"


def tell(story: Any) -> None:
    async def whole() -> None:
        async with new_world() as world:
            await story(world)

    asyncio.run(whole())


async def post(world: World, path: str, **fields: object) -> httpx.Response:
    return await world.http.post(path, data={name: str(value) for name, value in fields.items()})


async def state(world: World, begun: httpx.Response) -> dict[str, Any]:
    """The transfer once its task is over."""
    await world.bob.wait(begun.json()["task_id"])
    found = await world.http.get(f"{TRANSFERS}/status", params={"operation_id": begun.json()["operation_id"]})
    transfer: dict[str, Any] = found.json()["transfer"]
    return transfer


def test_an_object_all_the_way() -> None:
    async def story(world: World) -> None:
        outgoing = Path(world.bob.config.data) / "Wallets" / "Mail" / "Outgoing"
        begun = await post(world, f"{OBJECTS}/upload", source_path="test1.qmail", raida_id=2)
        assert (begun.status_code, begun.json()["state"]) == (202, "queued")
        up = await state(world, begun)
        assert (up["state"], up["progress"], up["raida_id"], up["generation"]) == ("completed", 100, 2, "1")
        assert up["total_bytes"] == up["completed_bytes"] == str((outgoing / "test1.qmail").stat().st_size)
        begun = await post(
            world, f"{OBJECTS}/download", object_id=up["object_id"], destination_path="copy.qmail",
            preferred_range_bytes=7,
        )  # fmt: skip
        down = await state(world, begun)
        assert (down["state"], down["chunk_bytes"]) == ("completed", 7)
        assert (outgoing / "copy.qmail").read_bytes() == (outgoing / "test1.qmail").read_bytes()
        again = await post(world, f"{OBJECTS}/download", object_id=up["object_id"], destination_path="copy.qmail")
        assert (again.status_code, again.json()["message"]) == (409, "destination_path exists already")
        gone = await state(world, await post(world, f"{OBJECTS}/delete", object_id=up["object_id"], raida_id=2))
        assert (gone["state"], gone["generation"]) == ("completed", "2")
        paid = await world.http.get("/api/wallets/receipts", params={"filename": f"{up['object_id']}.json"})
        bill = json.loads(paid.json()["content"])
        assert (bill["file_guid"], bill["subject"], bill["total_cc"]) == (up["object_id"], "", 1)

    tell(story)


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        (f"{OBJECTS}/upload", {}, "source_path is required"),
        (f"{OBJECTS}/upload", {"source_path": "/etc/passwd"}, "source_path not found or not readable"),
        (f"{OBJECTS}/upload", {"source_path": "x" * 4097}, "source_path is too long"),
        (f"{OBJECTS}/upload", {"source_path": "test1.qmail", "raida_id": 25}, "raida_id is out of range"),
        (f"{OBJECTS}/upload", {"source_path": "test1.qmail", "raida_id": "x"}, "Invalid raida_id"),
        (f"{OBJECTS}/upload", {"source_path": "test1.qmail", "file_type": 256}, "file_type is out of range"),
        (f"{OBJECTS}/upload", {"source_path": "test1.qmail", "file_type": "²"}, "Invalid file_type"),
        (f"{OBJECTS}/upload", {"source_path": "test1.qmail", "storage_class": -1}, "Invalid storage_class"),
        (f"{OBJECTS}/upload", {"source_path": "test1.qmail", "object_id": "x"}, "Invalid object_id"),
        (f"{OBJECTS}/upload", {"source_path": "test1.qmail", "locker_key": "é"}, "Invalid locker_key"),
        (f"{OBJECTS}/upload", {"source_path": "test1.qmail", "operation": 2}, "operation is out of range"),
        (
            f"{OBJECTS}/upload",
            {"source_path": "test1.qmail", "preferred_chunk_bytes": 0},
            "preferred_chunk_bytes is out of range",
        ),
        (
            f"{OBJECTS}/upload",
            {"source_path": "test1.qmail", "retention_seconds": 1 << 64},
            "retention_seconds is out of range",
        ),
        (
            f"{OBJECTS}/upload",
            {"source_path": "test1.qmail", "expected_generation": 1},
            "Create requires expected_generation=0",
        ),
        (
            f"{OBJECTS}/upload",
            {"source_path": "test1.qmail", "operation": 1, "expected_generation": 1, "object_id": ID},
            "Replacement requires object_id and the original locker_key",
        ),
        (
            f"{OBJECTS}/upload",
            {"source_path": "test1.qmail", "target_generation": 0},
            "target_generation must be greater than expected_generation",
        ),
        (f"{OBJECTS}/download", {}, "object_id is required"),
        (f"{OBJECTS}/download", {"object_id": ID}, "destination_path is required"),
        (
            f"{OBJECTS}/download",
            {"object_id": ID, "destination_path": "/etc/x"},
            "destination_path is not in a folder files may be written to",
        ),
        (f"{OBJECTS}/delete", {}, "object_id is required"),
        (
            f"{OBJECTS}/delete",
            {"object_id": ID, "target_generation": 1},
            "target_generation must be greater than expected_generation",
        ),
        (f"{TRANSFERS}/resume", {}, "operation_id is required"),
        (f"{TRANSFERS}/cancel", {"operation_id": "zz"}, "Invalid operation_id"),
    ],
)
def test_a_bad_parameter_is_named(path: str, fields: dict[str, object], message: str) -> None:
    async def story(world: World) -> None:
        answer = await post(world, path, **fields)
        assert (answer.status_code, answer.json()["message"]) == (400, message)
        assert world.bob._store.operations.unfinished() == []

    tell(story)


@pytest.mark.parametrize("verb", ["status", "resume", "cancel"])
def test_an_operation_there_is_none_of(verb: str) -> None:
    async def story(world: World) -> None:
        method = "GET" if verb == "status" else "POST"
        answer = await world.http.request(method, f"{TRANSFERS}/{verb}", params={"operation_id": ID})
        assert (answer.status_code, answer.json()["message"]) == (404, "Transfer not found")

    tell(story)


def test_each_route_has_one_verb() -> None:
    async def story(world: World) -> None:
        for path in (f"{OBJECTS}/upload", f"{OBJECTS}/download", f"{OBJECTS}/delete", f"{TRANSFERS}/cancel"):
            answer = await world.http.get(path)
            assert (answer.status_code, answer.json()["message"]) == (405, "Method not allowed")
            assert answer.headers["allow"] == "POST"
        for path in (f"{OBJECTS}/capabilities", f"{TRANSFERS}/status"):
            assert (await world.http.post(path)).status_code == 405

    tell(story)


def test_paused_resumed_cancelled() -> None:
    async def story(world: World) -> None:
        world.cluster.down.add(1)
        begun = await post(world, f"{OBJECTS}/upload", source_path="test1.qmail", raida_id=1)
        paused = await state(world, begun)
        assert paused["state"] == "paused"
        assert paused["error"] == paused["last_result"] != ""
        assert (await world.http.get(f"{OBJECTS}/capabilities?raida_id=1")).json()["message"] == (
            "Capability query failed"
        )
        world.cluster.down.clear()
        resumed = await post(world, f"{TRANSFERS}/resume", operation_id=paused["operation_id"])
        assert resumed.status_code == 202
        assert (await state(world, resumed))["state"] == "completed"
        for verb, word in (("resume", "resumed"), ("cancel", "cancelled")):
            late = await post(world, f"{TRANSFERS}/{verb}", operation_id=paused["operation_id"])
            assert (late.status_code, late.json()["message"]) == (409, f"Transfer could not be {word}")

    tell(story)


def test_a_server_that_refuses_says_why() -> None:
    async def story(world: World) -> None:
        begun = await post(world, f"{OBJECTS}/download", object_id=ID, destination_path="none.qmail", raida_id=1)
        failed = await state(world, begun)
        assert (failed["state"], failed["last_status"]) == ("failed", 202)
        assert "does not exist" in failed["error"]

    tell(story)
