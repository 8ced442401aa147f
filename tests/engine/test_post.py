"""Delivery with filters, forwards and automatic answers; webhooks over real loopback sockets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from email.message import EmailMessage
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import mime
from qmail_core.codec.mime import Parsed
from qmail_core.embed import Cluster
from qmail_core.engine.accounts import NewUser
from qmail_core.engine.engine import Engine
from qmail_core.engine.post import Autoreply, Filter, Reference, Submission
from qmail_core.engine.post.filters import Searched
from qmail_core.engine.post.outbox import Outbox
from qmail_core.errors import (
    FilterNotFound,
    Forbidden,
    InputInvalid,
    StoreFull,
    UsageError,
    UserNotFound,
    WebhookNotFound,
)
from qmail_core.model import Folder, MessageState
from qmail_core.store.mailbox import HOME
from qmail_core.transport.outside import Refusal

DAY = 86_400


class Office:
    """An engine with users and a clock."""

    def __init__(self, engine: Engine, now: list[float]) -> None:
        self.engine, self.now = engine, now
        self.post = engine.post

    async def user(self, username: str, **fields: Any) -> int:
        new = NewUser(username=username, password="secretpass", address=f"{username}@example.org", **fields)
        return (await self.engine.accounts.users.create(new)).id

    def inbox(self, user: int, folder: Folder = Folder.INBOX) -> list[MessageState]:
        box = self.engine._ctx.store.mailboxes.mailbox_for(user, folder)
        return self.at(user, box.path)

    def at(self, user: int, path: str) -> list[MessageState]:
        box = self.engine.mailboxes.at(user, path)
        assert box is not None
        return list(self.engine.messages_of.uids(user, box, 1, None))


def over(story: Callable[[Office], Awaitable[None]], **config: Any) -> None:
    async def whole() -> None:
        now = [1_700_000_000.0]
        async with Cluster(5, clock=lambda: now[0]) as cluster:
            await story(Office(await cluster.engine("alice", **config), now))

    asyncio.run(whole())


def letter(to: str = "cy@example.org", sender: str = "ann@far.example", **headers: str) -> bytes:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = to
    for name, value in ({"Subject": "Hello there", "Message-ID": "<1@far.example>"} | headers).items():
        message[name.replace("_", "-")] = value
    message.set_content("The body of it\n")
    return message.as_bytes()


# ------------------------------------------------------------------------------------------------------------------
# Filters


def test_filters_sort_what_comes_in() -> None:
    async def story(office: Office) -> None:
        cy = await office.user("cy")
        box = await office.engine.mailboxes.add(cy, "Lists")
        filters = office.post.filters
        made = await filters.add(cy, Filter(oid=b"", query={"subject": "HELLO"}, action={"seen": True, "flag": True}))
        await filters.add(cy, Filter(oid=b"", query={"from": "far.example"}, action={"mailbox": box.oid.hex()}))
        await filters.add(cy, Filter(oid=b"", query={"text": "nowhere"}, action={"delete": True}))
        await office.post.deliver(cy, letter(), sender="ann@far.example")
        (message,) = office.at(cy, "Lists")
        assert (message.seen, message.flagged) == (True, True)
        await filters.change(cy, Filter(oid=made.oid, query={"subject": "hello"}, action={"delete": True}))
        assert await office.post.deliver(cy, letter()) is None
        await filters.change(cy, Filter(oid=made.oid, query={"subject": "h"}, action={"delete": True}, disabled=True))
        await filters.remove(cy, filters.listed(cy)[1].oid)
        await filters.add(cy, Filter(oid=b"", query={"size": -100_000}, action={"spam": True}))
        await office.post.deliver(cy, letter())
        assert len(office.at(cy, "Junk")) == 1
        assert office.inbox(cy) == []

    over(story)


def test_filters_belong_to_their_users_and_say_something() -> None:
    async def story(office: Office) -> None:
        cy, dee = await office.user("cy"), await office.user("dee")
        filters = office.post.filters
        made = await filters.add(cy, Filter(oid=b"", query={"ha": True}, action={"seen": True}))
        for call in (filters.remove(dee, made.oid), filters.change(dee, made)):
            with pytest.raises(FilterNotFound):
                await call
        for bad in (
            Filter(oid=b"", action={"seen": True}),
            Filter(oid=b"", query={"ha": True}),
            Filter(oid=b"", query={"ha": True}, action={"mailbox": "00" * 12}),
            Filter(oid=b"", query={"ha": True}, action={"forward": ["a@b.example"] * 21}),
        ):
            with pytest.raises(InputInvalid):
                await filters.add(cy, bad)
        await office.engine.accounts.users.delete(office.engine.mailboxes.user_id(cy))
        assert filters.listed(cy) == []

    over(story)


def test_a_mark_of_spam_leads_to_junk() -> None:
    async def story(office: Office) -> None:
        cy = await office.user("cy")
        await office.post.deliver(cy, letter(X_Rspamd_Spam="Yes"))
        assert len(office.at(cy, "Junk")) == 1

    over(story)


@given(st.integers(0, 5000), st.integers(-5000, 5000), st.booleans(), st.booleans())
def test_sizes_and_attachments_are_compared(size: int, wanted: int, attached: bool, asked: bool) -> None:
    raw = letter()
    if attached:
        message = EmailMessage()
        message.set_content("x")
        message.add_attachment(b"y", maintype="application", subtype="pdf")
        raw = message.as_bytes()
    mail = Searched(mime.scan(raw), size)
    assert mail.matches({"ha": asked}) is (attached is asked)
    assert mail.matches({"size": wanted}) is (size > wanted if wanted >= 0 else size < -wanted)


# ------------------------------------------------------------------------------------------------------------------
# Forwards


def test_mail_is_forwarded_once_round() -> None:
    async def story(office: Office) -> None:
        cy = await office.user("cy", forward="dee@example.org")
        dee = await office.user("dee", forward="cy@example.org")
        await office.post.deliver(cy, letter(), sender="ann@far.example", address="cy@example.org")
        assert (len(office.inbox(cy)), len(office.inbox(dee))) == (2, 1)
        assert office.post.usage(cy, "forwards") == (1, DAY)

    over(story)


def test_forwards_have_a_daily_limit() -> None:
    async def story(office: Office) -> None:
        cy, dee = await office.user("cy", forward="dee@example.org", forwards=2), await office.user("dee")
        for _ in range(4):
            await office.post.deliver(cy, letter())
        assert (len(office.inbox(cy)), len(office.inbox(dee))) == (4, 2)

    over(story)


def test_a_forward_that_cannot_go_does_not_stop_delivery() -> None:
    async def story(office: Office) -> None:
        cy = await office.user("cy", forward="ann@far.example")  # and there is no relay
        await office.post.deliver(cy, letter())
        assert len(office.inbox(cy)) == 1

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Automatic answers


def test_who_is_away_answers_once_in_four_days() -> None:
    async def story(office: Office) -> None:
        cy, dee = await office.user("cy", name="Cy"), await office.user("dee")
        away = Autoreply(status=True, text="I am away", start=1_700_000_000, end=1_700_000_000 + 10 * DAY)
        await office.post.autoreplies.set(cy, away)
        raw = letter(sender="dee@example.org")
        for _ in range(3):
            await office.post.deliver(cy, raw, sender="dee@example.org")
        (answer,) = office.inbox(dee)
        assert (answer.subject, answer.from_address, answer.from_name) == (
            "Auto: Re: Hello there",
            "cy@example.org",
            "Cy",
        )
        source = b"".join([chunk async for chunk in office.engine.letters.source(answer)])
        assert b"Auto-Submitted: auto-replied\r\n" in source
        assert b"In-Reply-To: <1@far.example>\r\n" in source
        office.now[0] += 4 * DAY
        await office.post.deliver(cy, raw, sender="dee@example.org")
        assert len(office.inbox(dee)) == 2
        office.now[0] += 6 * DAY  # the end
        await office.post.deliver(cy, raw, sender="dee@example.org")
        assert len(office.inbox(dee)) == 2

    over(story)


def test_two_who_are_away_do_not_talk_to_each_other() -> None:
    async def story(office: Office) -> None:
        cy, dee = await office.user("cy"), await office.user("dee")
        for user in (cy, dee):
            await office.post.autoreplies.set(user, Autoreply(status=True, text="away"))
        await office.post.deliver(cy, letter(sender="dee@example.org"), sender="dee@example.org")
        assert (len(office.inbox(cy)), len(office.inbox(dee))) == (1, 1)

    over(story)


@pytest.mark.parametrize(
    ("sender", "headers"),
    [
        ("", {}),
        ("dee@example.org", {"List_Id": "<news.example.org>"}),
        ("dee@example.org", {"Precedence": "bulk"}),
        ("dee@example.org", {"Auto_Submitted": "auto-generated"}),
        ("dee@example.org", {"Return_Path": "<>"}),
        ("dee@example.org", {"X_Rspamd_Spam": "Yes"}),
        ("dee@example.org", {"to": "everybody@example.org"}),
        ("noreply@example.org", {}),
        ("mailer-daemon@example.org", {}),
        ("news-bounces+cy=example.org@example.org", {}),
        ("cy@example.org", {}),
    ],
)
def test_machines_and_lists_get_no_answer(sender: str, headers: dict[str, str]) -> None:
    async def story(office: Office) -> None:
        cy, dee = await office.user("cy"), await office.user("dee")
        oid = office.engine.mailboxes.user_id(dee)
        for name in ("noreply", "mailer-daemon", "news-bounces"):
            await office.engine.accounts.addresses.add(oid, f"{name}@example.org")
        await office.post.autoreplies.set(cy, Autoreply(status=True, text="away"))
        await office.post.deliver(cy, letter(sender=sender or "dee@example.org", **headers), sender=sender)
        assert office.inbox(dee) == []

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Webhooks


class Hook:
    """A web server on loopback that answers `status` and keeps what it is sent."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[dict[str, str], bytes]] = []

    async def __aenter__(self) -> Hook:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/news?x=1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((headers, body))
        location = "Location: /elsewhere\r\n" if self.status == 302 else ""
        writer.write(f"HTTP/1.1 {self.status} X\r\n{location}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


def test_new_mail_is_told_in_signed_batches() -> None:
    async def story(office: Office) -> None:
        cy, dee = await office.user("cy"), await office.user("dee")
        hooks = office.post.webhooks
        async with Hook() as server:
            await office.post.deliver(cy, letter())  # before anybody asked
            made, secret = await hooks.add(server.url, cy)
            for user in (cy, dee, cy):
                await office.post.deliver(user, letter())
            await hooks.worker.once()
            await hooks.worker.once()
            ((headers, body),) = server.requests
            document = json.loads(body)
            assert [event["subject"] for event in document["events"]] == ["Hello there"] * 2
            assert document["events"][0]["user"] == office.engine.mailboxes.user_id(cy).hex()
            stamp = headers["x-qmail-timestamp"]
            expected = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
            assert headers["x-qmail-signature"] == f"sha256={expected}"
            assert secret not in repr(made)
            assert secret not in repr(hooks.listed())
            await hooks.remove(made.oid)
            with pytest.raises(WebhookNotFound):
                await hooks.remove(made.oid)

    over(story, webhooks=True, webhooks_loopback=True)


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_fails_is_tried_ever_more_rarely(status: int) -> None:
    async def story(office: Office) -> None:
        cy = await office.user("cy")
        hooks = office.post.webhooks
        async with Hook() as server:
            made, _ = await hooks.add(server.url)
            server.status = status
            await office.post.deliver(cy, letter())
            waits = []
            for _ in range(10):
                await hooks.worker.once()
                await hooks.worker.once()  # not before its time
                found = hooks.get(made.oid)
                waits.append(found.next_attempt - int(office.now[0]))
                office.now[0] = found.next_attempt
            assert waits == [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
            assert len(server.requests) == 10
            server.status = 204
            await hooks.worker.once()
            assert hooks.get(made.oid).attempts == 0
            await hooks.worker.once()
            assert len(server.requests) == 11

    over(story, webhooks=True, webhooks_loopback=True)


def test_what_users_file_themselves_is_no_news() -> None:
    async def story(office: Office) -> None:
        cy = await office.user("cy")
        hooks = office.post.webhooks
        async with Hook() as server:
            await hooks.add(server.url)
            store = office.engine._ctx.store.mailboxes
            sent = store.mailbox_for(cy, Folder.SENT)
            filed = await office.engine.letters.deliver(cy, letter(), sent)
            await office.engine.letters.deliver(cy, letter(), store.mailbox_for(cy, Folder.DRAFTS), draft=True)
            await office.engine.messages_of.move(cy, [filed], store.mailbox_for(cy, Folder.INBOX))
            await hooks.worker.once()
            assert server.requests == []

    over(story, webhooks=True, webhooks_loopback=True)


def test_many_messages_are_several_batches() -> None:
    async def story(office: Office) -> None:
        cy = await office.user("cy")
        async with Hook() as server:
            await office.post.webhooks.add(server.url)
            await asyncio.gather(*(office.post.deliver(cy, letter()) for _ in range(130)))
            await office.post.webhooks.worker.once()
            sizes = [len(json.loads(body)["events"]) for _, body in server.requests]
            assert sizes == [100, 30]

    over(story, webhooks=True, webhooks_loopback=True)


def test_a_batch_that_was_taken_does_not_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmail_core.engine.post.webhooks.BATCH", 2)

    async def story(office: Office) -> None:
        cy = await office.user("cy")
        hooks = office.post.webhooks
        sizes: list[int] = []
        statuses = iter([200, 500, 200])

        async def post(url: str, body: bytes, headers: object) -> int:
            sizes.append(len(json.loads(body)["events"]))
            return next(statuses)

        monkeypatch.setattr(hooks._poster, "post", post)
        made, _ = await hooks.add("https://hook.example/")
        for _ in range(3):
            await office.engine.letters.deliver(
                cy, letter(), office.engine._ctx.store.mailboxes.mailbox_for(cy, Folder.INBOX)
            )
        await hooks.worker.once()
        assert sizes == [2, 1]
        hooks._looked.clear()  # as after a restart
        office.now[0] = hooks.get(made.oid).next_attempt
        await hooks.worker.once()
        assert sizes == [2, 1, 1]

    over(story, webhooks=True)


def test_a_webhook_in_trouble_does_not_part_the_others_from_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(office: Office) -> None:
        cy = await office.user("cy")
        hooks = office.post.webhooks
        failed = asyncio.Event()
        posts: list[str] = []

        async def post(url: str, body: bytes, headers: object) -> int:
            posts.append(url)
            if "slow" in url:
                await failed.wait()
            return 200

        monkeypatch.setattr(hooks._poster, "post", post)
        slow, _ = await hooks.add("https://slow.example/")
        fast, _ = await hooks.add("https://fast.example/")
        told = hooks._store.webhook_told

        async def write(oid: bytes, *what: int) -> None:
            if oid == fast.oid and not failed.is_set():
                failed.set()
                raise StoreFull("the store could not be written")
            await told(oid, *what)

        monkeypatch.setattr(hooks._store, "webhook_told", write)
        await office.post.deliver(cy, letter())
        with pytest.raises(StoreFull):
            await hooks.worker.once()
        assert hooks.get(slow.oid).told > slow.told
        await hooks.worker.once()
        assert sorted(posts) == ["https://fast.example/"] * 2 + ["https://slow.example/"]

    over(story, webhooks=True)


def test_webhooks_are_off_unless_switched_on() -> None:
    async def story(office: Office) -> None:
        with pytest.raises(Forbidden):
            await office.post.webhooks.add("https://hook.example/")
        with pytest.raises(UserNotFound):
            office.engine.accounts.users.get(b"\0" * 12)

    over(story)


@pytest.mark.parametrize("url", ["ftp://a.example/", "nonsense", "http://", "http://u:p@a.example/", "http://a:99999/"])
def test_only_urls_are_told(url: str) -> None:
    async def story(office: Office) -> None:
        with pytest.raises(UsageError):
            await office.post.webhooks.add(url)

    over(story, webhooks=True)


# ------------------------------------------------------------------------------------------------------------------
# The queue to the relay


class Relay:
    """A relay that takes what it is given, but for those it refuses."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, ...]] = []
        self.refused: dict[str, Refusal] = {}

    async def submit(self, sender: str, recipients: Sequence[str], raw: bytes) -> dict[str, Refusal]:
        self.taken.append(tuple(recipients))
        return {who: refusal for who, refusal in self.refused.items() if who in recipients}


def _with_relay(office: Office) -> tuple[Outbox, Relay]:
    outbox, relay = office.post.outbox, Relay()
    outbox._relay = relay
    return outbox, relay


def _fail(monkeypatch: pytest.MonkeyPatch, office: Office, after: int = 0) -> None:
    """The medium is full once so many more groups of changes were written."""
    database = office.engine._ctx.store.mailboxes._db  # type: ignore[attr-defined]
    commit, left = database._commit, [after]

    def full(group: list[Any]) -> None:
        left[0] -= 1
        if left[0] >= 0:
            commit(group)
            return
        for job in group:
            job.error = StoreFull("the store could not be written")

    monkeypatch.setattr(database, "_commit", full)


def test_nothing_is_handed_over_that_cannot_be_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(office: Office) -> None:
        outbox, relay = _with_relay(office)
        await outbox.add(1, "a@b.example", ["c@d.example"], letter())
        _fail(monkeypatch, office)
        for _ in range(3):
            with pytest.raises(StoreFull):
                await outbox.worker.once()
        assert relay.taken == []
        monkeypatch.undo()
        await outbox.worker.once()
        assert relay.taken == [("c@d.example",)]
        assert office.engine._ctx.store.post.queued(1) == []

    over(story)


def test_what_the_relay_took_is_handed_over_once_whatever_the_store_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(office: Office) -> None:
        outbox, relay = _with_relay(office)
        cy = await office.user("cy")
        relay.refused = {"no@d.example": Refusal(550, "no"), "later@d.example": Refusal(451, "later")}
        await outbox.add(cy, "cy@example.org", ["yes@d.example", *relay.refused], letter())
        _fail(monkeypatch, office, 1)  # the attempt is written down, its outcome and the letter about it are not
        for _ in range(3):
            with pytest.raises(StoreFull):
                await outbox.worker.once()
        assert len(relay.taken) == 1
        monkeypatch.undo()
        await outbox.worker.once()
        (item,) = office.engine._ctx.store.post.queued(cy)
        assert (item.recipients, item.attempts) == (("later@d.example",), 1)
        assert len(office.inbox(cy)) == 1  # told of the one that was refused
        office.now[0] = item.next_attempt
        await outbox.worker.once()
        assert relay.taken[1:] == [("later@d.example",)]

    over(story)


def test_a_letter_nobody_can_write_does_not_hold_up_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(office: Office) -> None:
        outbox, relay = _with_relay(office)
        relay.refused = {"c@d.example": Refusal(550, "no")}
        await outbox.add(1, "a@b.example", ["c@d.example"], letter())
        monkeypatch.setattr(outbox._bounces, "write", AsyncMock(side_effect=ZeroDivisionError))
        with pytest.raises(ZeroDivisionError):
            await outbox.worker.once()
        await outbox.worker.once()
        assert office.engine._ctx.store.post.queued(1) == []
        assert len(relay.taken) == 1

    over(story)


def test_an_attempt_that_is_cut_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(office: Office) -> None:
        outbox, relay = _with_relay(office)
        await outbox.add(1, "a@b.example", ["c@d.example"], letter())
        monkeypatch.setattr(relay, "submit", AsyncMock(side_effect=asyncio.CancelledError))
        with pytest.raises(asyncio.CancelledError):
            await outbox.worker.once()
        monkeypatch.undo()
        (item,) = office.engine._ctx.store.post.queued(1)
        assert (item.attempts, item.next_attempt) == (1, int(office.now[0]) + 60)

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Mail that is read, although nobody should write it so

HEAD = b"From: dee@example.org\r\nTo: cy@example.org\r\nSubject: s\r\n"


async def _refer(office: Office, cy: int, raw: bytes, **reference: Any) -> Parsed:
    """A message of cy's about the one that comes in."""
    message = await office.post.deliver(cy, raw, sender="ann@far.example")
    assert message is not None
    box = office.engine.mailboxes.at(cy, "INBOX")
    assert box is not None
    wanted = Submission(
        to=(mime.Person("", "dee@example.org"),),
        text="x",
        reference=Reference(mailbox=box.oid, uid=message.uid, **reference),
    )
    made = await office.post.submit(cy, wanted)
    return mime.scan(b"".join([chunk async for chunk in office.engine.letters.source(made.message)]))


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ("Message-ID: <größe@b>", ()),
        ("Message-ID: <a1@b>\r\nReferences: <ok@b> <grün@b>", ("<ok@b>", "<a1@b>")),
        ("Message-ID: abc@b>", ("<abc@b>",)),
        (f"Message-ID: <{'a' * 1100}@b>", ()),
    ],
)
def test_whatever_ids_a_message_has_it_is_answered(fields: str, known: tuple[str, ...]) -> None:
    async def story(office: Office) -> None:
        cy, dee = await office.user("cy"), await office.user("dee")
        raw = HEAD + fields.encode() + b"\r\n\r\nx"
        assert (await _refer(office, cy, raw)).references == known
        await office.post.autoreplies.set(cy, Autoreply(status=True, text="away"))
        await office.post.deliver(cy, raw, sender="dee@example.org")
        assert [message.subject for message in office.inbox(dee)] == ["Re: s", "Auto: Re: s"]
        await office.post.outbox._bounces.tell(cy, {"bob@far.example": Refusal(550, "no")}, raw)
        assert office.inbox(cy)[-1].from_address.startswith("mailer-daemon@")

    over(story)


@pytest.mark.parametrize(
    ("fields", "kind", "cid"),
    [
        ("Content-Type: image/png; name=a\r\nContent-ID: <Picture 1>", "image/png", ""),
        (f"Content-Type: application/{'x' * 127}; name=a", f"application/{'x' * 127}", ""),
        (f"Content-Type: application/{'x' * 128}; name=a", "application/octet-stream", ""),
        ("Content-Type: nonsense; name=a", "text/plain", ""),
        ("Content-Type: image/png; name=a\r\nContent-ID: <größe@b>", "image/png", ""),
        ("Content-Type: image/png; name=a\r\nContent-ID: <1@b>", "image/png", "1@b"),
    ],
)
def test_whatever_parts_a_message_has_it_is_forwarded(fields: str, kind: str, cid: str) -> None:
    raw = HEAD + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\n\r\nx\r\n--q\r\n"
    raw += fields.encode() + b"\r\nContent-Disposition: attachment\r\n\r\nyy\r\n--q--\r\n"

    async def story(office: Office) -> None:
        cy, _ = await office.user("cy"), await office.user("dee")
        (part,) = (await _refer(office, cy, raw, action="forward", attachments=True)).attachments
        assert (part.content_type, part.cid, part.filename) == (kind, cid, "a")

    over(story)


# ------------------------------------------------------------------------------------------------------------------
# Submissions that fail on the way


class Mixed:
    """A mail of the engine's own user over the network, to the relay, and to a user here."""

    def __init__(self, office: Office) -> None:
        self.office, self.post = office, office.post
        self.outbox, self.relay = _with_relay(office)
        self.uploads = AsyncMock(wraps=office.post._submitter._upload)
        office.post._submitter._upload = self.uploads
        self.store = office.engine._ctx.store.post

    async def submit(self, **fields: Any) -> None:
        await self.office.user("cy")
        to = tuple(mime.Person("", one) for one in ("alice", "c@d.example", "cy@example.org"))
        await self.post.submit(HOME, Submission(to=to, subject="s", text="x", **fields))

    async def failed(self, error: type[Exception]) -> None:
        """It is as if nothing had been asked for."""
        with pytest.raises(error):
            await self.submit()
        assert self.office.inbox(HOME, Folder.SENT) == []
        assert self.store.queued(HOME) == []
        assert self.store.usage(HOME, "recipients").used == 0


def test_what_cannot_be_queued_does_not_go_over_the_network_either(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(office: Office) -> None:
        mixed = Mixed(office)
        monkeypatch.setattr(mixed.store, "enqueue", AsyncMock(side_effect=StoreFull("full")))
        await mixed.failed(StoreFull)
        assert mixed.uploads.await_count == 0

    over(story)


def test_what_cannot_go_over_the_network_does_not_go_to_the_relay_either() -> None:
    async def story(office: Office) -> None:
        mixed = Mixed(office)

        async def refuse(draft: object) -> None:
            await mixed.outbox.worker.once()
            raise InputInvalid({"to": "no"})

        mixed.uploads.side_effect = refuse
        await mixed.failed(InputInvalid)
        await mixed.outbox.worker.once()
        assert mixed.relay.taken == []

    over(story)


def test_a_submission_that_has_left_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(office: Office) -> None:
        mixed = Mixed(office)
        earlier = await office.post.deliver(HOME, letter())
        box = office.engine.mailboxes.at(HOME, "INBOX")
        assert earlier is not None
        assert box is not None
        broken = AsyncMock(side_effect=StoreFull("full"))
        monkeypatch.setattr(mixed.store, "release", broken)
        monkeypatch.setattr(office.engine._ctx.store.mailboxes, "flag", broken)
        await mixed.submit(reference=Reference(mailbox=box.oid, uid=earlier.uid))
        assert broken.await_count == 2
        assert mixed.uploads.await_count == 1
        office.now[0] += 60
        await mixed.outbox.worker.once()
        assert mixed.relay.taken == [("c@d.example",)]
        assert mixed.store.usage(HOME, "recipients").used == 3

    over(story)


def test_a_submission_by_several_ways_leaves_at_once() -> None:
    async def story(office: Office) -> None:
        mixed = Mixed(office)
        await mixed.submit()
        await mixed.outbox.worker.once()
        assert mixed.relay.taken == [("c@d.example",)]
        assert len(office.inbox(HOME, Folder.SENT)) == 1

    over(story)
