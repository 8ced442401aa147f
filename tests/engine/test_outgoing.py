"""Tells: at once, over the other beacon, or later; refused for good only by name; and claimed by one story only."""

from __future__ import annotations

import asyncio

import pytest

from qmail_core import Address, Cluster, Conflict, Draft, Engine, Kind, NotFound, Recipient, TellError, UsageError
from qmail_core.codec import consts as c
from qmail_core.codec.mail import build_selector
from qmail_core.model import ListKind, ReceiptRecipient, Started, TaskState
from qmail_core.raida.node import Policy
from qmail_core.store.base import LockerKind, LockerState
from tests.conftest import skip
from tests.engine import check_books, couple, lockers, now, play


async def started(alice: Engine, *, tell: bool = True, to: str = "bob") -> tuple[bytes, TaskState]:
    begun = await alice.start_upload(alice.draft([to], "s", "b"), tell=tell)
    return begun.guid, await alice.wait(begun.task_id)


def row(alice: Engine, guid: bytes, position: int = 0) -> ReceiptRecipient:
    return alice.receipt(guid).tell.recipients[position]


def fee(alice: Engine, guid: bytes) -> LockerState:
    (locker,) = [x for x in lockers(alice, guid=guid) if x.kind == LockerKind.INBOX]
    return locker.state


@pytest.mark.parametrize("down", [11, 14])
def test_one_beacon_is_enough(down: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.down.add(down)
        guid, state = await started(alice)
        assert (state.status, state.message) == ("success", "Upload + Tell complete: all beacons accepted")
        assert (row(alice, guid).status, row(alice, guid).beacon_raida) == ("sent", 25 - down)
        assert [mail.message.guid for mail in await bob.receive()] == [guid]
        check_books(cluster, alice)

    play(story)


def test_both_beacons_get_the_tell_so_that_either_may_die_later() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        guid, _ = await started(alice)
        cluster.down.add(row(alice, guid).beacon_raida)
        assert [mail.message.guid for mail in await bob.receive()] == [guid]

    play(story)


def test_with_both_beacons_down_the_tell_waits_and_goes_out_later() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.fill_pool()
        cluster.down |= {11, 14}
        guid, state = await started(alice)
        assert (state.status, state.message) == (
            "success",
            "Upload + Tell complete: some beacons failed (queued for retry)",
        )
        receipt = alice.receipt(guid)
        assert (receipt.tell.status, receipt.tell.summary.retry_queued) == ("partial", 1)
        (due,) = alice._store.sends.due_tells(1 << 40)
        assert 60 <= due.next_attempt - due.last_attempt <= 66
        cluster.down.clear()
        await asyncio.sleep(50)
        assert row(alice, guid).status == "retry_queued"
        await asyncio.sleep(20)
        assert (row(alice, guid).status, row(alice, guid).attempts) == ("sent", 2)
        assert alice.receipt(guid).tell.status == "success"
        assert fee(alice, guid) == LockerState.CONSUMED
        assert [mail.message.guid for mail in await bob.receive()] == [guid]
        assert alice._store.sends.due_tells(1 << 40) == []
        check_books(cluster, alice)

    play(story)


def test_the_pauses_grow_and_end() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        cluster.down |= {11, 14}
        guid, _ = await started(alice)
        pauses = []
        while rows := alice._store.sends.due_tells(1 << 40):
            assert row(alice, guid).status == "retry_queued"
            pauses.append(rows[0].next_attempt - rows[0].last_attempt)
            skip(pauses[-1] + 1)
            await alice._outgoing.retry_due()
        steps = [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]
        assert len(pauses) == len(steps)
        assert all(step <= pause <= 1.1 * step for pause, step in zip(pauses, steps, strict=True))
        assert (row(alice, guid).status, row(alice, guid).attempts) == ("failed", 11)
        assert alice.receipt(guid).tell.status == "failed"
        # nobody knows whether a beacon took the fee, until it has been asked
        assert fee(alice, guid) == LockerState.LIMBO
        cluster.down.clear()
        await asyncio.sleep(10)
        assert not lockers(alice, state=LockerState.LIMBO)
        assert len([x for x in lockers(alice, state=LockerState.AVAILABLE) if x.kind == LockerKind.INBOX]) == 1
        check_books(cluster, alice)

    play(story)


def test_a_recipient_that_does_not_exist_is_final() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        await alice.add_contact("ghost", Address(1, 999_999))
        guid, state = await started(alice, to="ghost")
        assert state.status == "failed"
        assert state.message.startswith("Tell failed: node 11")
        assert (row(alice, guid).status, row(alice, guid).attempts) == ("failed", 1)
        assert alice._store.sends.due_tells(1 << 40) == []
        await asyncio.sleep(10)  # the other beacon is asked as well
        assert not [x for x in lockers(alice, guid=guid) if x.kind == LockerKind.INBOX]  # the fee is free again
        with pytest.raises(TellError):
            await alice.send(alice.draft(["ghost"], "s", "b"))
        check_books(cluster, alice)

    play(story)


def test_a_blacklisted_sender_is_refused_for_good() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        for node in cluster.raida.nodes:
            node.state.set_listed(build_selector(bob.address), [(build_selector(alice.address), ListKind.BLACK)])
            node.state.commit()
        guid, state = await started(alice)
        assert state.status == "failed"
        assert f"status {c.STATUS_BLACKLISTED}" in row(alice, guid).last_error
        assert row(alice, guid).status == "failed"
        check_books(cluster, alice)

    play(story)


def test_a_fee_nobody_took_goes_back_to_the_pool() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.fill_pool()
        ready = alice.pool_status().inbox_fee_available
        for node in cluster.raida.nodes:
            node.state.set_listed(build_selector(bob.address), [(build_selector(alice.address), ListKind.WHITE)])
            node.state.commit()
        guid, _ = await started(alice)
        assert row(alice, guid).status == "sent"
        await asyncio.sleep(15)
        assert not [x for x in lockers(alice, guid=guid) if x.kind == LockerKind.INBOX]
        assert not lockers(alice, state=LockerState.LIMBO)
        assert alice.pool_status().inbox_fee_available == ready + 1  # meanwhile its place was filled
        check_books(cluster, alice)

    play(story)


def test_a_fee_one_beacon_took_is_spent_though_the_other_was_free() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        state = cluster.raida.nodes[11].state
        state.set_listed(build_selector(bob.address), [(build_selector(alice.address), ListKind.WHITE)])
        state.commit()
        guid, _ = await started(alice)
        await asyncio.sleep(15)
        assert fee(alice, guid) == LockerState.CONSUMED
        check_books(cluster, alice)

    play(story)


def test_a_refusal_that_may_pass_is_tried_again() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        for node in cluster.raida.nodes:
            node._context.policy = Policy(max_pending_tells=0)
        guid, _ = await started(alice)
        assert row(alice, guid).status == "retry_queued"
        for node in cluster.raida.nodes:
            node._context.policy = Policy()
        skip(70)
        await asyncio.sleep(5)
        assert row(alice, guid).status == "sent"
        assert len(await bob.receive()) == 1
        check_books(cluster, alice)

    play(story)


def test_one_of_three_recipients_may_fail() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        carol = await cluster.engine("carol")
        await alice.add_contact("ghost", Address(1, 999_999))
        result = await alice.send(alice.draft(["bob", "ghost", "carol"], "s", "b"))
        tell = result.receipt.tell
        assert (tell.status, tell.summary.sent, tell.summary.failed) == ("partial", 2, 1)
        assert [len(await engine.receive()) for engine in (bob, carol)] == [1, 1]
        check_books(cluster, alice)

    play(story)


def test_a_hanging_beacon_stalls_no_tell_even_if_it_does_not_know_the_fee_yet() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        cluster.delay[11] = 1000.0
        begun = now()
        await started(alice)
        assert now() - begun <= 1.1

    play(story)


def test_a_new_recipient_is_told_again_on_a_small_network() -> None:
    """The first mail makes a contact of whoever it was sent to; its beacons must be ones this network has."""

    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        stranger = await cluster.engine("stranger", address=Address(1, 4711))
        await alice._store._database.write(lambda db: db.execute("DELETE FROM contact"))  # type: ignore[attr-defined]
        for _ in range(3):
            who = Recipient(Kind.TO, stranger.address_text, stranger.address)
            await alice.send(Draft(body="b", recipients=(who,)))
        assert len(await stranger.receive()) == 3

    play(story, nodes=5)


# ------------------------------------------------------------------------------------------------------------------
# Claiming


def test_a_stored_mail_is_told_on_demand_and_once() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        guid, state = await started(alice, tell=False)
        assert state.message == "Upload completed; Tell pending"
        assert alice.receipt(guid).tell.status == "not_started"
        cluster.delay.update(dict.fromkeys(range(25), 0.1))
        begun: Started = await alice.start_tell(guid)
        assert (begun.recipients, begun.receipt_recipients) == (1, 1)
        with pytest.raises(Conflict, match=r"^Tell already in progress; poll /api/qmail/receipts for status$"):
            await alice.start_tell(guid)
        assert (await alice.wait(begun.task_id)).message == "Tell complete: all beacons accepted"
        with pytest.raises(Conflict, match=r"^Tell already complete for this email$"):
            await alice.start_tell(guid)
        assert [mail.message.guid for mail in await bob.receive()] == [guid]

    play(story)


def test_what_cannot_be_told_says_why() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        with pytest.raises(NotFound):
            await alice.start_tell(bytes(16))
        begun = await alice.start_upload(Draft(body="b"), tell=False)
        with pytest.raises(Conflict, match=r"^Upload is not complete; current upload status is in_progress$"):
            await alice.start_tell(begun.guid)
        assert (await alice.wait(begun.task_id)).message == "Upload completed (no Tell)"
        with pytest.raises(UsageError, match=r"^Receipt has no recipients; call /upload with to/cc/bcc first$"):
            await alice.start_tell(begun.guid)
        cluster.down |= set(range(6))
        guid, _ = await started(alice)
        with pytest.raises(Conflict, match=r"^Upload is not complete; current upload status is failed$"):
            await alice.start_tell(guid)

    play(story)


def test_a_partial_tell_can_be_taken_up_by_hand() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.down |= {11, 14}
        guid, _ = await started(alice)
        cluster.down.clear()
        begun = await alice.start_tell(guid)
        assert (await alice.wait(begun.task_id)).status == "success"
        assert alice.receipt(guid).tell.status == "success"
        skip(1000)
        await asyncio.sleep(5)
        assert row(alice, guid).attempts == 2  # the queue has nothing left to do
        assert len(await bob.receive()) == 1
        check_books(cluster, alice)

    play(story)


def test_a_retry_and_a_tell_by_hand_never_tell_at_the_same_time() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.down |= {11, 14}
        guid, _ = await started(alice)
        cluster.down.clear()
        cluster.delay.update(dict.fromkeys(range(25), 0.2))
        skip(100)
        retry = asyncio.create_task(alice._outgoing.retry_due())
        await asyncio.sleep(0.1)
        with pytest.raises(Conflict):
            await alice.start_tell(guid)
        await retry
        await asyncio.sleep(10)
        assert (row(alice, guid).status, row(alice, guid).attempts) == ("sent", 2)
        assert len(await bob.receive()) == 1

    play(story)
