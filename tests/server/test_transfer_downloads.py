"""Which requests use a download up, and which do not; races; ranges; archives; what a wrong key gets."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from qmail_server import logs
from qmail_server.http.app import build_app
from qmail_server.http.errors import Failed
from qmail_server.http.ranges import range_of
from qmail_server.http.transfer.schema import human

from qmail_core.engine.files import downloads
from tests.server.fake_engine import BASE, OPEN
from tests.server.transfer_client import PIN, Client, over, speaker

RACES = int(os.environ.get("QMAIL_RACES", "200"))
SIZE = 300_000
DATA = bytes(range(250)) * (SIZE // 250)


async def cut_off(api: Client, path: str, after: int, chunks: int, **headers: str) -> int:
    """A GET whose client goes away after so many chunks; returns how many bytes it got."""
    place, _, query = path.partition("?")
    gone, got, sent = asyncio.Event(), 0, 0

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal got, sent
        if message["type"] == "http.response.body":
            got += len(message["body"])
            sent += bool(message["body"])
            if sent >= after:
                gone.set()

    scope = {
        "type": "http", "method": "GET", "path": place, "query_string": query.encode(), "scheme": "http",
        "headers": [(b"host", BASE[7:].encode()), *((k.encode(), v.encode()) for k, v in headers.items())],
        "client": ("127.0.0.1", 1234),
    }  # fmt: skip
    if not after:
        gone.set()
    await build_app(api.engine, OPEN)(scope, receive, send)
    return got


Shape = tuple[str, str, dict[str, str], int, bool]
# name, verb, headers, status, whether the download is over afterwards
SHAPES: list[Shape] = [
    ("a whole GET", "GET", {}, 200, True),
    ("a GET with a useless header", "GET", {"Accept": "*/*"}, 200, True),
    ("a GET with a token", "GET", {"Authorization": "Bearer nonsense"}, 200, True),
    ("HEAD", "HEAD", {}, 200, False),
    ("HEAD with a range", "HEAD", {"Range": "bytes=0-9"}, 206, False),
    ("the first byte", "GET", {"Range": "bytes=0-0"}, 206, False),
    ("the last byte", "GET", {"Range": "bytes=-1"}, 206, False),
    ("all but the first byte", "GET", {"Range": "bytes=1-"}, 206, False),
    ("all but the last byte", "GET", {"Range": f"bytes=0-{SIZE - 2}"}, 206, False),
    ("a range of everything", "GET", {"Range": "bytes=0-"}, 206, True),
    ("a longer range than everything", "GET", {"Range": f"bytes=0-{SIZE * 2}"}, 206, True),
    ("the last of more bytes than there are", "GET", {"Range": f"bytes=-{SIZE * 2}"}, 206, True),
    ("a range behind the end", "GET", {"Range": f"bytes={SIZE}-"}, 416, False),
    ("two ranges, which are passed over", "GET", {"Range": "bytes=0-1,5-6"}, 200, True),
    ("another unit, which is passed over", "GET", {"Range": "lines=0-1"}, 200, True),
    ("a range of something else", "GET", {"Range": "bytes=0-9", "If-Range": '"other"'}, 200, True),
    ("Purpose: prefetch", "GET", {"Purpose": "prefetch"}, 403, False),
    ("Sec-Purpose: prefetch", "GET", {"Sec-Purpose": "prefetch;prerender"}, 403, False),
    ("X-Purpose: preview", "GET", {"X-Purpose": "preview"}, 403, False),
    ("a chat that shows links", "GET", {"User-Agent": "Slackbot-LinkExpanding 1.0"}, 403, False),
    ("a page of another site that embeds it", "GET", {"Sec-Fetch-Site": "cross-site"}, 403, False),
    ("a link on a page of another site", "GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
     200, True),
    ("POST", "POST", {}, 405, False),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape[0])
def test_what_uses_a_download_up(shape: Shape) -> None:
    _, verb, headers, status, over_then = shape

    async def story(api: Client) -> None:
        path = await api.download((await api.upload(DATA))["id"])
        answer = await api.http.request(verb, path, headers=headers)
        assert answer.status_code == status, answer.text[:300]
        if status == 200 and verb == "GET":
            assert answer.content == DATA
        again = await api.http.get(path)
        assert again.status_code == (410 if over_then else 200)
        if over_then:
            assert again.json() == {"message": "This download has been used."}
        else:
            assert again.content == DATA
            await api.fetch(path, 410)

    over(story)


@pytest.mark.parametrize(("key", "headers", "status"), [
    ("x" * 32, {}, 403),
    ("", {}, 403),
    ("of another download", {}, 403),
    (None, {}, 401),
    (None, {"Authorization": "Bearer " + "x" * 60}, 401),
    (None, {"Authorization": "of another user"}, 404),
    (None, {"Authorization": "of the owner"}, 200),  # the record, not the bytes
], ids=str)  # fmt: skip
@pytest.mark.parametrize("verb", ["GET", "HEAD"])
def test_who_has_not_the_key_uses_nothing_up(verb: str, key: str | None, headers: dict[str, str], status: int) -> None:
    async def story(api: Client) -> None:
        file = (await api.upload(DATA))["id"]
        path, other = await api.download(file), await api.download(file)
        _, stranger = await api.engine.transfer.tokens.create("other", user=_second_user(api))
        known = {"of another user": f"Bearer {stranger}", "of the owner": f"Bearer {api.token}"}
        sent = {name: known.get(value, value) for name, value in headers.items()}
        given = other.partition("key=")[2] if key == "of another download" else key
        place = path.partition("?")[0] + ("" if given is None else f"?key={given}")
        answer = await api.http.request(verb, place, headers=sent)
        assert answer.status_code == status
        assert DATA[:50] not in answer.content
        for one in (path, other):
            assert (await api.fetch(one)).content == DATA
            await api.fetch(one, 410)

    over(story)


@pytest.mark.parametrize("when", ["before", "in the middle of", "after"])
def test_what_a_client_got_before_it_went_can_be_asked_for_again(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many bytes went out: as long as the connection was gone before the last were counted, nothing is over."""
    monkeypatch.setattr(downloads, "CHUNK", 100_000)

    async def story(api: Client) -> None:
        path = await api.download((await api.upload(DATA))["id"])
        after = {"before": 0, "in the middle of": 2, "after": 3}[when]
        assert await cut_off(api, path, after, 0) <= SIZE
        assert (await api.fetch(path)).content == DATA
        await api.fetch(path, 410)

    over(story)


def test_a_fetch_that_breaks_off_uses_nothing_up_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "CHUNK", 100_000)

    async def story(api: Client) -> None:
        path = await api.download((await api.upload(DATA))["id"])
        assert await cut_off(api, path, 0, 0) <= 100_000
        got = await cut_off(api, path, 2, 0)
        assert got == 200_000
        etag = (await api.http.head(path)).headers["etag"]
        rest = await api.fetch(path, 206, Range=f"bytes={got}-", If_Range=etag)
        assert rest.content == DATA[got:]
        assert rest.headers["content-range"] == f"bytes {got}-{SIZE - 1}/{SIZE}"
        # the last chunk of what broke off was not counted, so one byte of it may still be missing
        await api.http.get(path, headers={"Range": "bytes=0-199999"})
        await api.fetch(path, 410)

    over(story)


def test_a_fetch_cut_off_at_its_very_last_chunk_is_not_complete() -> None:
    async def story(api: Client) -> None:
        path = await api.download((await api.upload(DATA))["id"])
        await cut_off(api, path, 1, 0)
        assert (await api.fetch(path)).content == DATA
        await api.fetch(path, 410)

    over(story)


def test_ranges_that_together_are_everything_use_it_up() -> None:
    async def story(api: Client) -> None:
        path = await api.download((await api.upload(DATA))["id"])
        parts = []
        for start, stop in ((100_000, 200_000), (0, 50_000), (50_000, 100_000)):
            parts.append((await api.fetch(path, 206, Range=f"bytes={start}-{stop - 1}")).content)
        await api.fetch(path, 206, Range="bytes=0-9")  # again, as long as something is missing
        last = (await api.fetch(path, 206, Range="bytes=200000-")).content
        assert parts[1] + parts[2] + parts[0] + last == DATA
        await api.fetch(path, 410)

    over(story)


def test_of_two_that_race_exactly_one_wins() -> None:
    async def story(api: Client) -> None:
        file = (await api.upload(DATA))["id"]
        for _ in range(RACES):
            path = await api.download_without_counting(file)  # type: ignore[attr-defined]
            answers = await asyncio.gather(api.http.get(path), api.http.get(path))
            statuses = sorted(answer.status_code for answer in answers)
            assert statuses in ([200, 409], [200, 410])
            assert next(answer for answer in answers if answer.status_code == 200).content == DATA
            assert (await api.http.get(path)).status_code == 410

    over(_uncounted(story))


def _uncounted(story: Any) -> Any:
    """The limit on requests is not what this is about."""

    async def told(api: Client) -> None:
        from qmail_server.http.transfer import limits

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(limits, "LIMIT", 1 << 30)
            key = await api.pin_key()

            async def quick(file: str) -> str:
                made = (await api.post("/api/downloads", {"files": [file]}))["data"]["id"]
                found = await api.post(f"/api/downloads/{made}/keys", {"pinKey": key})
                return str(found["data"]["url"]).removeprefix(BASE)

            api.download_without_counting = quick  # type: ignore[attr-defined]
            await story(api)

    return told


def test_the_loser_is_told_to_wait_and_then_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "CHUNK", 1000)

    async def story(api: Client) -> None:
        path = await api.download((await api.upload(DATA))["id"])
        begun = asyncio.Event()
        leases = api.engine.transfer.downloads._leases
        begin = leases.begin

        def watched(*args: Any) -> Any:
            begun.set()
            return begin(*args)

        monkeypatch.setattr(leases, "begin", watched)
        winner = asyncio.ensure_future(api.http.get(path))
        await begun.wait()
        refused = await api.fetch(path, 409)
        assert refused.json() == {"message": "This download is under way."}
        assert (await winner).content == DATA
        await api.fetch(path, 410)

    over(story)


def test_another_client_does_not_take_over_what_one_has_begun() -> None:
    async def story(api: Client) -> None:
        path = await api.download((await api.upload(DATA))["id"])
        await api.fetch(path, 206, Range="bytes=0-9")
        other = await speaker(api.cluster, api.engine, build_app(api.engine, OPEN), api.clock, "127.0.0.2")
        assert (await other.fetch(path, 409)).json()["message"] == "Another client has begun this download."
        assert (await api.fetch(path)).content == DATA
        await other.fetch(path, 410)
        await other.http.aclose()

    over(story)


def test_a_download_lives_for_a_minute() -> None:
    async def story(api: Client) -> None:
        path = await api.download((await api.upload(DATA))["id"])
        api.clock.now += 59
        await api.fetch(path, 206, Range="bytes=0-9")
        api.clock.now += 1
        assert (await api.fetch(path, 410)).json() == {"message": "This download has expired."}
        await api.get(path.partition("?")[0], 410)

    over(story)


def test_wrong_keys_and_keys_of_other_downloads_open_nothing() -> None:
    async def story(alice: Client, bob: Client) -> None:
        file = (await alice.upload(DATA))["id"]
        one, two = await alice.download(file), await alice.download(file)
        key = two.partition("key=")[2]
        place = one.partition("?")[0]
        for wrong in (key, "", "x" * 32, key[:-1]):
            assert (await alice.fetch(f"{place}?key={wrong}", 403)).json() == {
                "message": "Download key does not exists"
            }
        assert (await alice.fetch(one)).content == DATA
        assert (await alice.fetch(two)).content == DATA
        await bob.fetch(two, 403)

    over(story, people=2)


def test_a_user_does_not_reach_the_things_of_another() -> None:
    async def story(alice: Client) -> None:
        file = await alice.upload(DATA)
        record = (await alice.post("/api/downloads", {"files": [file["id"]]}))["data"]
        path = await alice.opened(record["id"])
        row, token = await alice.engine.transfer.tokens.create("other", user=_second_user(alice))
        alice.headers, mine = {"Authorization": f"Bearer {token}"}, alice.headers
        assert row.user == 2
        await alice.ask("PUT", "/api/pin", 204, json={"pin": PIN})
        key = await alice.pin_key()
        for verb in ("GET", "PATCH", "DELETE"):
            await alice.ask(verb, f"/api/files/{file['id']}", 404, json={} if verb == "PATCH" else None)
        await alice.get(f"/api/downloads/{record['id']}", 404)
        await alice.ask("DELETE", f"/api/downloads/{record['id']}", 404)
        await alice.post(f"/api/downloads/{record['id']}/keys", {"pinKey": key}, 404)
        assert (await alice.post("/api/downloads", {"files": [file["id"]]}, 422))["errors"]
        assert (await alice.get("/api/files"))["data"] == []
        assert (await alice.post("/api/mails", {"subject": "s", "recipient_email": "alice"}, 403))["message"]
        # their temporary key opens nothing of the first user's
        alice.headers = mine
        await alice.post(f"/api/downloads/{record['id']}/keys", {"pinKey": key}, 422)
        assert (await alice.fetch(path)).content == DATA

    over(story)


def _second_user(api: Client) -> int:
    database: Any = api.engine._store.files._db  # type: ignore[attr-defined]
    with database.read() as db:
        db.execute("INSERT INTO user (id, oid, username, name) VALUES (2, randomblob(12), 'grace', 'Grace Hopper')")
    return 2


def test_several_files_come_as_one_archive_with_ranges() -> None:
    async def story(api: Client) -> None:
        names = ["a.txt", "a.txt", "ä/b.txt", "empty"]
        contents = [DATA, b"other", b"deep", b""]
        ids = [(await api.upload(data, name))["id"] for name, data in zip(names, contents, strict=True)]
        path = await api.download(*ids)
        head = await api.http.head(path)
        half = int(head.headers["content-length"]) // 2
        raw = (await api.fetch(path, 206, Range=f"bytes=0-{half - 1}")).content
        raw += (await api.fetch(path, 206, Range=f"bytes={half}-")).content
        await api.fetch(path, 410)
        archive = zipfile.ZipFile(io.BytesIO(raw))
        assert archive.testzip() is None
        assert archive.namelist() == ["a.txt", "a (2).txt", "b.txt", "empty"]
        assert [archive.read(name) for name in archive.namelist()] == contents

    over(story)


def damage(path: str, place: int) -> None:
    with open(path, "r+b") as stored:
        stored.seek(place)
        stored.write(b"\0\1\2")


def test_bytes_that_were_changed_on_disk_are_never_served() -> None:
    async def story(api: Client) -> None:
        file = (await api.upload(DATA))["id"]
        folder = os.path.join(api.engine.config.data, "Files")
        (name,) = os.listdir(folder)
        damage(os.path.join(folder, name), 100_000)
        path = await api.download(file)
        assert (await api.http.head(path)).status_code == 200
        answer = await api.http.get(path)
        assert answer.status_code == 500
        assert "damaged" in answer.json()["message"]
        damage(os.path.join(folder, name), os.stat(os.path.join(folder, name)).st_size)
        assert (await api.http.get(path)).status_code == 500

    over(story)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Everything this project logs, down to the last detail."""
    logger, stream = logging.getLogger("qmail"), io.StringIO()
    before = logger.handlers, logger.level, logger.propagate, logs.access._stream
    logs.configure("DEBUG", stream=stream)
    yield stream
    logs.access.flush()
    logger.handlers, logger.propagate, logs.access._stream = before[0], before[2], before[3]
    logger.setLevel(before[1])


def test_no_line_of_the_log_has_a_secret(lines: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("qmail").propagate = True

    async def story(api: Client) -> None:
        file = (await api.upload(DATA))["id"]
        key = await api.pin_key()
        path = await api.download(file)
        await api.fetch(path)
        await api.post("/api/keys", {"pin": "9999"}, 422)
        await api.http.get(path.partition("key=")[0] + "key=not-the-key-at-all")
        await api.ask("PUT", "/api/pin", 422, json={"pin": "8888", "current_pin": "7777"})
        made = (await api.http.post("/api/tokens", json={"name": "more"})).json()["data"]["token"]
        await api.ask("POST", "/api/mails", 422, json={"subject": "s", "recipient_email": "alice", "files": [file],
                                                       "pinKey": "not a pin key at all"})  # fmt: skip
        await api.ask("DELETE", f"/api/keys/{key}", 204)
        logs.access.flush()
        # the client of this test has a log of its own
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("qmail")]
        text = "\n".join(ours) + lines.getvalue()
        assert "/api/keys/..." in text
        given = ("9999", "8888", "7777", PIN + '"', "not-the-key-at-all", "not a pin key at all")
        for secret in (api.token, made, key, path.partition("key=")[2], *given):
            assert secret not in text

    with caplog.at_level(logging.DEBUG):
        over(story)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None), ("bytes=", None), ("bytes=-", None),
        ("bytes=5-2", None), ("bytes=a-b", None), ("bytes=0-4", (0, 5)),
        ("bytes=9-", (9, 10)), ("bytes=-3", (7, 10)), ("bytes=-99", (0, 10)), ("bytes=3-99", (3, 10)),
        ("bytes= 1-1 ", (1, 2)), ("bytes=٣-٤", None),
    ],
)  # fmt: skip
def test_ranges(text: str, expected: tuple[int, int] | None) -> None:
    assert range_of(text, 10) == expected


@pytest.mark.parametrize("text", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_ranges_behind_the_end(text: str) -> None:
    with pytest.raises(Failed) as caught:
        range_of(text, 10)
    assert caught.value.headers is not None
    assert caught.value.headers["Content-Range"] == "bytes */10"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.00 B"), (1023, "1023.00 B"), (1024, "1.00 KB"), (43389, "42.37 KB"), (78508, "76.67 KB"),
     (1024**2 - 1, "1.00 MB"), (5 * 1024**3, "5.00 GB")],
)  # fmt: skip
def test_sizes_in_words(size: int, text: str) -> None:
    assert human(size) == text
