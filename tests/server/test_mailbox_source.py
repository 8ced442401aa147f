"""Raw messages over HTTP: stored as they come, served byte for byte, their parts decoded."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import pytest
from qmail_server.http.mailbox import source

from qmail_core.model import Source
from tests.server.mailbox_client import Client, over

PNG = b"\x89PNG\r\n" + bytes(range(256)) * 40


def letter(subject: str = "Übersicht", **headers: str) -> bytes:
    message = EmailMessage()
    message["From"] = "Ada Byron <ada@example.org>"
    message["To"] = "Test User <alice@example.org>, cy@example.org"
    message["Subject"] = subject
    message["Date"] = "Wed, 02 Nov 2011 19:19:08 +0000"
    message["Message-ID"] = headers.pop("message_id", "<1@example.org>")
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content("Beginning text in the message\nsecond line\n")
    message.add_alternative('<p>Hello <img src="cid:logo"></p>', subtype="html")
    html = message.get_payload()[1]  # type: ignore[index]
    html.add_related(PNG, "image", "png", cid="<logo>", filename="logo.png")  # type: ignore[union-attr]
    message.add_attachment(b"%PDF-1.4 " * 900, maintype="application", subtype="pdf", filename="plän.pdf")
    return message.as_bytes()


async def store(api: Client, raw: bytes, **params: Any) -> dict[str, Any]:
    path = f"/users/{api.user}/mailboxes/{api.box('INBOX')}/messages"
    headers = {"content-type": "message/rfc822"}
    return (await api.ask("POST", path, content=raw, headers=headers, params=params))["message"]  # type: ignore[no-any-return]


def test_a_message_is_served_byte_for_byte_and_its_parts_decoded() -> None:
    async def story(api: Client) -> None:
        raw = letter()
        stored = await store(api, raw, unseen="1")
        inbox = f"/mailboxes/{api.box('INBOX')}/messages"
        path = f"{inbox}/{stored['name']}"
        answer = await api.http.get(f"/users/{api.user}{path}/message.eml")
        assert (answer.content, answer.headers["content-type"]) == (raw, "message/rfc822")
        shown = await api.get(path)
        assert shown["from"] == {"address": "ada@example.org", "name": "Ada Byron"}
        assert shown["to"][0] == {"address": "alice@example.org", "name": "Test User"}
        assert (shown["subject"], shown["messageId"], shown["seen"]) == ("Übersicht", "<1@example.org>", False)
        assert shown["date"] == "2011-11-02T19:19:08.000Z"
        image, pdf = shown["attachments"]
        assert (image["id"], image["related"], image["contentType"]) == ("ATT00001", True, "image/png")
        assert (pdf["fileName"], pdf["related"], pdf["disposition"]) == ("plän.pdf", False, "attachment")
        link = f"attachment:{stored['name']}/ATT00001"
        assert link in shown["html"][0]
        replaced = await api.get(path + "?replaceCidLinks=true")
        assert f"/users/{api.user}{path}/attachments/ATT00001" in replaced["html"][0]
        for name, content in (("att00001", PNG), ("ATT00002", b"%PDF-1.4 " * 900)):
            answer = await api.http.get(f"/users/{api.user}{path}/attachments/{name}")
            assert answer.content == content
            assert answer.headers["content-security-policy"].startswith("sandbox")
        missing = await api.get(f"{path}/attachments/ATT00009", 404)
        assert (missing["error"], missing["code"]) == ("This attachment does not exist", "AttachmentNotFound")
        assert (await api.get("/search?query=pl%C3%A4n"))["total"] == 0
        assert (await api.get("/search?query=second&from=ada&to=cy"))["total"] == 1

    over(story)


def test_the_node_api_shows_the_same_message_and_its_attachments() -> None:
    async def story(api: Client) -> None:
        await store(api, letter())
        (row,) = (await api.http.get("/api/qmail/db/messages/list")).json()["emails"]
        assert (row["subject"], row["sender_address"], row["attachment_count"]) == ("Übersicht", "ada@example.org", 2)
        listed = (await api.http.get(f"/api/qmail/db/attachments/list?email_id={row['email_id']}")).json()
        assert [item["storage_mode"] for item in listed["attachments"]] == [0, 0]
        wanted = listed["attachments"][0]["attachment_id"]
        answer = await api.http.get(f"/api/qmail/db/attachments/get?email_id={row['email_id']}&attachment_id={wanted}")
        assert answer.content == PNG

    over(story)


@pytest.mark.parametrize("name", ["²", "٣", "a" * 24 + ":²", "9" * 11])
def test_what_is_no_number_is_no_message(name: str) -> None:
    async def story(api: Client) -> None:
        path = f"/mailboxes/{api.box('INBOX')}/messages"
        for end in ("", "/message.eml", "/attachments/ATT00001"):
            bad = await api.get(f"{path}/{name}{end}", 400)
            assert (bad["code"], list(bad["details"])) == ("InputValidationError", ["message"])
        for body in ({"seen": True}, None):
            bad = await api.ask("PUT" if body else "DELETE", f"/users/{api.user}{path}/{name}", 400, json=body)
            assert list(bad["details"]) == ["message"]

    over(story)


@pytest.mark.parametrize("raw", ["²", "é", "AAA", "A A="])
def test_what_is_no_base64_is_no_message(raw: str) -> None:
    async def story(api: Client) -> None:
        bad = await api.post(f"/mailboxes/{api.box('INBOX')}/messages", {"raw": raw}, 400)
        assert list(bad["details"]) == ["raw"]

    over(story)


def test_equal_attachments_are_stored_once() -> None:
    async def story(api: Client) -> None:
        for number in range(5):
            await store(api, letter(f"Number {number}", message_id=f"<{number}@example.org>"))
        with api.engine._store.mailboxes._db.read() as db:  # type: ignore[attr-defined]
            rows = db.execute("SELECT refs, size FROM blob WHERE refs > 1 ORDER BY size").fetchall()
        assert [refs for refs, _ in rows].count(5) >= 2

    over(story)


def test_answers_join_the_thread_of_what_they_answer() -> None:
    async def story(api: Client) -> None:
        await store(api, letter("Plan"))
        await store(api, letter("Re: Plan", message_id="<2@example.org>", In_Reply_To="<1@example.org>"))
        await store(api, letter("Other", message_id="<3@example.org>"))
        rows = (await api.get(f"/mailboxes/{api.box('INBOX')}/messages"))["results"]
        assert rows[1]["thread"] == rows[2]["thread"] != rows[0]["thread"]
        assert (await api.get(f"/search?thread={rows[1]['thread']}"))["total"] == 2

    over(story)


def test_a_mail_of_the_network_has_a_source_too() -> None:
    async def story(api: Client) -> None:
        note = [Source("note.txt", data=b"note")]
        await api.other.send(api.other.draft(["alice"], "Minutes", "Dear all", attachments=note))
        await api.engine.receive()
        (row,) = (await api.get(f"/mailboxes/{api.box('INBOX')}/messages"))["results"]
        path = f"/users/{api.user}/mailboxes/{api.box('INBOX')}/messages/{row['id']}"
        raw = (await api.http.get(f"{path}/message.eml")).content
        assert raw.startswith(b"")
        assert b"Subject: Minutes" in raw
        assert base64.b64encode(b"note") in raw
        assert (await api.http.get(f"{path}/message.eml")).content == raw
        assert (await api.http.get(f"{path}/attachments/ATT00001")).content == b"note"

    over(story)


@pytest.mark.parametrize("raw", [b"\0", b"no header at all", b"Subject: x", b"\xff" * 1000, b"A:" * 5000])
def test_nonsense_is_stored_and_served_as_it_is(raw: bytes) -> None:
    async def story(api: Client) -> None:
        stored = await store(api, raw)
        path = f"/users/{api.user}/mailboxes/{api.box('INBOX')}/messages/{stored['name']}"
        assert (await api.http.get(f"{path}/message.eml")).content == raw
        await api.ask("GET", path)

    over(story)


def test_a_large_message_comes_as_json_too() -> None:
    async def story(api: Client) -> None:
        inbox = f"/mailboxes/{api.box('INBOX')}/messages"
        raw = b"Subject: large\r\n\r\n" + b"x" * 76 * 100_000
        stored = await api.post(inbox, {"raw": base64.b64encode(raw).decode()})
        assert stored["message"]["size"] == len(raw)
        assert (await api.http.get(f"/users/{api.user}{inbox}/1/message.eml")).content == raw

    over(story)


@pytest.mark.parametrize("kind", ["message/rfc822", "application/json"])
def test_a_message_beyond_the_limit_is_refused_before_it_is_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_MESSAGE", 1000)
    monkeypatch.setattr(source, "MAX_BODY", 1400)
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 1_000_000:
            read += 100
            yield b"x" * 100

    async def story(api: Client) -> None:
        path = f"/users/{api.user}/mailboxes/{api.box('INBOX')}/messages"
        answer = await api.ask("POST", path, 413, content=endless(), headers={"content-type": kind})
        assert "too large" in answer["error"]

    over(story)
    assert read < 2000


def test_messages_as_json_and_what_is_refused() -> None:
    async def story(api: Client) -> None:
        inbox = f"/mailboxes/{api.box('INBOX')}/messages"
        raw = base64.b64encode(letter()).decode()
        stored = await api.post(inbox, {"raw": raw, "draft": True, "date": "2020-01-02T03:04:05Z"})
        shown = await api.get(f"{inbox}/{stored['message']['id']}")
        assert (shown["draft"], shown["idate"]) == (True, "2020-01-02T03:04:05.000Z")
        assert (await api.post(inbox, {}, 400))["error"] == '"raw" is required'
        assert (await api.post(inbox, {"raw": "%"}, 400))["error"] == '"raw" must be a valid base64 string'
        empty = await api.ask(
            "POST", f"/users/{api.user}{inbox}", 400, content=b"", headers={"content-type": "text/plain"}
        )
        assert empty["code"] == "EmptyMessage"

    over(story)
