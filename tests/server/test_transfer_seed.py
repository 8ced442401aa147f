"""The documented calls of the file-transfer API, from the token to the bytes."""

from __future__ import annotations

import os
from typing import Any

import httpx
import pytest
from qmail_server.http.app import build_app
from qmail_server.http.guard import GuardSettings
from qmail_server.http.transfer.inbox import markup
from qmail_server.http.transfer.schema import moment

from tests.server.fake_engine import BASE, OPEN, assert_contains_in_order
from tests.server.transfer_client import Client, over

FILE = {
    "id": "fad2027a-ac89-4ef4-baab-95b2fb316cf1",
    "filename": "invoice",
    "type": "application/pdf",
    "extension": "pdf",
    "full_filename": "invoice.pdf",
    "size": 43389,
    "formatted_size": "42.37 KB",
    "encrypted_size": 78508,
    "formatted_encrypted_size": "76.67 KB",
    "created_by": {},
    "created_at": "2019-05-08 00:18:03",
    "disk": "local-spaces",
    "trashed": False,
}
PERSON = {"name": "", "initials": "", "email": "", "photo_url": "", "timezone": "Europe/Vilnius"}
MAIL = {"id": "", "identifier": "1Kh2", "subject": "", "body": "", "sender": {}, "download": {}, "received_at": "",
        "opened": True}  # fmt: skip


def test_a_download_as_the_seed_shows_it() -> None:
    async def story(api: Client) -> None:
        file = await api.upload(bytes(43389))
        answer = await api.post("/api/downloads", {"files": [file["id"]]})
        assert list(answer) == ["data"]
        download = answer["data"]
        assert_contains_in_order(download, {"id": "", "files": [], "created_at": "2019-05-20 14:39:29"})
        shown = download["files"][0]
        assert_contains_in_order(shown, FILE)
        assert_contains_in_order(shown["created_by"], PERSON)
        assert (shown["filename"], shown["extension"], shown["type"]) == ("invoice", "pdf", "application/pdf")
        assert (shown["size"], shown["formatted_size"]) == (43389, "42.37 KB")
        assert shown["encrypted_size"] == 43389 + 8 + 23
        url = await api.opened(download["id"])
        got = await api.fetch(url)
        assert got.content == bytes(43389)
        assert got.headers["content-disposition"].startswith('attachment; filename="invoice.pdf"')
        refused = await api.fetch(url, 410)
        assert refused.json() == {"message": "This download has been used."}

    over(story)


def test_the_documented_validation_errors() -> None:
    async def story(api: Client) -> None:
        wrong = {"message": "The given data was invalid.", "errors": {"files": ["The files field is required."]}}
        bodies: list[dict[str, Any]] = [{}, {"files": []}, {"files": None}, {"files": ""}]
        for body in bodies:
            assert await api.post("/api/downloads", body, 422) == wrong
        assert await api.post("/api/keys", {"pin": "4321"}, 422) == {
            "message": "The given data was invalid.",
            "errors": {"pin": ["Invalid PIN."]},
        }
        file = await api.upload()
        made = await api.post("/api/downloads", {"files": [file["id"]]})
        assert await api.post(f"/api/downloads/{made['data']['id']}/keys", {"pinKey": "x" * 32}, 422) == {
            "message": "The given data was invalid.",
            "errors": {"pinKey": ["Pin key does not exists"]},
        }
        assert (await api.post("/api/downloads", {"files": "x"}, 422))["errors"] == {
            "files": ["The files must be an array."]
        }
        unknown = {"files": [file["id"], "811f216d-eb8f-46fc-a263-08387c70a4a4", "x"]}
        assert list((await api.post("/api/downloads", unknown, 422))["errors"]) == ["files.2"]
        assert list((await api.post("/api/downloads", {"files": unknown["files"][:2]}, 422))["errors"]) == ["files.1"]

    over(story)


def test_a_mail_with_files_from_one_to_the_other() -> None:
    async def story(alice: Client, bob: Client) -> None:
        files = [await alice.upload(b"first" * 30_000, "a.txt"), await alice.upload(b"second", "a.txt")]
        mail: dict[str, Any] = {"subject": "Secure files", "body": "<p>Mail body</p>", "recipients": ["bob"]}
        mail["files"] = [file["id"] for file in files]
        assert list((await alice.post("/api/mails", mail, 422))["errors"]) == ["pinKey"]
        long = mail | {"subject": "é" * 128, "pinKey": await alice.pin_key()}
        assert list((await alice.post("/api/mails", long, 422))["errors"]) == ["subject"]
        answer = await alice.ask("POST", "/api/mails", json={**mail, "pinKey": await alice.pin_key()})
        (row,) = answer.json()["data"]
        assert (row["recipient_email"], row["status"], row["opened_at"]) == ("bob", "queued", "")
        assert (await alice.engine.wait(answer.headers["x-qmail-operation-id"])).status == "success"
        assert os.listdir(os.path.join(alice.engine.config.data, "Spool")) == []
        sent = (await alice.get(f"/api/mails/{row['id']}?include=download.files,author"))["data"]
        assert sent["status"] == "success"
        assert sent["sent_at"]
        assert [file["size"] for file in sent["download"]["files"]] == [150_000, 6]
        listed = await bob.get("/api/inbox?include=download")
        (received,) = listed["data"]
        assert_contains_in_order(received, MAIL)
        assert (received["body"], received["sender"]["name"]) == ("<p>Mail body</p>", "alice")
        assert listed["meta"]["total"] == 1
        one = (await bob.get(f"/api/inbox/{received['id']}?include=download.files,author"))["data"]
        assert [file["full_filename"] for file in one["download"]["files"]] == ["a.txt", "a.txt"]
        url = await bob.opened(one["download"]["id"])
        archive = await bob.fetch(url)
        assert archive.headers["content-type"] == "application/zip"
        assert (await bob.fetch(url)).content == archive.content  # not for one use only
        await alice.get(f"/api/inbox/{received['id']}", 404)

    over(story, people=2)


@pytest.mark.parametrize("how", ["read", "downloaded", "looked at"])
def test_the_sender_sees_when_a_mail_was_opened(how: str) -> None:
    async def story(alice: Client, bob: Client) -> None:
        file = (await alice.upload(b"a file"))["id"]
        body = {"subject": "s", "recipient_email": "bob", "files": [file], "pinKey": await alice.pin_key()}
        answer = await alice.ask("POST", "/api/mails", json=body)
        assert (await alice.engine.wait(answer.headers["x-qmail-operation-id"])).status == "success"
        (received,) = (await bob.get("/api/inbox?include=download"))["data"]
        assert not received["opened"]
        url = await bob.opened(received["download"]["id"])
        assert (await bob.http.head(url)).status_code == 200
        assert not (await bob.get("/api/inbox"))["data"][0]["opened"]
        bob.clock.now += 1000
        if how == "read":
            assert (await bob.get(f"/api/inbox/{received['id']}"))["data"]["opened"]
        elif how == "downloaded":
            await bob.fetch(url)
        assert (await bob.get("/api/inbox"))["data"][0]["opened"] == (how != "looked at")
        await bob.engine._opened.tell_due()
        (row,) = (await alice.get("/api/mails"))["data"]
        assert row["opened_at"] == ("" if how == "looked at" else moment(int(bob.clock.now)))

    over(story, people=2)


PATHS = [("GET", "/api/inbox"), ("GET", "/api/inbox/x"), ("GET", "/api/mails"), ("POST", "/api/mails"),
         ("GET", "/api/mails/x"), ("GET", "/api/files"), ("POST", "/api/files"), ("PATCH", "/api/files/x"),
         ("DELETE", "/api/files/x"), ("POST", "/api/files/tus"), ("PATCH", "/api/files/tus/x"),
         ("POST", "/api/downloads"), ("GET", "/api/downloads/x"), ("POST", "/api/downloads/x/keys"),
         ("POST", "/api/keys"), ("DELETE", "/api/keys/x"), ("PUT", "/api/pin")]  # fmt: skip


def test_every_call_needs_a_token_even_where_the_port_is_open() -> None:
    async def story(api: Client) -> None:
        for verb, path in PATHS:
            for headers in ({}, {"Authorization": "Bearer " + "x" * 60}, {"Authorization": f"Basic {api.token}"}):
                answer = await api.http.request(verb, path, headers=headers)
                assert (answer.status_code, answer.json()) == (401, {"message": "Unauthenticated."}), path
                assert answer.headers["x-ratelimit-limit"] == "300"

    over(story)


def test_the_limit_is_said_and_kept() -> None:
    async def story(api: Client) -> None:
        left = [int((await api.ask("GET", "/api/pin")).headers["x-ratelimit-remaining"]) for _ in range(300)]
        assert left == list(range(299, -1, -1))
        refused = await api.ask("GET", "/api/pin", 429)
        assert refused.json() == {"message": "Too Many Attempts."}
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert int(refused.headers["x-ratelimit-reset"]) > 1_000_000_000
        # the rest of the port is not counted
        assert (await api.http.get("/api/tokens")).status_code == 200

    over(story)


@pytest.mark.parametrize("path", ["/api/inbox", "/api/mails", "/api/files"])
def test_lists_are_bare_arrays_with_pages_beside_them(path: str) -> None:
    async def story(api: Client) -> None:
        for number in range(5 if path == "/api/files" else 0):
            await api.upload(bytes(number), f"file-{number}.bin")
        answer = await api.get(f"{path}?page=1&per_page=2")
        assert list(answer) == ["data", "links", "meta"]
        assert answer["meta"]["per_page"] == 2
        assert answer["links"]["prev"] is None
        if path == "/api/files":
            assert [row["size"] for row in answer["data"]] == [4, 3]
            following = await api.get(answer["links"]["next"])
            assert [row["size"] for row in following["data"]] == [2, 1]
            assert following["meta"] | {"total": 5, "last_page": 3, "from": 3, "to": 4} == following["meta"]
            assert [row["size"] for row in (await api.get("/api/files?sort=size"))["data"]] == [0, 1, 2, 3, 4]
            assert (await api.get("/api/files?sort=-filename_original"))["data"][0]["size"] == 4
            assert len((await api.get("/api/files?keyword=FILE-3"))["data"]) == 1
        for query in ("sort=nonsense", "per_page=101", "page=0", "page=x", "include=nonsense"):
            assert (await api.get(f"{path}?{query}", 422))["message"] == "The given data was invalid."

    over(story)


def test_tokens_are_made_listed_and_revoked() -> None:
    async def story(api: Client) -> None:
        made = await api.post("/api/tokens", {"name": "Backup"})
        token = made["data"].pop("token")
        assert len(token) == 60
        assert made["data"] in (await api.get("/api/tokens"))["data"]
        assert token not in (await api.ask("GET", "/api/tokens")).text
        assert token.encode() not in b"".join(api.engine._store._database._writer.serialize() for _ in "1")  # type: ignore[attr-defined]
        used = {"Authorization": f"Bearer {token}"}
        assert (await api.http.get("/api/files", headers=used)).status_code == 200
        await api.ask("DELETE", f"/api/tokens/{made['data']['id']}", 204)
        assert (await api.http.get("/api/files", headers=used)).status_code == 401
        await api.ask("DELETE", f"/api/tokens/{made['data']['id']}", 404)
        assert (await api.post("/api/tokens", {}, 422))["errors"] == {"name": ["The name field is required."]}

    over(story)


def test_the_other_errors_have_the_same_shape() -> None:
    async def story(api: Client) -> None:
        calls: list[tuple[str, str, int, dict[str, Any]]] = [
            ("GET", "/api/files/811f216d-eb8f-46fc-a263-08387c70a4a4", 404, {}),
            ("GET", "/api/files/nonsense", 404, {}),
            ("GET", "/api/files/a/b", 404, {}),
            ("PUT", "/api/files", 405, {}),
            ("POST", "/api/downloads", 400, {"content": b"{"}),
            ("POST", "/api/downloads", 400, {"content": b"[]"}),
            ("DELETE", "/api/keys/nonsense", 404, {}),
            ("GET", "/api/downloads/811f216d-eb8f-46fc-a263-08387c70a4a4", 404, {}),
            ("GET", "/api/downloads/811f216d-eb8f-46fc-a263-08387c70a4a4?key=x", 403, {}),
            ("POST", "/api/mails", 422, {"json": {"subject": "s", "recipients": ["nobody at all"]}}),
        ]
        for verb, path, status, options in calls:
            answer: httpx.Response = await api.ask(verb, path, status, **options)
            assert answer.json()["message"], path

    over(story)


def test_where_the_port_has_a_token_it_makes_tokens_and_nothing_else() -> None:
    async def story(api: Client) -> None:
        guard = GuardSettings(hosts=OPEN.hosts, token="the port's own")
        transport = httpx.ASGITransport(build_app(api.engine, guard))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            port = {"Authorization": "Bearer the port's own"}
            for verb in ("GET", "POST"):
                assert (await http.request(verb, "/api/tokens", headers=api.headers)).status_code == 401
            assert (await http.get("/api/files", headers=port)).json() == {"message": "Unauthenticated."}
            made = (await http.post("/api/tokens", json={"name": "n"}, headers=port)).json()["data"]
            mine = {"Authorization": f"Bearer {made['token']}"}
            assert (await http.get("/api/files", headers=mine)).status_code == 200
            path = await api.download((await api.upload())["id"])
            assert (await http.get(path)).content == b"content"

    over(story)


def test_a_user_who_goes_takes_everything_along() -> None:
    async def story(api: Client) -> None:
        database: Any = api.engine._store.files._db  # type: ignore[attr-defined]
        with database.read() as db:
            db.execute("INSERT INTO user (id, oid, username, name) VALUES (2, randomblob(12), 'grace', 'Grace')")
        _, token = await api.engine.transfer.tokens.create("other", user=2)
        api.headers = {"Authorization": f"Bearer {token}"}
        await api.ask("PUT", "/api/pin", 204, json={"pin": "1234"})
        await api.download((await api.upload())["id"])
        with database.read() as db:
            db.execute("DELETE FROM user WHERE id=2")
        await api.get("/api/files", 401)
        api.engine.transfer.sweep()
        assert api.engine._store.files.known_files() == set()

    over(story)


def test_bodies_are_json_or_forms_whatever_they_are_called() -> None:
    async def story(api: Client) -> None:
        file = (await api.upload())["id"]
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        calls: list[tuple[dict[str, str], str]] = [
            (form, f"files[]={file}"),
            (form, f' {{"files":["{file}"]}}'),
            ({}, f'{{"files":["{file}"]}}'),
            ({"Content-Type": "text/plain"}, f'{{"files":["{file}"]}}'),
        ]
        for headers, raw in calls:
            answer = await api.ask("POST", "/api/downloads", headers=headers, content=raw)
            assert answer.json()["data"]["files"][0]["id"] == file
        await api.ask("POST", "/api/downloads", 413, headers=form, content="a=1&" * 400)

    over(story)


def test_keywords_find_the_fields_they_are_said_to() -> None:
    async def story(alice: Client, bob: Client) -> None:
        for subject in ("Zebra 100%", "apple_pie"):
            await alice.post("/api/mails", {"subject": subject, "body": "x", "recipients": ["bob", "alice"]})
        for task in list(alice.engine._tasks._states):
            assert (await alice.engine.wait(task)).status == "success"

        async def found(api: Client, path: str, **query: str) -> list[str]:
            return [row["subject"] for row in (await api.get(path, params=query))["data"]]

        assert await found(alice, "/api/mails", keyword="BOB") == ["apple_pie", "Zebra 100%"]
        assert len(await found(alice, "/api/mails")) == 4
        assert await found(alice, "/api/mails", keyword="0%", sort="recipient_email") == ["Zebra 100%"] * 2
        rows = (await alice.get("/api/mails?sort=-recipient_email"))["data"]
        assert [row["recipient_email"] for row in rows] == ["bob", "bob", "alice", "alice"]
        assert await found(bob, "/api/inbox", sort="subject") == ["apple_pie", "Zebra 100%"]
        assert await found(bob, "/api/inbox", sort="-subject", keyword="alice") == ["Zebra 100%", "apple_pie"]
        assert await found(bob, "/api/inbox", keyword="e_p") == ["apple_pie"]
        (row, _) = (await bob.get("/api/inbox"))["data"]
        assert len(await found(bob, "/api/inbox", keyword=row["identifier"])) >= 1
        assert await found(bob, "/api/inbox", keyword="nothing of the kind") == []
        # one that was sent to oneself is in both
        assert len(await found(alice, "/api/inbox")) == 2

    over(story, people=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("<p>Mail body</p>", "<p>Mail body</p>"),
        ("1 < 2 & so on", "<p>1 &lt; 2 &amp; so on</p>"),
        ("one\ntwo", "<p>one<br>two</p>"),
        ("a <b>word</b>", "<p>a &lt;b&gt;word&lt;/b&gt;</p>"),
    ],
)
def test_texts_become_markup(text: str, expected: str) -> None:
    assert markup(text) == expected
