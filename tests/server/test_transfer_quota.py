"""How many bytes a user may keep, and what is answered beyond."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from tests.server.transfer_client import Client, over

KIB = 1024
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


def allow(api: Client, *, own: int = 0, files: int = 0, used: int = 0) -> None:
    database: Any = api.engine._store.files._db  # type: ignore[attr-defined]
    with database.read() as db:
        db.execute("UPDATE user SET quota=?, used=? WHERE id=1", (own, used))
    api.engine._ctx.config = msgspec.structs.replace(api.engine.config, file_quota=files)


def left_on_disk(api: Client) -> list[str]:
    return os.listdir(os.path.join(api.engine.config.data, "Files"))


async def begun(api: Client, length: int | None, expected: int = 201) -> str:
    said = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    answer = await api.ask("POST", "/api/files/tus", expected, headers={"Tus-Resumable": "1.0.0", **said})
    place: str = answer.headers.get("location", "")
    return place


async def added(api: Client, place: str, data: bytes, expected: int = 204, length: int | None = None) -> None:
    said = {} if length is None else {"Upload-Length": str(length)}
    await api.ask("PATCH", place, expected, content=data, headers={**TUS, "Upload-Offset": "0", **said})


@pytest.mark.parametrize(("limits", "fits"), [
    ({}, True),
    ({"files": 100 * KIB}, True),
    ({"files": 100 * KIB - 1}, False),
    ({"files": 100 * KIB, "used": 50 * KIB}, True),  # messages have a limit of their own there
    ({"own": 150 * KIB, "used": 50 * KIB}, True),
    ({"own": 150 * KIB, "used": 50 * KIB + 1}, False),
    ({"own": 150 * KIB, "files": 1}, True),  # who has a limit has no other
], ids=str)  # fmt: skip
@pytest.mark.parametrize("way", ["form", "tus", "tus, length later", "tus, length never"])
def test_what_fits(limits: dict[str, int], fits: bool, way: str) -> None:
    async def story(api: Client) -> None:
        first = await api.upload(bytes(60 * KIB))
        allow(api, **limits)
        data = bytes(40 * KIB)
        if way == "form":
            refused = await api.ask("POST", "/api/files", 200 if fits else 413, files={"file": ("a", data)})
            assert fits or list(refused.json()) == ["message"]
        elif way == "tus":
            place = await begun(api, len(data), 201 if fits else 413)
            if fits:
                await added(api, place, data)
        else:
            place = await begun(api, None)
            await added(api, place, data, 204 if fits else 413, len(data) if way.endswith("later") else None)
        if not fits and way in ("form", "tus"):
            assert len(left_on_disk(api)) == 1
        # trash counts as well, until it is emptied
        await api.ask("DELETE", f"/api/files/{first['id']}", 204)
        if not fits:
            await api.ask("POST", "/api/files", 413, files={"file": ("a", data)})
            await api.ask("DELETE", f"/api/files/{first['id']}", 204)
            await api.upload(data)

    over(story)


def test_several_files_of_a_form_are_one_sum() -> None:
    async def story(api: Client) -> None:
        allow(api, files=100)
        many = [("files[]", (f"{n}.txt", bytes(40), "text/plain")) for n in range(3)]
        await api.ask("POST", "/api/files", 413, files=many)
        assert (await api.get("/api/files"))["data"] == []
        assert left_on_disk(api) == []
        await api.ask("POST", "/api/files", files=many[:2])

    over(story)


def test_what_an_upload_said_it_brings_is_kept_for_it() -> None:
    async def story(api: Client) -> None:
        allow(api, files=100)
        place = await begun(api, 80)
        await begun(api, 30, 413)
        await api.ask("POST", "/api/files", 413, files={"file": ("a", bytes(30))})
        allow(api, files=50)  # what was promised holds
        await added(api, place, bytes(80))
        await begun(api, 1, 413)

    over(story)


def test_a_full_disk_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async def story(api: Client) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", full)
            answer = await api.ask("POST", "/api/files", 507, files={"file": ("a", bytes(70 * KIB))})
        assert answer.json() == {"message": "There is no room for this file."}
        assert left_on_disk(api) == []
        await api.upload(bytes(70 * KIB))

    over(story)
