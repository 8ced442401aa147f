"""Mail of the network under its user's wishes: filters, forwards, answers of the absent, letters about failures."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import Awaitable, Callable, Mapping
from email.message import EmailMessage
from typing import Any

import msgspec
import pytest

from qmail_core import Cluster, Engine
from qmail_core.codec import mime
from qmail_core.codec.address import render
from qmail_core.engine.accounts import NewUser
from qmail_core.engine.post import Autoreply, Filter, Person, Submission
from qmail_core.errors import QMailError
from qmail_core.model import Folder, Message, MessageState, Source
from qmail_core.store.mailbox import HOME

Story = Callable[[Cluster, Engine, Engine], Awaitable[None]]


def over(story: Story, **config: Any) -> None:
    async def whole() -> None:
        async with Cluster(5) as cluster:
            await story(cluster, await cluster.engine("alice", **config), await cluster.engine("bob"))

    asyncio.run(whole())


async def arrive(alice: Engine, bob: Engine, subject: str = "Plan", **fields: Any) -> Message:
    """A mail of Bob's, with what happens after it was filed."""
    await bob.send(bob.draft(fields.pop("to", ["alice"]), subject, "The text of it", **fields))
    (received,) = await alice.receive()
    await alice.post.network.worker.once()
    return received.message


def at(engine: Engine, path: str) -> list[MessageState]:
    box = engine.mailboxes.at(HOME, path)
    assert box is not None
    return list(engine.messages_of.uids(HOME, box, 1, None))


async def want(engine: Engine, query: dict[str, Any], **action: Any) -> None:
    await engine.post.filters.add(HOME, Filter(oid=b"", query=query, action=action))


def test_filters_sort_mail_of_the_network() -> None:
    async def story(_: Cluster, alice: Engine, bob: Engine) -> None:
        lists = await alice.mailboxes.add(HOME, "Lists")
        await want(alice, {"subject": "PLAN", "from": "bob", "text": "text of"}, mailbox=lists.oid.hex(), flag=True)
        await want(alice, {"ha": True}, seen=True)
        await want(alice, {"subject": "buy"}, spam=True)
        message = await arrive(alice, bob, attachments=[Source("a.txt", data=b"x")])
        (state,) = at(alice, "Lists")
        assert (state.flagged, state.seen, state.email_id) == (True, True, message.id)
        assert (await arrive(alice, bob, "Buy this")).is_read is False
        assert len(at(alice, "Junk")) == 1
        assert (await arrive(alice, bob, "Hello")).folder == Folder.INBOX

    over(story)


def test_what_a_filter_throws_away_lies_in_the_trash() -> None:
    async def story(_: Cluster, alice: Engine, bob: Engine) -> None:
        await want(alice, {"from": bob.address_text}, delete=True)
        assert (await arrive(alice, bob)).folder == Folder.TRASH

    over(story)


def test_mail_of_the_network_is_forwarded_to_users_here() -> None:
    async def story(_: Cluster, alice: Engine, bob: Engine) -> None:
        home = alice.mailboxes.user_id(HOME)
        await alice.accounts.addresses.add(home, "alice@example.org")
        new = NewUser(username="cy", password="secretpass", address="cy@example.org", forward="alice@example.org")
        cy = (await alice.accounts.users.create(new)).id
        await want(alice, {"subject": "plan"}, forward=["cy@example.org", "bob"])
        await arrive(alice, bob, attachments=[Source("a.txt", data=b"content of it")])
        (copy,) = alice.messages_of.uids(cy, alice.mailboxes.listed(cy)[0], 1, None)
        raw = b"".join([chunk async for chunk in alice.letters.source(copy)])
        assert raw.startswith(b"Delivered-To: cy@example.org\r\nDelivered-To: " + alice.address_text.encode())
        parsed = email.message_from_bytes(raw, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        assert [part.get_content() for part in parsed.iter_attachments()] == ["content of it"]
        # and what comes round is filed, and goes no further
        assert len(at(alice, "INBOX")) == 2

    over(story)


def test_the_absent_answer_over_the_network_once() -> None:
    async def story(_: Cluster, alice: Engine, bob: Engine) -> None:
        away = Autoreply(status=True, text="Back on Monday")
        await alice.post.autoreplies.set(HOME, away)
        await bob.post.autoreplies.set(HOME, away)
        for subject in ("Plan", "Plan again"):
            await arrive(alice, bob, subject)
        for task in alice.tasks():
            await alice.wait(task.id)
        (answer,) = await bob.receive()
        assert (answer.message.subject, answer.message.body) == ("Auto: Re: Plan", "Back on Monday")
        await bob.post.network.worker.once()
        assert list(bob.tasks()) == [task for task in bob.tasks() if task.status == "success"]
        assert await alice.receive() == []
        assert alice.post.usage(HOME, "recipients")[0] == 1

    over(story)


def test_the_absent_answer_a_long_subject() -> None:
    async def story(_: Cluster, alice: Engine, bob: Engine) -> None:
        await alice.post.autoreplies.set(HOME, Autoreply(status=True, text="Back on Monday"))
        await arrive(alice, bob, "s" * 255)
        await alice.wait(alice.tasks()[0].id)
        (answer,) = await bob.receive()
        assert answer.message.subject == "Auto: Re: " + "s" * 245

    over(story)


def test_the_absent_do_not_answer_blind_copies() -> None:
    async def story(_: Cluster, alice: Engine, bob: Engine) -> None:
        await alice.post.autoreplies.set(HOME, Autoreply(status=True, text="Back on Monday"))
        await arrive(alice, bob, to=["bob"], bcc=["alice"])
        assert len(alice.tasks()) == 0

    over(story)


def test_webhooks_tell_of_mail_of_the_network() -> None:
    posted: list[bytes] = []

    class Hook:
        def check(self, url: str) -> None:
            assert url

        async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
            posted.append(body)
            return 200

    async def story(_: Cluster, alice: Engine, bob: Engine) -> None:
        alice.post.webhooks._poster = Hook()
        await alice.post.webhooks.add("https://hook.example/")
        lists = await alice.mailboxes.add(HOME, "Lists")
        await want(alice, {"subject": "plan"}, mailbox=lists.oid.hex())
        await arrive(alice, bob)
        await alice.post.webhooks.worker.once()
        (event,) = msgspec.json.decode(posted[0])["events"]
        assert (event["path"], event["subject"], event["from"]["address"]) == ("Lists", "Plan", "bob")

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# What comes back


def report(raw: bytes) -> list[dict[str, str]]:
    """The status blocks of a delivery status notification, by the standard library."""
    message = email.message_from_bytes(raw, policy=email.policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    said, status, header = message.iter_parts()
    assert said.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    assert header.get_content_type() == "text/rfc822-headers"
    return [{name.lower(): str(value) for name, value in block.items()} for block in status.get_payload()]  # type: ignore[union-attr]


async def bounces(engine: Engine) -> list[bytes]:
    found = [state for state in at(engine, "INBOX") if state.from_address.startswith("mailer-daemon@")]
    return [b"".join([chunk async for chunk in engine.letters.source(state)]) for state in found]


async def submit(engine: Engine, *to: str) -> str:
    people = tuple(Person("", text) for text in to)
    made = await engine.post.submit(HOME, Submission(to=people, subject="Lost", text="text"))
    return made.queue_id


def test_a_mail_the_servers_did_not_take_comes_back() -> None:
    async def story(cluster: Cluster, alice: Engine, _: Engine) -> None:
        cluster.down.update(range(5))
        await submit(alice, "bob")
        for task in alice.tasks():
            assert (await alice.wait(task.id)).status != "success"
        (raw,) = await bounces(alice)
        head, row = report(raw)
        assert head["reporting-mta"] == "dns; localhost"
        assert (row["final-recipient"], row["action"], row["status"]) == ("x-qmail; bob", "failed", "5.0.0")
        assert row["diagnostic-code"].startswith("x-qmail; ")
        assert b"Subject: Lost" in raw

    over(story)


def test_a_recipient_who_refuses_is_told_of() -> None:
    async def story(_: Cluster, alice: Engine, bob: Engine) -> None:
        await submit(alice, "bob", "9.9.9@bit")
        for task in alice.tasks():
            await alice.wait(task.id)
        (raw,) = await bounces(alice)
        assert [row["final-recipient"] for row in report(raw)[1:]] == ["x-qmail; 9.9.9@bit"]
        assert len(await bob.receive()) == 1

    over(story)


def test_who_follows_a_task_gets_no_letter() -> None:
    async def story(cluster: Cluster, alice: Engine, _: Engine) -> None:
        cluster.down.update(range(5))
        with pytest.raises(QMailError):
            await alice.send(alice.draft(["bob"], "Lost", "text"))
        assert await bounces(alice) == []

    over(story)


def test_a_contact_with_a_name_beyond_ascii_has_mail_with_a_source() -> None:
    async def story(cluster: Cluster, alice: Engine, bob: Engine) -> None:
        named = await cluster.engine("jürgen")
        await named.send(named.draft(["alice"], "Plan", "The text of it"))
        (received,) = await alice.receive()
        (message,) = at(alice, "INBOX")
        assert message.from_address == "jürgen"
        raw = b"".join([chunk async for chunk in alice.letters.source(message)])
        assert mime.scan(raw).from_ == (Person("jürgen", render(received.message.sender)),)
        submitted = await alice.post.submit(HOME, Submission(to=(Person("", "jürgen"),), text="Yes"))
        raw = b"".join([chunk async for chunk in alice.letters.source(submitted.message)])
        assert mime.scan(raw).to == (Person("", render(received.message.sender)),)

    over(story)
