"""Uploads: forms of every shape, tus, PINs and keys, and what a crash leaves."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from typing import Any

import httpx
import pytest
from qmail_server.http.app import build_app
from qmail_server.http.transfer import tus

from qmail_core.codec.vault import SEGMENT
from qmail_core.engine.files import pins, uploads
from tests.server.fake_engine import OPEN
from tests.server.transfer_client import PIN, Client, over

SIZES = [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 5 * SEGMENT + 17, 700_000]
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}


def stored(api: Client) -> list[str]:
    return sorted(os.listdir(os.path.join(api.engine.config.data, "Files")))


@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_any_size_comes_back_as_it_was(size: int) -> None:
    data = os.urandom(size)

    async def story(api: Client) -> None:
        file = await api.upload(data, "x.bin", "")
        assert (file["size"], file["checksum"]) == (size, hashlib.sha256(data).hexdigest())
        (name,) = stored(api)
        path = os.path.join(api.engine.config.data, "Files", name)
        assert os.stat(path).st_size == file["encrypted_size"]
        assert os.stat(path).st_mode & 0o777 == 0o600
        assert (await api.fetch(await api.download(file["id"]))).content == data

    over(story)


def test_nothing_readable_is_on_disk() -> None:
    async def story(api: Client) -> None:
        await api.upload(b"a secret text" * 10_000)
        (name,) = stored(api)
        with open(os.path.join(api.engine.config.data, "Files", name), "rb") as file:  # noqa: ASYNC230
            assert b"secret" not in file.read()

    over(story)


def test_several_files_in_one_form() -> None:
    async def story(api: Client) -> None:
        parts = [("files[]", ("a.tar.gz", b"1")), ("file", ("../../b", b"22")), ("files[]", ("", b""))]
        rows = (await api.ask("POST", "/api/files", files=parts)).json()["data"]
        names = [(row["filename"], row["extension"], row["size"]) for row in rows]
        assert names == [("a.tar", "gz", 1), ("b", "", 2)]

    over(story)


FORM = "multipart/form-data; boundary=b"
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
BAD: list[tuple[str, str, bytes, int]] = [
    ("nothing", "", b"", 422),
    ("JSON", "application/json", b"{}", 422),
    ("no boundary", "multipart/form-data", HEAD, 400),
    ("an end too early", FORM, HEAD + b"data", 400),
    ("an end in the header", FORM, HEAD[:20], 400),
    ("another boundary", "multipart/form-data; boundary=c", HEAD + b"\r\n--b--\r\n", 400),
    ("no name", FORM, b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", 400),
    ("no disposition", FORM, b"--b\r\nX: y\r\n\r\nx\r\n--b--\r\n", 400),
    ("a field nobody asked for", FORM, HEAD.replace(b'"file"', b'"photo"') + b"x\r\n--b--\r\n", 422),
    ("no file in it", FORM, HEAD.replace(b'; filename="x"', b"") + b"x\r\n--b--\r\n", 422),
    ("a header without end", FORM, b"--b\r\nX: " + b"y" * 20_000, 400),
    ("a good file and then rubbish", FORM, HEAD + b"x\r\n--b\r\nrubbish", 400),
    ("a text without end", FORM, HEAD.replace(b'; filename="x"', b"") + b"y" * 70_000, 413),
]  # fmt: skip


@pytest.mark.parametrize("body", [b'{"pin":"\xff"}', b'{"\xc3":1}', b"{", b"[" * 100_000, b"1"])
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    async def story(api: Client) -> None:
        bad = await api.ask("POST", "/api/keys", 400, content=body, headers={"Content-Type": "application/json"})
        assert bad.json()["message"].startswith("The body is not ")

    over(story)


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[0])
def test_a_form_that_is_none_leaves_nothing(case: tuple[str, str, bytes, int]) -> None:
    _, kind, raw, status = case

    async def story(api: Client) -> None:
        headers = {"Content-Type": kind} if kind else {}
        answer = await api.ask("POST", "/api/files", status, content=raw, headers=headers)
        assert (status == 422) is ("errors" in answer.json())
        assert stored(api) == []
        assert (await api.get("/api/files"))["data"] == []

    over(story)


def test_a_form_that_breaks_off_leaves_nothing() -> None:
    async def story(api: Client) -> None:
        messages: list[Any] = [
            {"type": "http.request", "body": HEAD + b"x" * 600_000, "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            raise AssertionError("nobody is left to be told")

        headers = {"host": "127.0.0.1:8080", "content-type": FORM, **api.headers}
        scope = {
            "type": "http", "method": "POST", "path": "/api/files", "query_string": b"", "scheme": "http",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()], "client": None,
        }  # fmt: skip
        await build_app(api.engine, OPEN)(scope, receive, send)
        assert stored(api) == []

    over(story)


def test_names_the_trash_and_the_end_of_a_file() -> None:
    async def story(api: Client) -> None:
        path = f"/api/files/{(await api.upload())['id']}"
        shown = (await api.ask("PATCH", path, json={"filename": "minutes"})).json()["data"]
        assert shown["full_filename"] == "minutes.pdf"
        shown = (await api.ask("PATCH", path, json={"full_filename": "a/notes.txt"})).json()["data"]
        assert (shown["filename"], shown["extension"]) == ("notes", "txt")
        await api.ask("DELETE", path, 204)
        assert (await api.get("/api/files"))["data"] == []
        assert [row["trashed"] for row in (await api.get("/api/files?trashed=1"))["data"]] == [True]
        assert (await api.post("/api/downloads", {"files": [shown["id"]]}, 422))["errors"]
        assert not (await api.ask("PATCH", path, json={"trashed": False})).json()["data"]["trashed"]
        download = await api.download(shown["id"])
        for _ in range(2):
            await api.ask("DELETE", path, 204)
        await api.get(path, 404)
        assert stored(api) == []
        await api.fetch(download, 404)

    over(story)


# ---------------------------------------------------------------------------------------------------------------- tus


async def begun(api: Client, length: int | None, expected: int = 201, **headers: str) -> str:
    said = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    meta = f"filename {base64.b64encode(b'big.bin').decode()},filetype {base64.b64encode(b'text/plain').decode()}"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await api.ask(
        "POST", "/api/files/tus", expected, headers={**TUS, **said, "Upload-Metadata": meta, **named}
    )
    return str(answer.headers.get("location"))


async def add(api: Client, place: str, at: int, data: bytes, expected: int = 204, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.ask("PATCH", place, expected, content=data, headers={**BYTES, "Upload-Offset": str(at), **named})


async def offset(api: Client, place: str) -> int:
    return int((await api.ask("HEAD", place, headers=TUS)).headers["upload-offset"])


@pytest.mark.parametrize("size", SIZES)
def test_tus_in_two_halves_and_a_restart_between(size: int) -> None:
    data = os.urandom(size)

    async def story(api: Client) -> None:
        place = await begun(api, size)
        half = size // 2
        if half:
            await add(api, place, 0, data[:half])
            assert await offset(api, place) == half
            api.engine.transfer.close()  # what a restart does
            api.engine.transfer.sweep()
        if size:
            answer = await add(api, place, half, data[half:])
            assert answer.headers["upload-offset"] == str(size)
        assert await offset(api, place) == size
        file = (await api.get(place.replace("/tus/", "/")))["data"]
        assert (file["full_filename"], file["type"]) == ("big.bin", "text/plain")
        assert file["checksum"] == hashlib.sha256(data).hexdigest()
        assert (await api.fetch(await api.download(file["id"]))).content == data

    over(story)


def test_tus_says_what_it_can_and_refuses_the_rest() -> None:
    async def story(api: Client) -> None:
        about = await api.http.request("OPTIONS", "/api/files/tus")
        assert (about.status_code, about.headers["tus-version"]) == (204, "1.0.0")
        assert "termination" in about.headers["tus-extension"]
        assert (await api.ask("POST", "/api/files/tus", 412)).headers["tus-version"] == "1.0.0"
        await api.ask("POST", "/api/files/tus", 400, headers=TUS)
        await begun(api, uploads.MAX_SIZE + 1, 413)
        await begun(api, 5, 400, Upload_Metadata="filename ???")
        place = await begun(api, 10)
        await api.ask("PATCH", place, 415, headers={**TUS, "Upload-Offset": "0"}, content=b"x")
        await api.ask("PATCH", place, 400, headers=BYTES, content=b"x")
        await add(api, place, 1, b"x", 409)
        await add(api, place, 0, b"x" * 11, 413)
        assert await offset(api, place) == 0
        await add(api, place, 0, b"12345")
        other = await begun(api, None)
        await add(api, other, 0, b"12")
        assert (await api.ask("HEAD", other, headers=TUS)).headers["upload-defer-length"] == "1"
        await add(api, other, 2, b"34", Upload_Length="4")
        assert await offset(api, other) == 4
        await api.ask("POST", place, 204, headers={**TUS, "X-HTTP-Method-Override": "DELETE"})
        await api.ask("HEAD", place, 404, headers=TUS)
        assert len(stored(api)) == 1

    over(story)


def test_tus_checks_sums_and_forgets_what_does_not_fit() -> None:
    async def story(api: Client) -> None:
        place, data = await begun(api, 200_000), os.urandom(200_000)
        for name in ("sha1", "sha256"):
            digest = base64.b64encode(hashlib.new(name, data[:1000]).digest()).decode()
            await add(api, place, 0, data[:999], 460, Upload_Checksum=f"{name} {digest}")
            assert await offset(api, place) == 0
        await add(api, place, 0, b"", 400, Upload_Checksum="md5 aaaa")
        await add(api, place, 0, data[:1000], Upload_Checksum=f"{name} {digest}")
        await add(api, place, 1000, os.urandom(150_000), 460, Upload_Checksum=f"{name} {digest}")
        await add(api, place, 1000, data[1000:])
        file = (await api.get(place.replace("/tus/", "/")))["data"]
        assert file["checksum"] == hashlib.sha256(data).hexdigest()
        assert (await api.fetch(await api.download(file["id"]))).content == data

    over(story)


@pytest.mark.parametrize("silent", [False, True])
def test_tus_keeps_what_came_before_a_connection_broke(silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tus, "_SILENCE", 0.05 if silent else 30.0)

    async def story(api: Client) -> None:
        place, data = await begun(api, 300_000), os.urandom(300_000)
        messages: list[Any] = [
            {"type": "http.request", "body": data[:100_000], "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Any:
            if silent and len(messages) == 1:
                await asyncio.Event().wait()
            return messages.pop(0)

        async def send(message: Any) -> None:
            raise AssertionError("nobody is left to be told")

        headers = {"host": "127.0.0.1:8080", **BYTES, "Upload-Offset": "0", **api.headers}
        scope = {
            "type": "http", "method": "PATCH", "path": place, "query_string": b"", "scheme": "http",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()], "client": None,
        }  # fmt: skip
        await build_app(api.engine, OPEN)(scope, receive, send)
        assert await offset(api, place) == 100_000
        await add(api, place, 100_000, data[100_000:])
        file = (await api.get(place.replace("/tus/", "/")))["data"]
        assert file["checksum"] == hashlib.sha256(data).hexdigest()

    over(story)


def test_tus_uploads_end_after_a_day_and_belong_to_one_token() -> None:
    async def story(api: Client) -> None:
        place = await begun(api, 10)
        await add(api, place, 0, b"12345")
        _, token = await api.engine.transfer.tokens.create("other")
        mine, api.headers = api.headers, {"Authorization": f"Bearer {token}"}
        await api.ask("HEAD", place, 404, headers=TUS)
        await add(api, place, 5, b"67890", 404)
        api.headers = mine
        api.clock.now += uploads.LIFE
        await add(api, place, 5, b"67890", 404)
        await api.engine.transfer.uploads.expire()
        assert stored(api) == []
        place = await begun(api, 10)
        (row, *_) = api.engine.transfer.tokens.listed()
        await api.engine.transfer.tokens.revoke(row.id)
        assert stored(api) == []

    over(story)


def test_only_one_request_writes_to_an_upload() -> None:
    async def story(api: Client) -> None:
        place = await begun(api, 10)
        owner = api.engine.transfer.tokens.owner(api.token)
        upload = bytes.fromhex(place.rpartition("/")[2].replace("-", ""))
        async with api.engine.transfer.uploads.append(owner, upload, 0) as adding:
            await adding.write(b"12345")
            await add(api, place, 0, b"x", 423)
            await api.ask("DELETE", place, 423, headers=TUS)
        assert await offset(api, place) == 5

    over(story)


def test_a_start_sweeps_what_never_became_a_file() -> None:
    async def story(api: Client) -> None:
        kept = await api.upload()
        place = await begun(api, 10)
        owner = api.engine.transfer.tokens.owner(api.token)
        half = api.engine.transfer.uploads.begin(owner, "half", "")
        await half.write(bytes(600_000))
        assert len(stored(api)) == 3
        api.engine.transfer.sweep()
        assert len(stored(api)) == 2
        half.writer.close()
        assert (await api.get(f"/api/files/{kept['id']}"))["data"] == kept
        assert await offset(api, place) == 0

    over(story)


# ---------------------------------------------------------------------------------------------------------------- PIN


def test_a_pin_takes_a_while_and_memory_to_try() -> None:
    assert pins.COST >= 1 << 15  # 32 MiB each, and no more than two at a time
    assert (pins.GUESSES, pins.WINDOW, pins._AT_ONCE) == (5, 900, 2)


def test_five_wrong_pins_are_enough_for_a_quarter_of_an_hour() -> None:
    async def story(api: Client) -> None:
        # at the same time: guesses are counted before they are tried
        tries = await asyncio.gather(*(api.http.post("/api/keys", json={"pin": "0000"}, headers=api.headers)
                                       for _ in range(20)))  # fmt: skip
        assert sorted(answer.status_code for answer in tries) == [422] * 5 + [429] * 15
        refused = await api.ask("POST", "/api/keys", 429, json={"pin": PIN})
        assert refused.json() == {"message": "Too Many Attempts."}
        assert int(refused.headers["retry-after"]) == pins.WINDOW
        await api.ask("PUT", "/api/pin", 429, json={"pin": "5678", "current_pin": PIN})
        api.clock.now += pins.WINDOW
        await api.pin_key()

    over(story)


def test_a_pin_is_set_once_and_changed_with_the_old_one() -> None:
    async def story(api: Client) -> None:
        file = (await api.upload(b"before"))["id"]
        key = await api.pin_key()
        assert (await api.get("/api/pin")) == {"data": {"set": True}}
        wrong = await api.ask("PUT", "/api/pin", 422, json={"pin": "5678"})
        assert wrong.json()["errors"] == {"current_pin": ["Invalid PIN."]}
        for pin in ("123", "1" * 65, 1234, ""):
            await api.ask("PUT", "/api/pin", 422, json={"pin": pin, "current_pin": PIN})
        await api.ask("PUT", "/api/pin", 204, json={"pin": "5678", "current_pin": PIN})
        made = (await api.post("/api/downloads", {"files": [file]}))["data"]["id"]
        await api.post(f"/api/downloads/{made}/keys", {"pinKey": key}, 422)
        await api.post("/api/keys", {"pin": PIN}, 422)
        key = (await api.post("/api/keys", {"pin": "5678"}))["data"]["key"]
        url = (await api.post(f"/api/downloads/{made}/keys", {"pinKey": key}))["data"]["url"]
        assert (await api.fetch(url)).content == b"before"

    over(story)


def test_a_temporary_key_lives_for_an_hour_or_until_it_is_deleted() -> None:
    async def story(api: Client) -> None:
        file = (await api.upload())["id"]
        key = await api.pin_key()
        assert len(key) == 32
        api.clock.now += pins.KEY_LIFE - 1
        made = (await api.post("/api/downloads", {"files": [file]}))["data"]["id"]
        await api.post(f"/api/downloads/{made}/keys", {"pinKey": key})
        api.clock.now += 1
        await api.post(f"/api/downloads/{made}/keys", {"pinKey": key}, 422)
        key = await api.pin_key()
        assert (await api.ask("DELETE", f"/api/keys/{key}", 204)).content == b""
        await api.post(f"/api/downloads/{made}/keys", {"pinKey": key}, 422)
        await api.ask("DELETE", f"/api/keys/{key}", 404)

    over(story)


def test_without_a_pin_nothing_is_taken_in() -> None:
    async def story(api: Client) -> None:
        api.engine._store.files._db._writer.execute("DELETE FROM transfer_vault")  # type: ignore[attr-defined]
        refused = await api.ask("POST", "/api/files", 409, files={"file": ("x", b"x")})
        assert "PUT /api/pin" in refused.json()["message"]
        await begun(api, 10, 409)
        await api.post("/api/keys", {"pin": PIN}, 422)
        assert stored(api) == []
        await api.ask("PUT", "/api/pin", 204, json={"pin": PIN})
        await api.upload()

    over(story)
