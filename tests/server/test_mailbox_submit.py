"""Submission over HTTP: composed, filed, and delivered here, over the network, and through a relay."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
from typing import Any

from tests.engine.test_network_mail import report
from tests.server.mailbox_client import Client, over
from tests.server.smtp_sink import Sink
from tests.server.test_mailbox_users import new


async def inbox(api: Client, user: str) -> list[dict[str, Any]]:
    boxes = (await api.ask("GET", f"/users/{user}/mailboxes"))["results"]
    return await rows(api, user, boxes[0]["id"])


async def rows(api: Client, user: str, box: str) -> list[dict[str, Any]]:
    return (await api.ask("GET", f"/users/{user}/mailboxes/{box}/messages"))["results"]  # type: ignore[no-any-return]


def with_relay(story: Any, **config: Any) -> None:
    """A story with a relay of its own."""
    sink = Sink()

    async def whole() -> None:
        async with sink:
            await asyncio.to_thread(
                over, lambda api: story(api, sink), smtp_relay=sink.place, smtp_starttls=False, **config
            )

    asyncio.run(whole())


def test_a_message_reaches_users_here_and_is_filed_in_sent() -> None:
    async def story(api: Client) -> None:
        cy = await new(api, "cy", address="cy@example.org", name="Cy")
        dee = await new(api, "dee", address="dee@example.org")
        made = await api.ask(
            "POST",
            f"/users/{cy}/submit",
            json={
                "from": {"address": "somebody@else.example", "name": "Me"},
                "to": [{"name": "Dée", "address": "dee+news@example.org"}],
                "bcc": {"address": "cy@example.org"},
                "subject": "Grüße",
                "text": "plain",
                "html": '<p>rich <img src="cid:a1"></p>',
                "attachments": [
                    {"filename": "ä.txt", "contentType": "text/plain", "content": base64.b64encode(b"file").decode()},
                    {"filename": "i.png", "contentType": "image/png", "content": "AAAA", "cid": "a1"},
                ],
            },
        )
        message = made["message"]
        assert message["queueId"]
        sent = await api.ask("GET", f"/users/{cy}/mailboxes/{message['mailbox']}/messages/{message['id']}")
        assert sent["seen"] is True
        assert sent["from"] == {"address": "cy@example.org", "name": "Me"}  # not somebody else's
        assert sent["bcc"] == [{"address": "cy@example.org", "name": ""}]
        (got,) = await inbox(api, dee)
        assert (got["subject"], got["seen"], got["from"]["address"]) == ("Grüße", False, "cy@example.org")
        path = f"/users/{dee}/mailboxes/{got['mailbox']}/messages/{got['id']}"
        whole = await api.ask("GET", path)
        assert "bcc" not in whole
        assert [file["fileName"] for file in whole["attachments"]] == ["i.png", "ä.txt"]
        assert (await api.http.get(f"{path}/attachments/ATT00002")).content == b"file"
        raw = (await api.http.get(f"{path}/message.eml")).content
        assert raw.startswith(b"Delivered-To: dee@example.org\r\n")
        assert len(await inbox(api, cy)) == 1
        assert (await api.ask("GET", f"/users/{cy}"))["limits"]["recipients"]["used"] == 2

    over(story)


def test_drafts_and_uploads_are_filed_and_sent_to_nobody() -> None:
    async def story(api: Client) -> None:
        cy = await new(api, "cy", address="cy@example.org")
        parts = {"to": [{"address": "dee@example.org"}], "bcc": ["x@example.org"], "subject": "later", "text": "x"}
        draft = (await api.ask("POST", f"/users/{cy}/submit", json=parts | {"isDraft": True}))["message"]
        whole = await api.ask("GET", f"/users/{cy}/mailboxes/{draft['mailbox']}/messages/{draft['id']}")
        assert (whole["draft"], whole["to"][0]["address"]) == (True, "dee@example.org")
        assert whole["bcc"][0]["address"] == "x@example.org"
        box = (await api.ask("GET", f"/users/{cy}/mailboxes"))["results"][0]["id"]
        kept = {"uploadOnly": True, "mailbox": box}
        filed = (await api.ask("POST", f"/users/{cy}/submit", json=parts | kept))["message"]
        assert filed["mailbox"] == box
        assert (await api.ask("GET", f"/users/{cy}"))["limits"]["recipients"] == {
            "allowed": 2000, "used": 0, "ttl": False,
        }  # fmt: skip

    over(story)


def test_a_message_goes_over_the_network_and_is_filed_once() -> None:
    async def story(api: Client) -> None:
        sent = await api.post(
            "/submit",
            {
                "to": ["bob@qmail.invalid"],
                "subject": "Over 5 nodes",
                "html": "<p>striped</p>",
                "attachments": [{"filename": "a.bin", "content": base64.b64encode(b"bytes").decode()}],
            },
        )
        (task,) = api.engine.tasks()
        assert (await api.engine.wait(task.id)).status == "success"
        (received,) = await api.other.receive()
        assert (received.message.subject, received.message.body) == ("Over 5 nodes", "striped")
        assert [file.name for file in received.attachments] == ["a.bin"]
        (row,) = await rows(api, api.user, sent["message"]["mailbox"])
        assert row["id"] == sent["message"]["name"]
        assert api.engine.receipt_exists(bytes.fromhex(sent["message"]["queueId"]))
        cy = await new(api, "cy", address="cy@example.org")
        body = await api.ask("POST", f"/users/{cy}/submit", 400, json={"to": ["bob@qmail.invalid"], "text": "x"})
        assert "over the network" in body["details"]["to"]

    over(story)


def test_a_subject_the_network_would_cut_is_refused() -> None:
    async def story(api: Client) -> None:
        long = {"to": ["bob"], "subject": "é" * 128, "text": "x"}
        refused = await api.post("/submit", long, 400)
        assert (refused["code"], list(refused["details"])) == ("InputValidationError", ["subject"])
        assert (await api.get(f"/mailboxes/{api.box('Sent Mail')}/messages"))["total"] == 0
        assert (await api.ask("GET", f"/users/{api.user}"))["limits"]["recipients"]["used"] == 0
        cy = await new(api, "cy", address="cy@example.org")
        await api.post("/submit", long | {"to": ["cy@example.org"]})  # nothing is cut on this way
        (got,) = await inbox(api, cy)
        assert got["subject"] == "é" * 128

    over(story)


def test_a_subject_that_comes_by_itself_fits_the_network() -> None:
    async def story(api: Client) -> None:
        await api.other.send(api.other.draft(["alice"], "é" * 127 + "s", "x"))
        await api.engine.receive()
        (got,) = await inbox(api, api.user)
        about = {"mailbox": got["mailbox"], "id": got["id"], "action": "reply"}
        sent = (await api.post("/submit", {"text": "y", "reference": about}))["message"]
        shown = await api.get(f"/mailboxes/{sent['mailbox']}/messages/{sent['id']}")
        assert shown["subject"] == "Re: " + "é" * 125
        while api.engine.tasks()[0].status == "running":
            await api.engine.wait(api.engine.tasks()[0].id)
        (back,) = await api.other.receive()
        assert back.message.subject == shown["subject"]

    over(story)


def test_replies_and_forwards_know_what_they_are_about() -> None:
    async def story(api: Client) -> None:
        cy, dee = await new(api, "cy", address="cy@example.org"), await new(api, "dee", address="dee@example.org")
        first: dict[str, Any] = {"to": ["dee@example.org"], "subject": "Plan", "text": "one"}
        first["attachments"] = [{"filename": "p.txt", "content": "cA=="}]
        await api.ask("POST", f"/users/{cy}/submit", json=first)
        (got,) = await inbox(api, dee)
        about = {"mailbox": got["mailbox"], "id": got["id"]}
        reply = {"text": "two", "reference": about | {"action": "reply"}}
        await api.ask("POST", f"/users/{dee}/submit", json=reply)
        (answer,) = await inbox(api, cy)
        assert answer["subject"] == "Re: Plan"
        whole = await api.ask("GET", f"/users/{cy}/mailboxes/{answer['mailbox']}/messages/{answer['id']}")
        original = await api.ask("GET", f"/users/{dee}/mailboxes/{got['mailbox']}/messages/{got['id']}")
        assert whole["inReplyTo"] == original["messageId"]
        assert original["answered"] is True
        onward = {"to": ["cy@example.org"], "reference": about | {"action": "forward", "attachments": True}}
        await api.ask("POST", f"/users/{dee}/submit", json=onward)
        last = (await inbox(api, cy))[0]
        assert (last["subject"], last["attachments"]) == ("Fwd: Plan", True)
        bad = await api.ask("POST", f"/users/{dee}/submit", 400, json={"reference": {"mailbox": "x", "id": "y"}})
        assert bad["code"] == "InputValidationError"

    over(story)


def test_other_addresses_go_to_the_relay() -> None:
    async def story(api: Client, sink: Sink) -> None:
        cy = await new(api, "cy", address="cy@example.org")
        to = ["ann@far.example", "jo@fär.example", {"address": "cy@example.org"}]
        parts = {"to": to, "bcc": ["hidden@far.example"], "subject": "Out", "text": ".\nbody\n"}
        made = await api.ask("POST", f"/users/{cy}/submit", json=parts)
        assert made["message"]["queueId"]
        await api.engine.post.outbox.worker.once()
        (mail,) = sink.mails
        assert mail.sender == "cy@example.org"
        assert sorted(mail.recipients) == ["ann@far.example", "hidden@far.example", "jo@xn--fr-via.example"]
        message = email.message_from_bytes(mail.raw, policy=email.policy.SMTP)
        assert message["subject"] == "Out"
        assert message["bcc"] is None
        assert sink.hello == "localhost"
        assert (await api.ask("GET", f"/users/{cy}"))["limits"]["recipients"]["used"] == 4

    with_relay(story)


def test_without_a_relay_other_addresses_are_refused() -> None:
    async def story(api: Client) -> None:
        body = await api.post("/submit", {"to": ["ann@far.example"], "text": "x"}, 400)
        assert "no relay" in body["details"]["to"]
        body = await api.post("/submit", {"to": ["nobody at all"], "text": "x"}, 400)
        assert body["code"] == "InputValidationError"
        assert "required" in (await api.post("/submit", {"text": "x"}, 400))["details"]["to"]
        wrong = {"attachments": [{"content": "***"}], "to": [{"name": "x"}], "bogus": 1}
        body = await api.post("/submit", wrong, 400)
        assert sorted(body["details"]) == ["attachments", "bogus", "to"]

    over(story)


def test_the_daily_limit_holds_and_ends() -> None:
    now = [1_700_000_000.0]

    async def story(api: Client) -> None:
        cy = await new(api, "cy", address="cy@example.org", recipients=2)
        parts = {"to": ["cy@example.org"], "text": "x"}
        for _ in range(2):
            await api.ask("POST", f"/users/{cy}/submit", json=parts)
        assert (await api.ask("GET", f"/users/{cy}"))["limits"]["recipients"] == {
            "allowed": 2, "used": 2, "ttl": 86_400,
        }  # fmt: skip
        body = await api.ask("POST", f"/users/{cy}/submit", 429, json=parts)
        assert body["code"] == "RateLimitedError"
        assert "daily" in body["error"]
        assert len(await inbox(api, cy)) == 2
        now[0] += 86_400
        await api.ask("POST", f"/users/{cy}/submit", json=parts)
        assert (await api.ask("GET", f"/users/{cy}"))["limits"]["recipients"]["used"] == 1

    over(story, clock=lambda: now[0])


def test_what_is_refused_comes_back_and_what_waits_is_tried_again() -> None:
    now = [1_700_000_000.0]

    async def story(api: Client, sink: Sink) -> None:
        cy = await new(api, "cy", address="cy@example.org")
        sink.refuse = {"gone@far.example": "550 no such user", "busy@far.example": "451 later"}
        to = ["gone@far.example", "busy@far.example", "ann@far.example"]
        outbox = api.engine.post.outbox.worker
        await api.ask("POST", f"/users/{cy}/submit", json={"to": to, "subject": "Hi", "text": "x"})
        await outbox.once()
        assert [mail.recipients for mail in sink.mails] == [["ann@far.example"]]
        (bounce,) = await inbox(api, cy)
        assert bounce["from"]["address"] == "mailer-daemon@localhost"
        path = f"/users/{cy}/mailboxes/{bounce['mailbox']}/messages/{bounce['id']}"
        text = (await api.ask("GET", path))["text"]
        assert "gone@far.example: no such user" in text
        assert "busy" not in text
        _, row = report((await api.http.get(f"{path}/message.eml")).content)
        assert row["final-recipient"] == "rfc822; gone@far.example"
        assert (row["status"], row["diagnostic-code"]) == ("5.0.0", "smtp; 550 no such user")
        waits = []
        for _ in range(9):
            (item,) = api.engine._ctx.store.post.queued(api.engine.mailboxes.user(bytes.fromhex(cy)))
            assert item.recipients == ("busy@far.example",)
            waits.append(item.next_attempt - int(now[0]))
            now[0] = item.next_attempt
            await outbox.once()
        assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
        assert api.engine._ctx.store.post.queued(api.engine.mailboxes.user(bytes.fromhex(cy))) == []
        last, _ = await inbox(api, cy)
        raw = (await api.http.get(f"/users/{cy}/mailboxes/{last['mailbox']}/messages/{last['id']}/message.eml")).content
        assert report(raw)[1]["status"] == "4.4.7"  # tried for as long as mail is
        assert len(sink.mails) == 1

    with_relay(story, clock=lambda: now[0])


def test_a_relay_that_is_away_is_waited_for() -> None:
    now = [1_700_000_000.0]

    async def story(api: Client, sink: Sink) -> None:
        cy = await new(api, "cy", address="cy@example.org")
        sink.greeting = "421 not now"
        await api.ask("POST", f"/users/{cy}/submit", json={"to": ["ann@far.example"], "text": "x"})
        await api.engine.post.outbox.worker.once()
        assert not sink.mails
        sink.greeting = "220 sink"
        now[0] += 60
        await api.engine.post.outbox.worker.once()
        assert [mail.recipients for mail in sink.mails] == [["ann@far.example"]]
        assert await inbox(api, cy) == []

    with_relay(story, clock=lambda: now[0])
