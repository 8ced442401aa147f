"""Mailboxes over HTTP: the seed's calls, the rules, the words of every refusal."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.mailbox_client import Client, over


def test_the_tree_of_a_user() -> None:
    async def story(api: Client) -> None:
        listed = await api.get("/mailboxes")
        assert [row["path"] for row in listed["results"]] == [
            "INBOX", "Archive", "Drafts", "Junk", "Sent Mail", "Trash",
        ]  # fmt: skip
        assert "mailboxes" not in listed
        inbox = listed["results"][0]
        assert (inbox["name"], inbox["specialUse"], inbox["subscribed"]) == ("INBOX", None, True)
        counted = await api.get("/mailboxes?counters=true")
        assert counted["mailboxes"] == counted["results"]
        assert (counted["results"][0]["total"], counted["results"][0]["unseen"]) == (0, 0)
        one = await api.get(f"/mailboxes/{inbox['id']}")
        assert list(one)[:7] == ["success", "id", "name", "path", "specialUse", "modifyIndex", "subscribed"]
        assert (await api.ask("GET", f"/user/{api.user}/mailboxes")) == listed

    over(story)


def test_a_mailbox_is_made_renamed_with_its_children_and_removed() -> None:
    async def story(api: Client) -> None:
        parent = (await api.post("/mailboxes", {"path": "/Some parent"}))["id"]
        child = (await api.post("/mailboxes", {"path": "Some parent/Sub/My New mailbox", "retention": 60_000}))["id"]
        assert await api.put(f"/mailboxes/{parent}", {"path": "Öther"}) == {"success": True}
        shown = await api.get(f"/mailboxes/{child}")
        assert (shown["path"], shown["name"], shown["retention"]) == (
            "Öther/Sub/My New mailbox",
            "My New mailbox",
            60_000,
        )
        await api.put(f"/mailboxes/{child}", {"subscribed": "no", "retention": 0})
        shown = await api.get(f"/mailboxes/{child}")
        assert (shown["subscribed"], shown["retention"]) == (False, False)
        assert await api.delete(f"/mailboxes/{child}") == {"success": True}
        await api.get(f"/mailboxes/{child}", 404)

    over(story)


WRONG: list[tuple[str, str, Any, int, str, str]] = [
    ("POST", "", {}, 400, '"path" is required', "InputValidationError"),
    ("POST", "", {"path": "a//b"}, 400, '"path" is not a mailbox path', "InputValidationError"),
    ("POST", "", {"path": "a/"}, 400, '"path" is not a mailbox path', "InputValidationError"),
    ("POST", "", {"path": "x", "bogus": 1}, 400, '"bogus" is not allowed', "InputValidationError"),
    ("POST", "", {"path": 5.5, "retention": -1, "x": 1}, 400,
     '"retention" must be greater than or equal to 0. "x" is not allowed', "InputValidationError"),
    ("POST", "", {"path": "inbox"}, 400, "Mailbox creation failed with code MailboxAlreadyExists",
     "MailboxExistsError"),
    ("PUT", "/INBOX", {}, 400, "Nothing was changed", "InputValidationError"),
    ("PUT", "/INBOX", {"path": "In"}, 400, "Mailbox update failed with code DisallowedMailboxMethod",
     "DisallowedMailboxMethod"),
    ("PUT", "/INBOX", {"subscribed": "perhaps"}, 400, '"subscribed" must be a boolean', "InputValidationError"),
    ("DELETE", "/INBOX", None, 400, "Mailbox deletion failed with code DisallowedMailboxMethod",
     "DisallowedMailboxMethod"),
    ("DELETE", "/Trash", None, 400, "Mailbox deletion failed with code DisallowedMailboxMethod",
     "DisallowedMailboxMethod"),
    ("PUT", "/Archive", {"path": "Trash"}, 400, "Mailbox update failed with code MailboxAlreadyExists",
     "MailboxExistsError"),
    ("GET", "/zz", None, 400, '"mailbox" must only contain hexadecimal characters', "InputValidationError"),
    ("GET", "/00", None, 400, '"mailbox" length must be 24 characters long', "InputValidationError"),
    ("GET", "/" + "0" * 24, None, 404, "This mailbox does not exist", "NoSuchMailbox"),
    ("PATCH", "", None, 405, "PATCH is not allowed", "MethodNotAllowed"),
]  # fmt: skip


def test_every_refusal_has_its_words() -> None:
    async def story(api: Client) -> None:
        for verb, path, body, status, message, code in WRONG:
            where = f"/mailboxes/{api.box(path[1:])}" if path[1:] in api.boxes else f"/mailboxes{path}"
            answer = await api.ask(verb, f"/users/{api.user}{where}", status, json=body)
            assert (answer["error"], answer["code"]) == (message, code), (verb, path, body)
        strange = await api.ask("GET", f"/users/{'0' * 24}/mailboxes", 404)
        assert (strange["error"], strange["code"]) == ("This user does not exist", "UserNotFound")

    over(story)


@pytest.mark.parametrize("body", [b"{", b"[1]", b"[" * 100_000, b"\xff"])
def test_a_broken_body_is_said_to_be_broken(body: bytes) -> None:
    async def story(api: Client) -> None:
        answer = await api.ask("POST", f"/users/{api.user}/mailboxes", 400, content=body)
        assert answer["code"] == "InvalidContent"
        assert answer["error"].startswith("Invalid JSON: ")

    over(story)
