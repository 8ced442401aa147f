"""Messages over HTTP: pages, search, detail, flags, moves, deletion, updates."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from qmail_server.http.app import build_app

from qmail_core.model import Folder, Source
from tests.server.fake_engine import OPEN
from tests.server.mailbox_client import Client, over
from tests.server.test_http_events import Stream

ROW = [
    "id", "uid", "mailbox", "thread", "from", "subject", "date", "idate", "intro", "size", "attachments", "seen",
    "deleted", "flagged", "draft", "answered", "forwarded",
]  # fmt: skip


async def fill(api: Client, *subjects: str, body: str = "Beginning text", **fields: Any) -> None:
    """Mails of somebody else, in the inbox."""
    bob = api.other
    for subject in subjects:
        await bob.send(bob.draft(["alice"], subject, body, **fields))
        await api.engine.receive()


def inbox(api: Client) -> str:
    return f"/mailboxes/{api.box('INBOX')}/messages"


def test_a_mail_of_the_network_is_a_message_of_its_user() -> None:
    async def story(api: Client) -> None:
        await fill(
            api, "Minutes", body="Dear   all,\nthe plan " * 30, attachments=[Source("plan.pdf", data=b"p" * 2000)]
        )
        listed = await api.get(inbox(api))
        assert list(listed) == [
            "success", "total", "page", "prev", "next", "previousCursor", "nextCursor", "specialUse", "results",
        ]  # fmt: skip
        (row,) = listed["results"]
        assert list(row) == ROW
        assert row["from"] == {"address": "bob", "name": ""}
        assert (row["subject"], row["attachments"], row["seen"]) == ("Minutes", True, False)
        assert row["intro"].endswith("…")
        assert len(row["intro"]) <= 128
        whole = await api.get(f"{inbox(api)}/{row['id']}")
        assert whole["text"].startswith("Dear   all,\n")
        assert whole["user"] == api.user
        (part,) = whole["attachments"]
        assert (part["id"], part["fileName"], part["sizeKb"]) == ("ATT00001", "plan.pdf", 2)
        assert whole["seen"] is False
        assert (await api.get(f"{inbox(api)}/{row['uid']}?markAsSeen=1"))["seen"] is True
        assert (await api.engine.message(api.engine.messages(Folder.INBOX).messages[0].id)).is_read

    over(story)


def test_pages_are_linked_forth_and_back() -> None:
    async def story(api: Client) -> None:
        await fill(api, "one", "two", "three", "four", "five")
        seen: list[str] = []
        page = await api.get(inbox(api) + "?limit=2")
        first = page
        while True:
            seen += [row["subject"] for row in page["results"]]
            if not page["next"]:
                break
            assert urlsplit(page["next"]).path == f"/users/{api.user}{inbox(api)}"
            page = await api.ask("GET", page["next"])
        assert seen == ["five", "four", "three", "two", "one"]
        assert (page["page"], page["total"], page["nextCursor"]) == (3, 5, False)
        back = await api.ask("GET", page["prev"])
        assert [row["subject"] for row in back["results"]] == ["three", "two"]
        again = await api.ask("GET", back["prev"])
        assert (again["results"], again["page"]) == (first["results"], 1)
        cursor = first["nextCursor"]
        assert (await api.get(f"{inbox(api)}?limit=2&next={cursor}"))["results"] == back["results"]
        up = await api.get(inbox(api) + "?order=asc&limit=3")
        assert [row["subject"] for row in up["results"]] == ["one", "two", "three"]
        wrong = await api.get(inbox(api) + "?next=%25%25", 400)
        assert wrong["details"] == {"next": '"next" is not a cursor of this list'}
        assert (await api.get(inbox(api) + "?limit=251", 400))["error"] == '"limit" must be less than or equal to 250'

    over(story)


def test_search_looks_everywhere_but_in_trash_and_junk() -> None:
    async def story(api: Client) -> None:
        await fill(api, "Budget", "Lunch", body="numbers")
        found = await api.get("/search?query=numb&limit=1")
        assert (found["query"], found["total"], found["results"][0]["subject"]) == ("numb", 2, "Lunch")
        more = await api.ask("GET", found["next"])
        assert more["results"][0]["subject"] == "Budget"
        assert (await api.ask("GET", more["prev"]))["results"] == found["results"]
        assert (await api.get("/search?subject=budget&from=bob"))["total"] == 1
        assert (await api.get("/search?unseen=true&flagged=true"))["total"] == 0
        assert (await api.get(f"/search?query=budget&mailbox={api.box('Archive')}"))["total"] == 0
        assert (await api.get("/search", 400))["error"] == '"query" is required'
        (row,) = more["results"]
        await api.put(f"{inbox(api)}/{row['id']}", {"moveTo": api.box("Junk")})
        assert (await api.get("/search?query=budget"))["total"] == 0

    over(story)


def test_flags_expiry_and_moves() -> None:
    async def story(api: Client) -> None:
        await fill(api, "one", "two", "three")
        rows = (await api.get(inbox(api)))["results"]
        path = f"{inbox(api)}/{rows[0]['id']}"
        assert (await api.put(path, {"seen": "Y", "flagged": True}))["updated"] == 1
        shown = await api.get(path)
        assert (shown["seen"], shown["flagged"], shown["deleted"]) == (True, True, False)
        await api.put(path, {"expires": "2099-01-02T03:04:05.000Z"})
        assert (await api.get(path))["expires"] == "2099-01-02T03:04:05.000Z"
        await api.put(path, {"expires": False})
        assert "expires" not in await api.get(path)
        assert (await api.put(path, {}, 400))["error"] == "Nothing was changed"
        assert (await api.put(path, {"moveTo": "0" * 24}, 404))["error"] == "Mailbox is missing"
        moved = await api.put(path, {"newMailbox": api.box("Archive")})
        assert moved["mailbox"] == api.box("Archive")
        await api.get(path, 404)
        shown = await api.get(f"/mailboxes/{api.box('Archive')}/messages/{moved['id']}")
        assert shown["subject"] == "three"
        many = await api.put(f"{inbox(api)}/1:*", {"seen": True, "moveTo": api.box("Trash")})
        assert many["updated"] == 2
        assert (await api.get(f"/mailboxes/{api.box('INBOX')}"))["total"] == 0

    over(story)


def test_an_expiry_given_with_a_move_is_kept() -> None:
    async def story(api: Client) -> None:
        await fill(api, "one")
        moment = "2099-01-02T03:04:05.000Z"
        moved = await api.put(f"{inbox(api)}/1", {"moveTo": api.box("Trash"), "expires": moment})
        assert (await api.get(f"/mailboxes/{api.box('Trash')}/messages/{moved['id']}"))["expires"] == moment

    over(story)


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-14:00", 253402300799999, "0001-01-01T00:00:00+14:00"])
def test_the_ends_of_time_can_be_shown(moment: str | int) -> None:
    async def story(api: Client) -> None:
        await fill(api, "one")
        await api.put(f"{inbox(api)}/1", {"expires": moment})
        assert (await api.get(f"{inbox(api)}/1"))["expires"][:4] in ("9999", "1970")
        await api.put(f"{inbox(api)}/1", {"expires": 253402300800000}, 400)
        await api.get(f"/search?query=one&datestart={quote(str(moment))}")

    over(story)


def test_a_retention_beyond_all_time_is_for_ever() -> None:
    async def story(api: Client) -> None:
        await api.put(f"/mailboxes/{api.box('INBOX')}", {"retention": (1 << 53) - 1})
        await fill(api, "one")
        assert (await api.get(f"{inbox(api)}/1"))["expires"] == "9999-12-31T23:59:59.000Z"

    over(story)


def test_deletion_is_for_good() -> None:
    async def story(api: Client) -> None:
        await fill(api, "one", "two", "three", "four")
        rows = (await api.get(inbox(api)))["results"]
        await api.delete(f"{inbox(api)}/{rows[0]['id']}")
        missing = await api.delete(f"{inbox(api)}/{rows[0]['id']}", 404)
        assert (missing["error"], missing["code"]) == ("This message does not exist", "MessageNotFound")
        await api.delete(f"{inbox(api)}/{rows[1]['uid']},{rows[2]['uid']}")
        assert (await api.get(inbox(api)))["total"] == 1
        assert (await api.delete(inbox(api)))["deleted"] == 1
        assert (await api.delete(f"{inbox(api)}/1:9", 404))["error"] == "Message was not found"
        wrong = await api.get(f"{inbox(api)}/zz", 400)
        assert wrong["error"] == '"message" is not the id of a message'
        other = rows[0]["id"][:-1] + "9"
        await api.get(f"{inbox(api)}/{other}", 404)

    over(story)


def test_updates_are_streamed_with_counters() -> None:
    async def story(api: Client) -> None:
        stream = Stream(build_app(api.engine, OPEN), f"/users/{api.user}/updates")
        assert await stream.status() == 200
        await fill(api, "one")
        text = await stream.text()
        while "COUNTERS" not in text:
            text += await stream.text()
        frames = text.strip().split("\n\n")
        assert '"command":"EXISTS"' in frames[0]
        assert f'"mailbox":"{api.box("INBOX")}","total":1,"unseen":1' in frames[-1]
        number = frames[-1].split("id: ")[1]
        assert len(number) == 24
        await api.post("/mailboxes", {"path": "My/Mail"})
        assert '"command":"CREATE"' in await stream.text()
        again = Stream(build_app(api.engine, OPEN), f"/users/{api.user}/updates", last_event_id=number)
        await again.status()
        text = await again.text()
        assert '"path":"My/Mail","name":"Mail"' in text
        assert "EXISTS" not in text
        for one in (stream, again):
            await one.leave()
        ahead = Stream(build_app(api.engine, OPEN), f"/users/{api.user}/updates", last_event_id="0" * 8 + "f" * 16)
        assert await ahead.status() == 200
        await ahead.leave()
        await api.ask("GET", f"/users/{'0' * 24}/updates", 404)

    over(story)
