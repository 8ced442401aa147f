"""Sending: stored as widely as promised, paid once, stalled by nobody, and failing cleanly when it must."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from qmail_core import (
    Address,
    Cluster,
    Conflict,
    Draft,
    Durability,
    Engine,
    PaymentError,
    QuorumError,
    Source,
    UsageError,
)
from qmail_core.codec import consts as c
from qmail_core.errors import PathRefused
from qmail_core.model import Folder, Profile, Striping
from qmail_core.store.base import LockerKind, LockerState
from tests.engine import BALANCE, check_books, content, couple, lockers, now, play


def stored(cluster: Cluster, guid: bytes, file_type: int = 0) -> set[int]:
    """Nodes that hold the first page of an object."""
    return {n.index for n in cluster.raida.nodes if n.state.page(guid, file_type, 0) is not None}


async def until_stored(cluster: Cluster, guid: bytes) -> None:
    """Until the first page of the first attachment has come to a node."""
    while not stored(cluster, guid, c.FILE_ATTACHMENT):  # noqa: ASYNC110 - in virtual time
        await asyncio.sleep(0.001)


def test_a_mail_arrives_as_it_was_sent() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        result = await alice.send(alice.draft(["bob"], "Grüße ✉", "Zeile 1\nZeile 2 😀"))
        up = result.receipt.upload
        assert (up.status, up.servers.ok, up.servers.fail, up.survives_loss_of) == ("success", 25, 0, 5)
        assert (result.files, result.storage_cost, result.inbox_cost) == (1, 25, 10)
        assert (result.stripe_successes, result.stripe_failures) == (25, 0)
        assert result.receipt.tell.status == "success"
        (got,) = await bob.receive()
        message = got.message
        assert (message.subject, message.body, message.sender) == ("Grüße ✉", "Zeile 1\nZeile 2 😀", alice.address)
        assert [(r.text, r.address) for r in message.recipients] == [("bob", bob.address)]
        assert (got.stripes_downloaded, got.stripes_recovered, got.liars) == (25, 0, ())
        assert (message.is_read, message.folder, message.outgoing) == (False, Folder.INBOX, False)
        (copy,) = alice.messages(Folder.SENT).messages
        assert (copy.subject, copy.guid, copy.is_read) == (message.subject, message.guid, True)
        assert alice.balance() == BALANCE - 35
        check_books(cluster, alice)

    play(story)


@pytest.mark.parametrize("count", [1, 5])
def test_servers_that_are_down_are_done_without(count: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.down.update(range(count))
        result = await alice.send(alice.draft(["bob"], "s", "b"))
        up = result.receipt.upload
        assert (up.servers.ok, up.servers.fail, up.survives_loss_of) == (25 - count, count, 5 - count)
        assert [row.server_id for row in up.files[0].stripes if row.status == "failed"] == list(range(count))
        (waiting,) = (await bob.peek()).notifications
        assert {server.raida for server in waiting.tell.servers} == set(range(count, 25))
        (got,) = await bob.receive()
        assert (got.stripes_downloaded, got.stripes_recovered) == (25 - count, count)
        check_books(cluster, alice)

    play(story)


def test_a_mail_fails_cleanly_when_one_server_too_many_is_down() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.down |= {0, 1, 2, 3, 4, 5}
        with pytest.raises(QuorumError) as lost:
            await alice.send(alice.draft(["bob"], "s", "b"))
        assert lost.value.message == "Upload failed: only 19 of 25 stripes succeeded for email"
        assert set(lost.value.failures) == {0, 1, 2, 3, 4, 5}
        receipt = alice.receipt(lost.value.guid)
        assert (receipt.upload.status, receipt.tell.status) == ("failed", "not_started")
        assert alice.messages(Folder.SENT).total == 0
        check_books(cluster, alice)
        cluster.down.clear()
        await asyncio.sleep(10)  # the lockers in doubt are looked into
        assert not lockers(alice, state=LockerState.LIMBO)
        assert not lockers(alice, state=LockerState.RESERVED)
        spent = lockers(alice, state=LockerState.CONSUMED)
        assert {locker.node for locker in spent} == set(range(6, 25))
        check_books(cluster, alice)
        assert (await alice.send(alice.draft(["bob"], "s", "b"))).receipt.upload.servers.ok == 25
        assert [mail.message.subject for mail in await bob.receive()] == ["s"]
        check_books(cluster, alice)

    play(story)


def test_servers_that_go_down_during_the_upload_are_done_without() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.delay.update(dict.fromkeys(range(25), 0.02))
        big = Source(name="big", data=os.urandom(32_000_000))
        started = await alice.start_upload(alice.draft(["bob"], "s", "b", attachments=[big]), tell=True)
        await until_stored(cluster, started.guid)
        cluster.down |= {3, 7, 11, 15, 24}
        assert (await alice.wait(started.task_id)).status == "success"
        receipt = alice.receipt(started.guid)
        assert (receipt.upload.servers.ok, receipt.upload.survives_loss_of) == (20, 0)
        (got,) = await bob.receive()
        assert await content(bob, got.message.id, got.attachments[0].id) == big.data
        check_books(cluster, alice)

    play(story)


@pytest.mark.parametrize(("durability", "wanted"), [("fast", 21), ("safe", 23), ("full", 25)])
def test_durability_is_how_many_servers_are_waited_for(durability: str, wanted: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        await alice.fill_pool()
        # every server answers a little later than the one before, far beyond any settling time
        cluster.delay.update({node: 0.02 * node for node in range(25)})
        draft = alice.draft(["bob"], "s", "b", durability=Durability(durability))
        result = await alice.send(draft)
        up = result.receipt.upload
        assert up.durability == durability
        assert up.servers.ok >= wanted
        assert up.survives_loss_of == up.servers.ok - 20
        assert len(stored(cluster, bytes.fromhex(result.receipt.file_guid))) >= up.servers.ok

    play(story)


def test_a_durability_that_cannot_be_had_is_not_claimed() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        cluster.down |= {20, 21}
        result = await alice.send(alice.draft(["bob"], "s", "b", durability=Durability.FULL))
        assert (result.receipt.upload.durability, result.receipt.upload.survives_loss_of) == ("full", 3)

    play(story)


@pytest.mark.parametrize("attachments", [0, 1, 20])
@pytest.mark.parametrize("slow", [(4,), (0, 5, 10, 15, 20), (11,), (3, 7, 9, 11, 13)])
def test_slow_servers_stall_no_send(slow: tuple[int, ...], attachments: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await cluster.engine("alice", balance=1500), await cluster.engine("bob")
        files = [Source(name=f"{i}", data=bytes(i)) for i in range(attachments)]
        cluster.delay.update(dict.fromkeys(slow, 100.0))
        begun = now()
        await alice.send(alice.draft(["bob"], "s", "b", attachments=files))
        assert now() - begun <= (1.2 if len(slow) == 1 else 1.8)
        check_books(cluster, alice, 1500)

    play(story)


@pytest.mark.parametrize("slow", [(4,), (0, 5, 10, 15, 20)])
def test_slow_servers_stall_no_large_attachment(slow: tuple[int, ...]) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.delay.update(dict.fromkeys(slow, 100.0))
        data = os.urandom(25_000_000)
        begun = now()
        result = await alice.send(alice.draft(["bob"], "s", "b", attachments=[Source(name="x", data=data)]))
        assert now() - begun <= 1.5
        assert result.receipt.upload.survives_loss_of == 5 - len(slow)
        (waiting,) = (await bob.peek()).notifications
        begun = now()
        got = await bob.download(waiting.tell.guid)
        assert now() - begun <= 1.0
        assert await content(bob, got.message.id, got.attachments[0].id) == data
        assert now() - begun <= 1.0

    play(story)


@pytest.mark.parametrize("size", [0, 1, 9_000_000])
def test_attachments_of_any_size_come_through(size: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        data = os.urandom(size)
        files = [Source(name="Übersicht 文.bin", data=data), Source(name="two", data=b"two")]
        result = await alice.send(alice.draft(["bob"], "s", "b", attachments=files))
        assert result.storage_cost == 75
        (got,) = await bob.receive()
        assert [(row.name, row.size) for row in got.attachments] == [("Übersicht 文.bin", size), ("two", 3)]
        assert [await content(bob, got.message.id, row.id) for row in got.attachments] == [data, b"two"]
        check_books(cluster, alice)

    play(story)


def test_fifty_recipients_each_pay_their_own_fee() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=1000)
        names = [f"r{i}" for i in range(50)]
        others = [await cluster.engine(name, balance=0) for name in names]
        draft = alice.draft(names[:20], "s", "b", cc=names[20:40], bcc=names[40:])
        result = await alice.send(draft)
        assert (result.inbox_cost, result.receipt.tell.summary.sent) == (500, 50)
        fees = [locker for locker in lockers(alice) if locker.kind == LockerKind.INBOX]
        assert sorted(locker.unit or 0 for locker in fees) == list(range(50))
        assert {locker.state for locker in fees} == {LockerState.CONSUMED}
        for other in others:
            (got,) = await other.receive()
            assert {r.text for r in got.message.recipients} == set(names[:40])
        check_books(cluster, alice, 1000)

    play(story)


def test_blind_copies_are_in_no_object_of_the_mail() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        eve = await cluster.engine("eve", address=Address(1, 0x7ABCDE))
        await alice.send(alice.draft(["bob"], "s", "b", bcc=["eve"]))
        for engine in (bob, eve):
            (waiting,) = (await engine.peek()).notifications
            kept = engine._store.mail.tell(waiting.tell.guid).record
            assert eve.address.serial.to_bytes(4, "big") not in kept
            (got,) = await engine.receive()
            assert [r.text for r in got.message.recipients] == ["bob"]
        (sent,) = alice.messages(Folder.SENT).messages
        assert [(r.text, r.kind.value) for r in sent.recipients] == [("bob", "to"), ("eve", "bcc")]

    play(story)


def test_a_mail_to_oneself_is_sent_and_received() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        await alice.send(alice.draft(["alice"], "note", "to self", attachments=[Source(name="x", data=b"x")]))
        (got,) = await alice.receive()
        assert alice.messages(Folder.INBOX).total == alice.messages(Folder.SENT).total == 1
        assert await content(alice, got.message.id, got.attachments[0].id) == b"x"
        (copy,) = alice.messages(Folder.SENT).messages
        assert copy.id != got.message.id
        check_books(cluster, alice)

    play(story)


@pytest.mark.parametrize(("nodes", "striping"), [(5, "4+1"), (8, "7+1"), (2, "1+1")])
def test_small_networks_carry_mail_with_one_server_down(nodes: int, striping: str) -> None:
    async def story(cluster: Cluster) -> None:
        assert f"{cluster.striping.k}+{cluster.striping.m}" == striping
        alice, bob = await couple(cluster)
        await alice.send(alice.draft(["bob"], "one", "b"))
        cluster.down.add(1)
        (got,) = await bob.receive()
        assert got.message.subject == "one"
        if nodes > 2:
            await alice.send(alice.draft(["bob"], "two", "b", attachments=[Source(name="x", data=bytes(700_000))]))
            (got,) = await bob.receive()
            assert await content(bob, got.message.id, got.attachments[0].id) == bytes(700_000)
        check_books(cluster, alice)

    play(story, nodes=nodes)


@pytest.mark.parametrize("down", [0, 24])
def test_the_interop_profile_carries_mail_with_one_server_down(down: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster, encryption=1)
        data = os.urandom(3_000_000)
        cluster.down.add(down)
        result = await alice.send(alice.draft(["bob"], "s", "b", attachments=[Source(name="x", data=data)]))
        assert (result.receipt.upload.servers.ok, result.receipt.upload.survives_loss_of) == (24, 0)
        (got,) = await bob.receive()
        assert got.message.body == "b"
        assert await content(bob, got.message.id, got.attachments[0].id) == data
        cluster.down.clear()
        await asyncio.sleep(30)
        assert alice.receipt(got.message.guid).upload.survives_loss_of == 1
        check_books(cluster, alice)

    play(story, striping=Striping(Profile.INTEROP, 24, 1))


# ------------------------------------------------------------------------------------------------------------------
# What cannot be sent


def test_a_wallet_that_cannot_pay_says_both_sides_of_the_sum() -> None:
    async def story(cluster: Cluster) -> None:
        poor, _ = await cluster.engine("poor", balance=34), await cluster.engine("bob")
        with pytest.raises(PaymentError) as refused:
            await poor.send(poor.draft(["bob"], "s", "b"))
        assert (refused.value.needed, refused.value.available) == (35, 34)
        started = await poor.start_upload(poor.draft(["bob"], "s", "b"), tell=True)
        state = await poor.wait(started.task_id)
        assert state.status == "failed"
        assert "Failed to acquire funded locker codes from pool" in state.message
        assert "need 35 CC, wallet has 34 CC" in state.message
        assert poor.balance() == 34
        check_books(cluster, poor, 34)

    play(story)


def test_a_guid_is_used_once() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        draft = Draft(body="b", guid=bytes(range(16)))
        await alice.start_upload(draft, tell=False)
        with pytest.raises(Conflict, match="A receipt already exists for that file_guid"):
            await alice.start_upload(draft, tell=False)
        other = Draft(body="c", guid=bytes(16))
        both = [alice.start_upload(other, tell=False) for _ in range(3)]
        found = await asyncio.gather(*both, return_exceptions=True)
        assert sum(isinstance(outcome, Conflict) for outcome in found) == 2
        with pytest.raises(Conflict):
            await alice.send(Draft(body="c", guid=bytes(16), recipients=alice.draft(["bob"], "", "").recipients))

    play(story)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Missing body source"),
        ({"body": "b", "document": b"d"}, "Missing body source"),
        ({"document": b"nonsense"}, "not a QMail document"),
        ({"body": "b", "attachments": (Source(name="x", data=b""),) * 245}, "Too many attachments"),
    ],
    ids=["neither", "both", "nonsense", "many"],
)
def test_drafts_that_cannot_be_sent_are_refused_at_once(fields: dict[str, Any], words: str) -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        with pytest.raises(UsageError, match=words):
            await alice.start_upload(Draft(**fields), tell=False)
        with pytest.raises(UsageError):
            await alice.start_upload(Draft(body="b"), tell=True)
        assert alice._store.sends.open_sends() == []

    play(story, nodes=5)


# ------------------------------------------------------------------------------------------------------------------
# Files that move


def exists(source: Source) -> bool:
    return Path(source.path).exists()


async def file_draft(alice: Engine, data: bytes) -> tuple[Draft, Path]:
    path = Path(alice.config.data, "Wallets", "Mail", "Outgoing", "file.bin")
    await asyncio.to_thread(path.write_bytes, data)
    return alice.draft(["bob"], "s", "b", attachments=[Source(name="file.bin", path=str(path))]), path


def test_a_file_by_path_comes_through() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        draft, _ = await file_draft(alice, b"content")
        await alice.send(draft)
        (got,) = await bob.receive()
        assert await content(bob, got.message.id, got.attachments[0].id) == b"content"

    play(story, nodes=5)


@pytest.mark.parametrize("change", ["vanishes", "grows", "shrinks", "rewritten", "becomes a link"])
def test_a_file_that_changes_after_it_was_accepted_fails_the_send_cleanly(change: str) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        draft, path = await file_draft(alice, bytes(1000))
        started = await alice.start_upload(draft, tell=True)
        _change(path, change)
        state = await alice.wait(started.task_id)
        assert state.status == "failed"
        assert "attachment 1" in state.message
        receipt = alice.receipt(started.guid)
        assert (receipt.upload.status, receipt.tell.status) == ("failed", "not_started")
        assert alice.balance() + sum(x.value for x in lockers(alice, state=LockerState.AVAILABLE)) == BALANCE
        assert not (await bob.peek()).notifications
        check_books(cluster, alice)

    play(story, nodes=5)


def _change(path: Path, change: str) -> None:
    if change in ("vanishes", "becomes a link"):
        path.unlink()
    if change == "becomes a link":
        other = path.with_name("other")
        other.write_bytes(bytes(1000))
        path.symlink_to(other)
    if change in ("grows", "shrinks"):
        path.write_bytes(bytes(1001 if change == "grows" else 999))
    if change == "rewritten":
        path.write_bytes(bytes([1]) * 1000)
        os.utime(path, ns=(1, 1))


def test_a_file_that_changes_while_it_is_uploaded_fails_the_send_cleanly() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.delay.update(dict.fromkeys(range(5), 0.01))
        draft, path = await file_draft(alice, bytes(12_000_000))
        started = await alice.start_upload(draft, tell=True)
        await until_stored(cluster, started.guid)
        await asyncio.to_thread(path.write_bytes, bytes([7]) * 12_000_000)
        state = await alice.wait(started.task_id)
        assert state.status == "failed"
        assert "changed while it was being sent" in state.message
        cluster.delay.clear()
        await asyncio.sleep(10)
        assert not (await bob.peek()).notifications
        assert not lockers(alice, state=LockerState.LIMBO)
        check_books(cluster, alice)

    play(story, nodes=5)


def test_a_path_that_is_not_allowed_is_refused_before_anything_is_kept() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        for path in ("/etc/passwd", "missing.bin", "../x"):
            with pytest.raises(PathRefused):
                await alice.start_upload(
                    alice.draft(["bob"], "s", "b", attachments=[Source(name="x", path=path)]), tell=True
                )
        assert alice._store.sends.open_sends() == []

    play(story, nodes=5)


def test_spooled_files_are_gone_after_the_send() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        guid = bytes(range(16))
        file, source = alice.spool(guid, "s.bin")
        with file:
            file.write(b"spooled")
        draft = alice.draft(["bob"], "s", "b", attachments=[source])
        await alice.send(Draft(body="b", guid=guid, recipients=draft.recipients, attachments=(source,)))
        assert not exists(source)
        (got,) = await bob.receive()
        assert await content(bob, got.message.id, got.attachments[0].id) == b"spooled"
        file, source = alice.spool(bytes(16), "t.bin")
        file.close()
        alice.drop_spool(bytes(16))
        assert not exists(source)

    play(story, nodes=5)


def test_a_refusing_node_keeps_its_locker_for_later() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        cluster.raida.nodes[2]._context.policy = type(cluster.raida.nodes[2].policy)(storage_fee=2)
        result = await alice.send(alice.draft(["bob"], "s", "b"))
        assert result.receipt.upload.servers.ok == 4
        (row,) = [row for row in result.receipt.upload.files[0].stripes if row.status == "failed"]
        assert row.server_id == 2
        assert f"status {c.STATUS_PAYMENT_INSUFFICIENT}" in row.error
        (left,) = lockers(alice, state=LockerState.RESERVED)
        assert left.node == 2
        check_books(cluster, alice)

    play(story, nodes=5)
