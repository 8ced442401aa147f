"""The `db` bucket over a real engine in memory: folders, search, contacts, drafts, queue, notifications."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from qmail_server.http.app import build_app

from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.model import Folder, Source
from tests.server.fake_engine import BASE, OPEN

DB = "/api/qmail/db"
GUID = "5d0e7a1c9b8f42d3a6e07714c2bb9f10"
Story = Callable[["Client"], Awaitable[None]]


class Client:
    """One engine's API without a socket."""

    def __init__(self, cluster: Cluster, engine: Engine, other: Engine, http: httpx.AsyncClient) -> None:
        self.cluster, self.engine, self.other, self.http = cluster, engine, other, http

    async def get(self, path: str, expected: int = 200, /, **params: Any) -> dict[str, Any]:
        answer = await self.http.get(DB + path, params=params)
        assert answer.status_code == expected, answer.text
        body: dict[str, Any] = answer.json()
        assert body["success"] is (expected < 400)
        assert expected < 400 or body["code"] == body["error_code"] == expected
        return body

    async def post(self, path: str, expected: int = 200, /, **data: Any) -> dict[str, Any]:
        answer = await self.http.post(DB + path, data=data)
        assert answer.status_code == expected, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def mail(self, subject: str = "Minutes", body: str = "Dear all", **fields: Any) -> str:
        """A mail from the other engine, in the inbox; its e-mail id."""
        await self.other.send(self.other.draft(["bob"], subject, body, **fields))
        (got,) = await self.engine.receive()
        return got.message.id.hex()


def over(story: Story) -> None:
    async def whole() -> None:
        async with Cluster(5) as cluster:
            alice, bob = await cluster.engine("alice"), await cluster.engine("bob")
            transport = httpx.ASGITransport(build_app(bob, OPEN))
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
                await story(Client(cluster, bob, alice, http))

    asyncio.run(whole())


def test_a_mail_goes_through_the_folders() -> None:
    async def story(api: Client) -> None:
        email_id = await api.mail()
        assert await api.get("/messages/set-star", email_id=email_id) == {
            "success": True, "status": "success", "message": "Star updated", "email_id": email_id, "is_starred": True,
        }  # fmt: skip
        assert (await api.get("/messages/list", folder="starred"))["total_in_folder"] == 1
        assert (await api.get("/messages/set-star", email_id=email_id, starred="0"))["is_starred"] is False
        assert (await api.get("/messages/get", email_id=email_id, peek=1))["is_read"] is False
        assert (await api.get("/messages/set-read", email_id=email_id))["is_read"] is True
        assert (await api.get("/messages/set-read", email_id=email_id, is_read="false"))["is_read"] is False
        assert (await api.get("/messages/set-read", email_id=email_id, is_read=""))["is_read"] is True
        assert (await api.get("/messages/set-star", email_id=email_id, starred=""))["is_starred"] is True
        assert (await api.get("/messages/set-read", email_id=email_id, is_read="0"))["is_read"] is False
        moved = await api.post("/messages/move", email_id=email_id, folder="archive")
        assert (moved["message"], moved["folder"]) == ("Email moved", 5)
        counts = (await api.get("/folders/counts"))["folders"]
        assert list(counts) == ["inbox", "sent", "drafts", "trash", "starred", "archive"]
        assert counts["archive"] == {"total": 1, "unread": 1}
        refused = await api.get("/messages/delete", 400, email_id=email_id)
        assert refused["message"].startswith("Email must be in trash before permanent deletion")
        assert (await api.http.delete(f"{DB}/messages/trash?email_id={email_id}")).json()[
            "message"
        ] == "Email moved to trash"
        assert (await api.get("/folders/counts"))["folders"]["trash"] == {"total": 1, "unread": 1}
        assert (await api.get("/messages/delete", email_id=email_id))["message"] == "Email permanently deleted"
        assert (await api.get("/messages/delete", 404, email_id=email_id))["message"] == "Email not found"

    over(story)


def test_fetched_attachments_go_with_their_mail() -> None:
    async def story(api: Client) -> None:
        email_id = await api.mail(attachments=[Source("notes.txt", data=b"note")])
        (row,) = api.engine.attachments(bytes.fromhex(email_id))
        fetched = await api.engine.attachment(bytes.fromhex(email_id), row.id)
        answer = await api.http.get(f"{DB}/attachments/get?email_id={email_id}&attachment_id={row.id}")
        assert answer.content == b"note"
        assert answer.headers["x-qmail-operation-id"] == answer.headers["x-request-id"]
        await api.engine.mailbox.move(bytes.fromhex(email_id), Folder.TRASH)
        await api.get("/messages/delete", email_id=email_id)
        assert not os.path.lexists(fetched.path)  # noqa: ASYNC240

    over(story)


def test_search_covers_subject_people_and_text() -> None:
    async def story(api: Client) -> None:
        email_id = await api.mail("Quarterly budget", "numbers are fine")
        await api.mail("Lunch", "pizza")
        for query in ("budget", "NUMB", "quarterly fine"):
            found = await api.get("/messages/search", query=query)
            assert [row["email_id"] for row in found["results"]] == [email_id]
            assert (found["query"], found["count"], found["limit"]) == (query, 1, 50)
        for none in ('"', "\0", "*", " - "):  # no word is in every message, but nobody looks for that
            assert (await api.get("/messages/search", query=none))["count"] == 0
        assert (await api.get("/messages/search", query="alice", limit=1))["count"] == 1
        assert (await api.get("/messages/search", 400))["message"] == "Missing required parameter: query"

    over(story)


def test_contacts_live_and_are_counted() -> None:
    async def story(api: Client) -> None:
        added = await api.post("/contacts/create", serial_number=1441, first_name="Cy", last_name="Reed", trust_level=1)
        assert added == {
            "success": True, "status": "success", "message": "Contact added", "serial_number": 1441,
            "auto_address": "5.161@byte",
        }  # fmt: skip
        row = next(row for row in (await api.get("/contacts/list"))["contacts"] if row["serial_number"] == 1441)
        assert (row["first_name"], row["class_name"], row["trust_level"]) == ("Cy", "byte", 1)
        assert (await api.get("/contacts/list", q="reed"))["count"] == 1
        changed = await api.post("/contacts/create", serial_number=1441, description="neighbour")
        assert changed["auto_address"] == "5.161@byte"
        assert (await api.get("/contacts/list", q="neighbour"))["contacts"][0]["last_name"] == "Reed"
        assert (await api.post("/contacts/favorite", sn=1441, value="true"))["is_favorite"] is True
        popular = (await api.get("/contacts/list-popular", limit=1))["contacts"]
        assert [row["serial_number"] for row in popular] == [1441]
        assert popular[0]["days_since_last_contact"] is None
        await api.engine.send(api.engine.draft(["alice"], "Hi", "there"))
        bumped = [row for row in (await api.get("/contacts/list-popular"))["contacts"] if row["contact_count"]]
        assert [(row["user_id"], row["days_since_last_contact"]) for row in bumped] == [("alice", 0)]
        assert (await api.get("/contacts/delete", serial_number=1441))["message"] == "Contact deleted"
        assert (await api.get("/contacts/delete", 404, serial_number=1441))["message"] == "Contact not found"
        assert (await api.get("/contacts/favorite", 404, sn=1441))["message"] == "Contact not found"

    over(story)


def test_drafts_keep_what_was_typed() -> None:
    async def story(api: Client) -> None:
        answer = await api.http.post(
            f"{DB}/drafts/create", json={"subject": "Plan", "body": "First", "to": "alice; 77"}
        )
        assert answer.status_code == 201
        created = answer.json()
        assert (created["command"], created["id"]) == ("drafts-create", created["email_id"])
        (row,) = (await api.get("/drafts/list"))["drafts"]
        assert (row["to"], row["recipient_count"], row["body"], row["preview"]) == ("alice, 77", 2, "First", "First")
        path = f"{DB}/drafts/update?email_id={created['id']}"
        changed = (await api.http.post(path, json={"to": "", "body": "Second"})).json()
        assert changed["draft"]["id"] == created["id"]
        (row,) = (await api.get("/drafts/list"))["drafts"]
        assert (row["to"], row["body"], row["subject"]) == ("", "Second", "Plan")
        await api.http.post(path, json={"to": ["alice", "77"], "cc": "bob"})
        await api.http.post(path, json={"to": [], "subsubject": []})
        (row,) = (await api.get("/drafts/list"))["drafts"]
        assert (row["to"], row["cc"], row["subsubject"]) == ("", "bob", "")
        legacy = await api.post("/drafts/update", draft_id=created["id"], subject="")
        assert legacy["message"] == "Draft updated"
        paged = (await api.get("/drafts/list", limit=2, offset=5))["pagination"]
        assert paged == {"page": 3, "limit": 2, "total": 1, "total_pages": 1}
        page = await api.get("/drafts/list", limit=1, page=2)
        assert (page["drafts"], page["pagination"]) == ([], {"page": 2, "limit": 1, "total": 1, "total_pages": 1})
        assert (await api.get("/drafts/list"))["drafts"][0]["subject"] == "(No Subject)"
        await api.http.post(path, json={"subsubject": "the plan", "cc": "bob"})
        shown = await api.get("/messages/get", email_id=created["id"])
        assert (shown["subsubject"], shown["cc"], shown["folder"]) == ("the plan", "bob", 2)
        assert "payment_status" not in shown
        mail = await api.mail()
        shown = await api.get("/messages/get", email_id=mail)
        assert ("payment_status" in shown, shown["subsubject"]) == (False, "")
        assert (await api.get("/drafts/update", 404, email_id=mail))["message"] == "Draft not found"
        await api.post("/drafts/create", 413, body="x" * ((1 << 20) + 1))

    over(story)


def test_a_tell_that_waits_can_be_seen_retried_and_cleared() -> None:
    async def story(api: Client) -> None:
        stored = await api.engine.start_upload(api.engine.draft(["alice"], "Hi", "there"), tell=False)
        await api.engine.wait(stored.task_id)
        api.cluster.down |= set(api.engine.config.beacons)
        await api.engine.wait((await api.engine.start_tell(stored.guid)).task_id)
        (row,) = (await api.get("/tells/list-pending", status="pending"))["pending_tells"]
        assert (row["status"], row["recipient_address"], row["retry_count"]) == ("pending", "alice", 0)
        assert row["last_error"]
        refused = await api.get("/tells/retry", 404, tell_id=row["tell_id"])
        assert refused["message"] == "Tell not found or not in 'failed' status"
        guid = bytes.fromhex(row["file_guid"])
        await api.engine._store.sends.finish_tell(guid, 0, "failed", "given up", 1)
        api.cluster.down.clear()
        assert (await api.post("/tells/retry", tell_id=row["tell_id"]))["message"] == "Tell reset to pending for retry"
        assert await api.engine.queue.retry_due() == 1
        (row,) = (await api.get("/tells/list-pending", status="sent"))["pending_tells"]
        assert "last_error" not in row
        assert (await api.get("/tells/clear-sent"))["deleted_count"] == 1
        assert (await api.get("/tells/list-pending"))["pending_tells"] == []

    over(story)


def test_notifications_vanish_when_dismissed_or_downloaded() -> None:
    async def story(api: Client) -> None:
        for number in range(3):
            await api.other.send(api.other.draft(["bob"], f"Mail {number}", "text"))
        await api.engine.peek()
        rows = (await api.get("/notifications/list"))["notifications"]
        assert [row["tell_type"] for row in rows] == ["new_email"] * 3
        assert (rows[0]["sender_name"], rows[0]["sender_address"]) == (f"SN#{rows[0]['sender_sn']}", "alice")
        done = await api.post("/notifications/dismiss", id=rows[0]["id"])
        assert done == {"success": True, "status": "success", "message": "Notification dismissed", "id": rows[0]["id"]}
        await api.post("/notifications/dismiss", file_guid=rows[1]["file_guid"])
        await api.engine.download(bytes.fromhex(rows[2]["file_guid"]))
        assert (await api.get("/notifications/list"))["count"] == 0
        shown = await api.get("/notifications/list", include_downloaded=1)
        assert [row["downloaded"] for row in shown["notifications"]] == [True]
        assert (await api.get("/notifications/dismiss", 404, id=rows[0]["id"]))["message"] == "Notification not found"

    over(story)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("/messages/trash", {}, "Missing required parameter: email_id"),
    ("/messages/trash", {"email_id": "zz"}, "Invalid email_id format"),
    ("/messages/move", {"email_id": GUID}, "Missing required parameter: folder"),
    (
        "/messages/move",
        {"email_id": GUID, "folder": 6},
        "Invalid folder (0-5 or inbox, sent, drafts, trash, starred, archive)",
    ),
    ("/messages/set-star", {"email_id": GUID, "starred": "maybe"}, "Invalid starred (must be true or false)"),
    ("/messages/set-read", {"email_id": GUID, "is_read": "maybe"}, "Invalid is_read (must be true or false)"),
    ("/contacts/create", {}, "Missing required parameter: serial_number"),
    ("/contacts/create", {"serial_number": 0}, "Invalid serial_number (must be a positive integer)"),
    ("/contacts/create", {"serial_number": 16777217}, "Invalid serial_number (must be a positive integer)"),
    ("/contacts/create", {"serial_number": 9, "denomination": 99}, "Invalid denomination (must be -8 to 11)"),
    ("/contacts/create", {"serial_number": 9, "denomination": -9}, "Invalid denomination (must be -8 to 11)"),
    ("/contacts/create", {"serial_number": 9, "denomination": "x"}, "Invalid denomination (must be an integer)"),
    ("/contacts/delete", {"serial_number": "x"}, "Invalid serial_number (must be a positive integer)"),
    ("/contacts/favorite", {}, "Missing required parameter: sn"),
    ("/drafts/update", {}, "Missing required parameter: email_id"),
    ("/drafts/update", {"email_id": "1"}, "Invalid email_id format"),
    ("/tells/list-pending", {"status": "lost"}, "Invalid status (pending, sent or failed)"),
    ("/tells/retry", {}, "Missing 'tell_id' parameter"),
    ("/tells/retry", {"tell_id": "-1"}, "Invalid tell_id"),
    ("/notifications/dismiss", {}, "Missing 'id' parameter"),
    ("/notifications/dismiss", {"id": "x"}, "Invalid notification id"),
    ("/notifications/dismiss", {"file_guid": "x"}, "Invalid notification id"),
]


def test_every_wrong_call_is_told_what_is_wrong() -> None:
    async def story(api: Client) -> None:
        for path, params, message in WRONG:
            assert (await api.get(path, 400, **params))["message"] == message, path
        for path in ("trash", "delete", "set-star", "set-read"):
            assert (await api.get(f"/messages/{path}", 404, email_id=GUID))["message"] == "Email not found"
        assert (await api.get("/messages/move", 404, email_id=GUID, folder=1))["message"] == "Email not found"

    over(story)


def test_older_names_answer_the_same() -> None:
    async def story(api: Client) -> None:
        email_id = await api.mail()
        calls: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("inbox", "/messages/list", {}),
            ("search", "/messages/search", {"query": "minutes"}),
            ("counts", "/folders/counts", {}),
            ("folders", "/folders/list", {}),
            ("contacts/list", "/contacts/list", {}),
            ("drafts", "/drafts/list", {}),
            ("notifications", "/notifications/list", {}),
            ("pending-tells", "/tells/list-pending", {}),
            ("attachments", "/attachments/list", {"email_id": email_id}),
        )
        for old, new, params in calls:
            answer = await api.http.get(f"/api/qmail/{old}", params=params)
            assert answer.json() == await api.get(new, **params), old

    over(story)
