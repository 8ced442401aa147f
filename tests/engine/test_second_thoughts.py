"""Sends that wait before they are told, are taken back, or are asked for twice."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.errors import Conflict, NotFound, UsageError
from qmail_core.model import Draft, RequestKey, Source
from qmail_core.store.base import LockerState
from tests.conftest import skip
from tests.engine import check_books, couple, lockers, now, play

NODES = 5


def held(alice: Engine, seconds: int = 60, **fields: object) -> Draft:
    return msgspec.structs.replace(alice.draft(["bob"], "Held", "text"), hold_seconds=seconds, **fields)


def test_a_held_mail_is_told_when_its_time_comes() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        started = await alice.start_upload(held(alice), tell=True)
        await asyncio.sleep(50)
        receipt = alice.receipt(started.guid)
        assert (receipt.upload.status, receipt.tell.status) == ("success", "not_started")
        assert alice.task(started.task_id).message.startswith("Upload complete; the Tell is held for ")
        assert (await bob.peek()).notifications == ()
        state = await alice.wait(started.task_id)
        assert (state.status, state.message) == ("success", "Upload + Tell complete: all beacons accepted")
        assert 60 <= now() < 63
        assert len((await bob.peek()).notifications) == 1

    play(story, NODES)


def test_a_held_mail_can_be_taken_back_and_told_later() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        started = await alice.start_upload(held(alice), tell=True)
        await asyncio.sleep(5)
        await alice.cancel_hold(started.guid)
        state = await alice.wait(started.task_id)
        assert (state.status, state.message) == ("success", "Upload completed; Tell pending")
        await alice.cancel_hold(started.guid)
        await asyncio.sleep(100)
        assert (await bob.peek()).notifications == ()
        await alice.wait((await alice.start_tell(started.guid)).task_id)
        assert len((await bob.peek()).notifications) == 1
        with pytest.raises(Conflict, match="Tell has begun and can no longer be cancelled"):
            await alice.cancel_hold(started.guid)

    play(story, NODES)


def test_a_hold_cancelled_during_the_upload_holds_for_good() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.delay.update(dict.fromkeys(range(NODES), 0.2))
        started = await alice.start_upload(held(alice), tell=True)
        await alice.cancel_hold(started.guid)
        assert alice.receipt(started.guid).upload.status == "in_progress"
        assert (await alice.wait(started.task_id)).message == "Upload completed; Tell pending"
        assert (await bob.peek()).notifications == ()

    play(story, NODES)


def test_a_held_mail_can_be_told_at_once() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        started = await alice.start_upload(held(alice, 3600), tell=True)
        await asyncio.sleep(5)
        told = await alice.start_tell(started.guid)
        assert (await alice.wait(told.task_id)).status == "success"
        assert (await alice.wait(started.task_id)).message == "Upload completed; another task tells it"
        assert len((await bob.peek()).notifications) == 1
        assert now() < 60

    play(story, NODES)


def test_a_restart_goes_on_holding() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        started = await alice.start_upload(held(alice), tell=True)
        taken_back = await alice.start_upload(held(alice), tell=True)
        await asyncio.sleep(5)
        await alice.cancel_hold(taken_back.guid)
        await alice._tasks.close()
        alice._sender.resume()
        await asyncio.sleep(50)
        assert (await bob.peek()).notifications == ()
        assert (await alice.wait(started.task_id)).status == "success"
        assert 60 <= now() < 63
        assert [item.tell.guid for item in (await bob.peek()).notifications] == [started.guid]

    play(story, NODES)


def test_only_a_held_mail_can_be_let_go() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        with pytest.raises(NotFound, match="Receipt not found for that file_guid"):
            await alice.cancel_hold(bytes(16))
        started = await alice.start_upload(held(alice, 0), tell=True)
        with pytest.raises(Conflict, match="This mail was not held"):
            await alice.cancel_hold(started.guid)

    play(story, NODES)


def test_a_task_is_cancelled_while_it_uploads_and_the_money_comes_back() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.delay.update(dict.fromkeys(range(NODES), 0.2))
        draft = alice.draft(["bob"], "s", "b", attachments=[Source("a.bin", data=bytes(3 << 20))])
        started = await alice.start_upload(draft, tell=True)
        await asyncio.sleep(0.1)
        state = await alice.cancel(started.task_id)
        assert (state.status, state.message) == ("cancelled", "Cancelled before the upload was complete")
        receipt = alice.receipt(started.guid)
        assert (receipt.upload.status, receipt.tell.status) == ("failed", "not_started")
        await asyncio.sleep(30)
        assert {locker.state for locker in lockers(alice)} == {LockerState.AVAILABLE}
        check_books(cluster, alice)
        assert (await bob.peek()).notifications == ()
        with pytest.raises(UsageError, match="Task already finished"):
            await alice.cancel(started.task_id)

    play(story, NODES)


def test_a_task_is_cancelled_while_it_is_held() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        started = await alice.start_upload(held(alice), tell=True)
        await asyncio.sleep(5)
        state = await alice.cancel(started.task_id)
        assert (state.status, state.message) == ("cancelled", "Cancelled; the mail is stored and nobody was told")
        assert alice.receipt(started.guid).upload.status == "success"
        assert [task.id for task in alice.tasks()] == [started.task_id]

    play(story, NODES)


def test_a_tell_cannot_be_undone() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        stored = await alice.start_upload(alice.draft(["bob"], "s", "b"), tell=False)
        await alice.wait(stored.task_id)
        cluster.delay.update(dict.fromkeys(range(NODES), 0.5))
        started = await alice.start_tell(stored.guid)
        with pytest.raises(Conflict, match="Task can no longer be undone"):
            await alice.cancel(started.task_id)
        with pytest.raises(NotFound, match="Task not found"):
            await alice.cancel("task_0")
        cluster.delay.clear()
        both = await alice.start_upload(held(alice, 30), tell=True)
        await asyncio.sleep(25)
        cluster.delay.update(dict.fromkeys(range(NODES), 5.0))
        await asyncio.sleep(7)
        assert alice.receipt(both.guid).tell.status == "in_progress"
        with pytest.raises(Conflict, match="Task can no longer be undone"):
            await alice.cancel(both.task_id)
        assert (await alice.wait(both.task_id)).status == "success"

    play(story, NODES)


def test_a_repeated_request_starts_nothing() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        key = RequestKey("order-1", b"d" * 32)
        assert alice.repeated(key) is None
        started = await alice.start_upload(held(alice, 0, key=key), tell=True)
        again = alice.repeated(key)
        assert again is not None
        assert (again.task_id, again.guid) == (started.task_id, started.guid)
        with pytest.raises(Conflict, match="Idempotency key was used with other parameters"):
            alice.repeated(RequestKey("order-1", b"e" * 32))
        with pytest.raises(Conflict, match="This idempotency key is in use"):
            await alice.start_upload(held(alice, 0, key=key), tell=True)
        assert len(alice.receipts()[0]) == 1
        skip(86_401)
        await asyncio.sleep(1)
        assert alice.repeated(key) is None
        await alice.start_upload(held(alice, 0, key=key), tell=True)
        assert alice.receipts("success", limit=1)[1] == 1
        assert alice.receipts()[1] == 2

    play(story, NODES)
