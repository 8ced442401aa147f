"""One story tells a mail at a time, and what it came to is never lost: whoever else changes the receipt meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qmail_core import Cluster, Conflict, Engine
from qmail_core.codec.mail import build_selector
from qmail_core.engine.jobs import Job
from qmail_core.model import ListKind
from qmail_core.store.base import Claim, LockerKind, LockerState
from tests.conftest import skip
from tests.engine import check_books, couple, lockers, play
from tests.engine.disks import Disk
from tests.engine.test_outgoing import row, started


def count_tells(alice: Engine) -> list[bytes]:
    """The guids of mails told from now on, once for each recipient and time."""
    told: list[bytes] = []
    real = alice._outgoing._tell_row

    async def tell_row(job: Job, *rest: Any) -> None:
        told.append(job.guid)
        await real(job, *rest)

    alice._outgoing._tell_row = tell_row  # type: ignore[method-assign, assignment]
    return told


@pytest.mark.parametrize("lag", [0.0, 0.16, 0.17, 0.18, 0.3])
def test_a_repair_that_ends_with_a_tell_takes_nothing_of_it_back(lag: float) -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        cluster.down.add(3)  # so that there is something to repair
        guid, _ = await started(alice, tell=False)
        cluster.down.discard(3)
        cluster.down |= {11, 14}
        cluster.delay.update({11: 0.2, 14: 0.2})
        await asyncio.sleep(1)
        disk = Disk(alice, 0.03)

        async def told() -> None:
            await asyncio.sleep(lag)
            await alice.wait((await alice.start_tell(guid)).task_id)

        async def traffic() -> None:
            while True:  # other mail keeps the writer busy
                await disk._write(lambda db: None)

        busy = asyncio.create_task(traffic())
        await asyncio.gather(alice.repair(guid), told())
        busy.cancel()
        receipt = alice.receipt(guid)
        assert (receipt.tell.status, row(alice, guid).status) == ("partial", "retry_queued")
        assert receipt.upload.servers.ok == 23  # node 3 was repaired, the beacons could not be asked

    play(story)


def test_a_retry_and_a_tell_by_hand_that_begin_together_tell_once() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.down |= {11, 14}
        guid, _ = await started(alice)
        cluster.down.clear()
        cluster.delay.update({11: 0.2, 14: 0.2})
        assert alice._background is not None
        alice._background.cancel()
        skip(100)
        Disk(alice, 0.03)
        told = count_tells(alice)

        async def by_hand() -> None:
            await alice.wait((await alice.start_tell(guid)).task_id)

        ends = await asyncio.gather(by_hand(), alice._outgoing.retry_due(), by_hand(), return_exceptions=True)
        assert [type(end) for end in ends] == [type(None), int, Conflict]
        assert told == [guid]
        assert row(alice, guid).status == "sent"
        assert len(await bob.receive()) == 1
        check_books(cluster, alice)

    play(story)


def test_a_mail_told_by_hand_the_moment_it_is_stored_is_told_once() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        Disk(alice, 0.03)
        told = count_tells(alice)
        begun = await alice.start_upload(alice.draft(["bob"], "s", "b"), tell=True)
        by_hand = None
        while by_hand is None:
            await asyncio.sleep(0.001)
            if alice.receipt(begun.guid).upload.status == "success":
                try:
                    by_hand = await alice.start_tell(begun.guid)
                except Conflict:
                    break
        await alice.wait(begun.task_id)
        if by_hand is not None:
            await alice.wait(by_hand.task_id)
        assert told == [begun.guid]
        assert row(alice, begun.guid).status == "sent"
        assert len(await bob.receive()) == 1

    play(story)


def test_who_was_given_up_is_not_told_again_by_a_restart() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        await cluster.engine("carol")
        begun = await alice.start_upload(alice.draft(["bob", "carol"], "s", "b"), tell=False)
        await alice.wait(begun.task_id)
        cluster.down |= {11, 14}
        await alice.wait((await alice.start_tell(begun.guid)).task_id)

        def given_up(kept) -> None:  # type: ignore[no-untyped-def]
            kept.receipt.tell.recipients[0].status = "failed"

        await alice._receipts.change(begun.guid, given_up)
        await alice._store.sends.finish_tell(begun.guid, 0, "failed", "no", 0)
        assert alice._background is not None
        alice._background.cancel()
        cluster.delay.update({11: 5.0, 14: 5.0})
        cluster.down.clear()
        skip(100)
        retry = asyncio.create_task(alice._outgoing.retry_due())
        await asyncio.sleep(1)
        assert [each.status for each in alice.receipt(begun.guid).tell.recipients] == ["failed", "sending"]
        retry.cancel()  # the process dies here
        await asyncio.gather(retry, return_exceptions=True)
        cluster.delay.clear()
        alice._sender.resume()
        await alice.wait(begun.task_id)
        tell = alice.receipt(begun.guid).tell
        assert (tell.status, [each.status for each in tell.recipients]) == ("partial", ["failed", "sent"])

    play(story)


# ------------------------------------------------------------------------------------------------------------------
# The fee of a tell that was given up


async def given_up(alice: Engine) -> bytes:
    """A mail whose beacons were away for as long as it was tried."""
    guid, _ = await started(alice)
    while alice._store.sends.due_tells(1 << 40):
        skip(3601)
        await alice._outgoing.retry_due()
    assert row(alice, guid).status == "failed"
    return guid


def fees(alice: Engine, guid: bytes) -> list[LockerState]:
    return [x.state for x in lockers(alice, guid=guid) if x.kind == LockerKind.INBOX]


@pytest.mark.parametrize("settled", [True, False])
def test_a_tell_that_was_given_up_is_paid_again_when_it_is_tried_again(settled: bool) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        assert alice._background is not None
        alice._background.cancel()
        cluster.down |= {11, 14}
        guid = await given_up(alice)
        assert fees(alice, guid) == [LockerState.LIMBO]
        cluster.down.clear()
        if settled:
            skip(60)
            await alice._wallet.recover()
            assert fees(alice, guid) == []  # the fee is free again
        (dead,) = alice._store.sends.outgoing_tells("failed", 9)
        await alice._outgoing.retry(dead.id)
        await alice._outgoing.retry_due()
        assert (row(alice, guid).status, fees(alice, guid)) == ("sent", [LockerState.CONSUMED])
        assert len(await bob.receive()) == 1
        check_books(cluster, alice)

    play(story)


def test_a_refused_tell_is_paid_when_it_is_asked_for_again() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)

        def put_on(kind: ListKind | None) -> None:
            for node in cluster.raida.nodes:
                node.state.set_listed(build_selector(bob.address), [(build_selector(alice.address), kind)])
                node.state.commit()

        put_on(ListKind.BLACK)
        guid, _ = await started(alice)
        assert row(alice, guid).status == "failed"
        put_on(None)
        await alice.wait((await alice.start_tell(guid)).task_id)
        assert (row(alice, guid).status, fees(alice, guid)) == ("sent", [LockerState.CONSUMED])
        check_books(cluster, alice)

    play(story)


def test_a_tell_nobody_can_pay_any_more_waits_for_money() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        assert alice._background is not None
        alice._background.cancel()
        cluster.down |= {11, 14}
        guid = await given_up(alice)
        cluster.down.clear()
        skip(60)
        await alice._wallet.recover()
        (free,) = [x for x in lockers(alice, state=LockerState.AVAILABLE) if x.kind == LockerKind.INBOX]
        coins = alice._store.wallet.coins("Default")
        elsewhere = alice._store.wallet.reserve(bytes(16), "Default", [(LockerKind.INBOX, Claim(0), free.value)])
        await elsewhere
        await alice._store.wallet.add_coins("Savings", coins)
        await alice.wait((await alice.start_tell(guid)).task_id)
        assert row(alice, guid).status == "failed"
        assert "Insufficient balance" in row(alice, guid).last_error
        await alice._store.wallet.add_coins("Default", coins)
        await alice.wait((await alice.start_tell(guid)).task_id)
        assert row(alice, guid).status == "sent"
        assert len(await bob.receive()) == 1

    play(story)


# ------------------------------------------------------------------------------------------------------------------
# A store that cannot be written for a while


@pytest.mark.parametrize("writes", range(12))
def test_a_send_whose_outcome_cannot_be_recorded_goes_on_when_it_can(writes: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        assert alice._background is not None
        alice._background.cancel()
        await alice.fill_pool()
        cluster.down.add(3)  # so that a repair is due, too
        disk = Disk(alice)
        begun = await alice.start_upload(alice.draft(["bob"], "s", "b"), tell=True)
        disk.after = writes
        await asyncio.sleep(1000)
        if disk.full:
            assert alice.task(begun.task_id).status == "running"
            disk.full, disk.after = False, None
        state = await alice.wait(begun.task_id)
        assert (state.status, state.message) == ("success", "Upload + Tell complete: all beacons accepted")
        receipt = alice.receipt(begun.guid)
        assert (receipt.upload.status, receipt.tell.status) == ("success", "success")
        assert alice._store.sends.open_sends() == []
        assert len(alice._store.sends.due_repairs(1 << 40)) == 1
        assert len(await bob.receive()) == 1
        check_books(cluster, alice)

    play(story)


@pytest.mark.parametrize("writes", range(7))
def test_a_send_that_fails_while_the_store_is_full_has_failed_for_good(writes: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        assert alice._background is not None
        alice._background.cancel()
        await alice.fill_pool()
        cluster.down |= set(range(8))
        disk = Disk(alice)
        begun = await alice.start_upload(alice.draft(["bob"], "s", "b"), tell=True)
        disk.after = writes
        await asyncio.sleep(1000)
        failed = alice.receipt(begun.guid).upload.status == "failed"
        if failed:
            cluster.down.clear()  # it would go through now, but somebody may have read that it did not
        if disk.full:
            assert alice.task(begun.task_id).status == "running"
            disk.full, disk.after = False, None
        state = await alice.wait(begun.task_id)
        assert state.status == "failed"
        assert "Upload failed: only 17 of 25 stripes succeeded for email" in state.message
        alice._sender.resume()
        await asyncio.sleep(100)
        receipt = alice.receipt(begun.guid)
        assert (receipt.upload.status, receipt.tell.status) == ("failed", "not_started")
        assert not lockers(alice, state=LockerState.RESERVED)
        assert await bob.receive() == []
        cluster.down.clear()
        await alice._wallet.recover()
        check_books(cluster, alice)

    play(story)


@pytest.mark.parametrize("writes", range(6))
def test_a_retry_whose_outcome_cannot_be_recorded_goes_on_when_it_can(writes: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        assert alice._background is not None
        alice._background.cancel()
        cluster.down |= {11, 14}
        guid, _ = await started(alice)
        cluster.down.clear()
        skip(100)
        disk = Disk(alice)
        disk.after = writes
        retry = asyncio.create_task(alice._outgoing.retry_due())
        await asyncio.sleep(1000)
        disk.full, disk.after = False, None
        await asyncio.gather(retry, return_exceptions=True)
        await alice._outgoing.retry_due()
        assert (row(alice, guid).status, alice.receipt(guid).tell.status) == ("sent", "success")
        assert len(await bob.receive()) == 1
        check_books(cluster, alice)

    play(story)


def test_a_send_that_meets_a_bug_has_failed_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)

        async def bug(*_: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(alice._wallet, "consume", bug)
            guid, state = await started(alice)
        assert (state.status, state.message) == ("failed", "Upload failed: error — Internal error")
        alice._sender.resume()
        await asyncio.sleep(100)
        assert alice.receipt(guid).upload.status == "failed"
        assert not lockers(alice, state=LockerState.RESERVED)
        assert await bob.receive() == []
        check_books(cluster, alice)

    play(story)


def test_a_tell_that_meets_a_bug_can_be_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)

        def bug(*_: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(alice._outgoing, "_groups", bug)
            guid, state = await started(alice)
        assert (state.status, state.message) == ("failed", "Internal error")
        assert (row(alice, guid).status, row(alice, guid).last_error) == ("failed", "Internal error")
        assert (await alice.wait((await alice.start_tell(guid)).task_id)).status == "success"
        assert len(await bob.receive()) == 1

    play(story)
