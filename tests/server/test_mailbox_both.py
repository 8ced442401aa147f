"""One store, two surfaces: what the node API writes the mailbox API shows, and the other way round."""

from __future__ import annotations

from typing import Any

from tests.server.mailbox_client import Client, over
from tests.server.test_mailbox_messages import fill, inbox
from tests.server.test_mailbox_source import letter

DRAFTS = "/api/qmail/db/drafts"


async def node(api: Client, verb: str, path: str, expected: int = 200, **options: Any) -> dict[str, Any]:
    answer = await api.http.request(verb, path, **options)
    assert answer.status_code == expected, answer.text
    return answer.json()  # type: ignore[no-any-return]


def test_a_saved_draft_shows_people() -> None:
    async def story(api: Client) -> None:
        typed = {"to": "bob; nobody yet", "cc": "alice", "subject": "Later", "body": "text", "subsubject": "below"}
        await node(api, "POST", f"{DRAFTS}/create", 201, data=typed)
        path = f"/mailboxes/{api.box('Drafts')}/messages"
        (row,) = (await api.get(path))["results"]
        shown = await api.get(f"{path}/{row['id']}")
        assert shown["to"] == [{"address": "bob", "name": ""}, {"address": "nobody yet", "name": ""}]
        assert shown["cc"] == [{"address": "alice", "name": ""}]
        assert "bcc" not in shown
        assert "subsubject" not in shown
        assert shown["draft"] is True

    over(story)


def test_a_mail_of_the_network_shows_whom_it_is_for() -> None:
    async def story(api: Client) -> None:
        bob = api.other
        await bob.send(bob.draft(["alice", "bob"], "Plan", "text", cc=["alice"]))
        await api.engine.receive()
        (row,) = (await api.get(inbox(api)))["results"]
        shown = await api.get(f"{inbox(api)}/{row['id']}")
        assert [person["address"] for person in shown["to"]] == ["alice", "bob"]
        raw = (await api.http.get(f"/users/{api.user}{inbox(api)}/{row['id']}/message.eml")).text
        assert f"Message-ID: {shown['messageId']}" in raw

    over(story)


def test_a_reply_to_all_leaves_oneself_out() -> None:
    async def story(api: Client) -> None:
        bob = api.other
        await bob.send(bob.draft(["alice"], "Plan", "text", cc=["bob", "alice"]))
        await api.engine.receive()
        (row,) = (await api.get(inbox(api)))["results"]
        reference = {"mailbox": row["mailbox"], "id": row["id"], "action": "replyAll"}
        made = (await api.post("/submit", {"text": "yes", "reference": reference, "isDraft": True}))["message"]
        shown = await api.get(f"/mailboxes/{made['mailbox']}/messages/{made['id']}")
        assert [person["address"] for person in shown["to"]] == ["bob@qmail.invalid"]
        assert "cc" not in shown  # bob is answered already, and alice is who answers

    over(story)


def test_a_draft_of_the_mailbox_api_is_one_of_the_node_api() -> None:
    async def story(api: Client) -> None:
        parts = {"to": [{"name": "Ann", "address": "ann@far.example"}], "bcc": ["cy@far.example"], "subject": "Later"}
        made = await api.post("/submit", parts | {"text": "first", "isDraft": True})
        (listed,) = (await node(api, "GET", f"{DRAFTS}/list"))["drafts"]
        assert (listed["subject"], listed["to"], listed["bcc"]) == ("Later", "ann@far.example", "cy@far.example")
        change = {"email_id": listed["email_id"], "body": "second"}
        await node(api, "PUT", f"{DRAFTS}/update", data=change)
        path = f"/mailboxes/{api.box('Drafts')}/messages/{made['message']['id']}"
        shown = await api.get(path)
        assert (shown["text"].strip(), shown["to"]) == ("second", [{"address": "ann@far.example", "name": ""}])
        raw = (await api.http.get(f"/users/{api.user}{path}/message.eml")).text
        assert "second" in raw
        assert "first" not in raw

    over(story)


def test_what_else_lies_among_the_drafts_does_no_harm() -> None:
    async def story(api: Client) -> None:
        await fill(api, "moved here")
        await api.put(f"{inbox(api)}/1", {"moveTo": api.box("Drafts")})
        headers = {"content-type": "message/rfc822"}
        path = f"/users/{api.user}/mailboxes/{api.box('Drafts')}/messages"
        await api.ask("POST", path, content=letter(), headers=headers)
        listed = await node(api, "GET", f"{DRAFTS}/list")
        assert [draft["subject"] for draft in listed["drafts"]] == ["Übersicht", "moved here"]

    over(story)
