"""Receiving: every tell is kept before it is told, shown once, and a poll ends when it should."""

from __future__ import annotations

import asyncio
import os

import pytest

from qmail_core import Cluster, NotFound, QuorumError, Source
from qmail_core.codec import consts as c
from qmail_core.errors import Forbidden
from qmail_core.model import Downloaded, Folder
from tests.conftest import skip
from tests.engine import content, couple, now, play


def test_a_peek_answers_what_waits_and_nothing_twice() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        assert (await bob.peek()).notifications == ()
        await alice.send(alice.draft(["bob"], "one", "b"))
        first = (await bob.peek()).notifications
        assert len(first) == 1
        assert (await bob.peek()).notifications == first  # until it has been downloaded
        await bob.download(first[0].tell.guid)
        for _ in range(4):
            skip(100)  # beacons serve a tell again for a while
            assert (await bob.peek()).notifications == ()

    play(story)


def test_beacons_may_be_away_one_at_a_time() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.send(alice.draft(["bob"], "one", "b"))
        cluster.down.add(11)
        assert len((await bob.peek()).notifications) == 1
        cluster.down.add(14)
        with pytest.raises(QuorumError, match="Peek failed") as lost:
            await bob.peek()
        assert set(lost.value.failures) == {11, 14}
        with pytest.raises(QuorumError, match="Ping failed"):
            await bob.ping(10)

    play(story)


def test_a_hanging_beacon_delays_a_peek_by_half_a_second_at_most() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.send(alice.draft(["bob"], "one", "b"))
        cluster.delay[11] = 1000.0
        begun = now()
        assert len((await bob.peek()).notifications) == 1
        assert now() - begun <= 0.6

    play(story)


def test_a_ping_waits_for_new_mail_and_is_woken_by_it() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.send(alice.draft(["bob"], "old", "b"))
        await bob.peek()
        waiting = asyncio.create_task(bob.ping(300))
        await asyncio.sleep(30)
        assert not waiting.done()
        sent = await alice.send(alice.draft(["bob"], "new", "b"))
        polled = await waiting
        assert [item.tell.guid.hex() for item in polled.notifications] == [sent.receipt.file_guid]
        assert (polled.timed_out, polled.status) == (False, 0)
        assert 29_000 <= polled.elapsed_ms <= 32_000

    play(story)


def test_a_ping_without_mail_ends_at_its_time() -> None:
    async def story(cluster: Cluster) -> None:
        _, bob = await couple(cluster)
        begun = now()
        polled = await bob.ping(20)
        assert polled.notifications == ()
        assert now() - begun == pytest.approx(20, abs=1)

    play(story)


def test_a_ping_that_the_beacon_ends_says_so() -> None:
    async def story(cluster: Cluster) -> None:
        _, bob = await couple(cluster)
        polled = await bob.ping(2000)
        assert (polled.timed_out, polled.status) == (True, c.STATUS_POLL_TIMEOUT)
        assert now() == pytest.approx(600, abs=5)

    play(story)


def test_draining_answers_parked_pings() -> None:
    async def story(cluster: Cluster) -> None:
        _, bob = await couple(cluster)
        waiting = [asyncio.create_task(bob.ping(500)) for _ in range(3)]
        await asyncio.sleep(5)
        bob.drain()
        assert [(await task).notifications for task in waiting] == [(), (), ()]
        assert now() == pytest.approx(5, abs=0.1)
        assert (await bob.ping(500)).notifications == ()
        assert now() < 600

    play(story)


def test_receiving_waits_for_the_first_mail_if_it_may() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        assert await bob.receive() == []
        waiting = asyncio.create_task(bob.receive(timeout=60))
        await asyncio.sleep(1)
        await alice.send(alice.draft(["bob"], "s", "b"))
        assert [mail.message.subject for mail in await waiting] == ["s"]

    play(story)


def test_a_mail_without_a_tell_is_not_found() -> None:
    async def story(cluster: Cluster) -> None:
        _, bob = await couple(cluster)
        with pytest.raises(NotFound, match="Pass sender_sn to download directly"):
            await bob.download(bytes(16))
        with pytest.raises(QuorumError):
            await bob.download(bytes(16), sender_sn=7)

    play(story)


def test_messages_are_read_and_listed() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        for number in range(3):
            await alice.send(alice.draft(["bob"], f"{number}", "b"))
        mails = await bob.receive()
        assert [mail.message.uid for mail in mails] == [1, 2, 3]
        assert (await bob.message(mails[0].message.id, mark_read=False)).is_read is False
        assert (await bob.message(mails[0].message.id)).is_read is True
        page = bob.messages(Folder.INBOX, limit=2)
        assert (len(page.messages), page.total, page.unread) == (2, 3, 2)
        with pytest.raises(NotFound):
            await bob.message(bytes(16))
        with pytest.raises(NotFound):
            bob.attachments(bytes(16))

    play(story, nodes=5)


def test_attachments_belong_to_their_message_and_are_fetched_once() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        data = os.urandom(1000)
        for number in range(2):
            await alice.send(alice.draft(["bob"], f"{number}", "b", attachments=[Source(name="x", data=data)]))
        one, two = await bob.receive()
        (row,) = one.attachments
        assert (await bob.attachment(one.message.id, row.id, fetch=False)).path == ""
        assert await content(bob, one.message.id, row.id) == data
        cluster.down.update(range(5))
        assert await content(bob, one.message.id, row.id) == data  # from the disk now
        with pytest.raises(Forbidden):
            await bob.attachment(two.message.id, row.id)
        with pytest.raises(NotFound):
            await bob.attachment(one.message.id, 12345)
        cluster.down.clear()
        os.remove((await bob.attachment(one.message.id, row.id)).path)
        assert await content(bob, one.message.id, row.id) == data  # fetched again

    play(story, nodes=5)


def test_after_a_failed_download_the_next_one_is_alone_too() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.send(alice.draft(["bob"], "s", "b"))
        ((item,), download) = (await bob.peek()).notifications, bob._receiver._download
        running = 0
        tasks: list[asyncio.Task[Downloaded]] = []

        async def fetch(guid: bytes, sender_sn: int | None) -> Downloaded:
            nonlocal running
            running += 1
            assert running == 1
            try:
                await asyncio.sleep(1)
                if len(tasks) == 2:
                    tasks.append(asyncio.create_task(bob.download(guid)))  # it comes as the second one is woken
                    raise QuorumError("not now", {})
                return await download(guid, sender_sn)
            finally:
                running -= 1

        bob._receiver._download = fetch  # type: ignore[method-assign]
        tasks += [asyncio.create_task(bob.download(item.tell.guid)) for _ in range(2)]
        await asyncio.wait(tasks)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in found] == [QuorumError, Downloaded, Downloaded]
        assert len(bob._receiver.turns) == 0

    play(story, nodes=5)


def test_nothing_is_kept_of_attachments_that_were_fetched() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.send(alice.draft(["bob"], "s", "b", attachments=[Source(name="x", data=b"x")]))
        (mail,) = await bob.receive()
        (row,) = mail.attachments
        assert [
            await content(bob, mail.message.id, row.id),
            *await asyncio.gather(*(content(bob, mail.message.id, row.id) for _ in range(3))),
        ] == [b"x"] * 4
        assert len(bob._receiver.turns) == 0

    play(story, nodes=5)


def test_the_senders_own_copy_has_its_attachments_too() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        await alice.send(alice.draft(["bob"], "s", "b", attachments=[Source(name="x", data=b"mine")]))
        (copy,) = alice.messages(Folder.SENT).messages
        (row,) = alice.attachments(copy.id)
        assert await content(alice, copy.id, row.id) == b"mine"

    play(story, nodes=5)
