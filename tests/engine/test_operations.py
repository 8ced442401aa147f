"""Object Transfer with single nodes: accepted, paused, resumed, cancelled, and taken up after a stop."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

from qmail_core import Cluster, Engine
from qmail_core.errors import Conflict, NodeError, NotFound, PathRefused, QMailError, UsageError
from qmail_core.model import Operation
from qmail_core.raida.node import Policy
from qmail_core.store.base import LockerState

from . import check_books, lockers, play, read

FREE = {"policy": Policy(storage_fee=0)}
DATA = random.Random(5).randbytes(300_000)


def source(engine: Engine, data: bytes = DATA, name: str = "in.bin") -> Path:
    path = Path(engine.config.data) / "Wallets" / "Mail" / "Outgoing" / name
    path.write_bytes(data)
    return path


async def ended(engine: Engine, operation: Operation) -> Operation:
    """The operation once its task is over."""
    await engine.wait(operation.task_id)
    return engine.operations.get(operation.id)


async def moving(engine: Engine, operation: Operation) -> None:
    """Until its first bytes have arrived."""
    while not engine.operations.get(operation.id).completed:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)


async def stored(engine: Engine, **options: Any) -> Operation:
    source(engine)
    operation = await ended(engine, await engine.operations.upload("in.bin", **options))
    assert operation.state == "completed", operation.last_result
    return operation


def test_up_down_and_gone() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        source(alice)
        accepted = await alice.operations.upload("in.bin", node=7)
        assert (accepted.state, accepted.direction, accepted.node) == ("queued", "upload", 7)
        up = await ended(alice, accepted)
        assert (up.state, up.completed, up.total, up.generation) == ("completed", len(DATA), len(DATA), 1)
        assert up.object_hash == hashlib.sha256(DATA).digest()
        assert min(up.chunk, up.max_parallel, up.expires_at) > 0
        down = await ended(alice, await alice.operations.download(up.object_id, "out.bin"))
        assert (down.state, down.node, down.generation) == ("completed", 7, 1)
        assert read(source(alice).with_name("out.bin")) == DATA
        assert os.listdir(Path(alice.config.data) / "Downloads") == []
        gone = await ended(alice, await alice.operations.delete(up.object_id, 1))
        assert (gone.state, gone.generation) == ("completed", 2)
        late = await ended(alice, await alice.operations.download(up.object_id, "late.bin"))
        assert late.state == "failed"
        assert late.last_status
        assert not source(alice).with_name("late.bin").exists()
        (spent,) = lockers(alice, state=LockerState.CONSUMED)
        assert spent.node == 7
        check_books(cluster, alice)

    play(story)


def test_a_replacement_shows_the_locker_again() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        up = await stored(alice, node=3)
        with pytest.raises(UsageError, match="the original locker_key"):
            await alice.operations.upload("in.bin", replaces=True, object_id=bytes(15) + b"x", expected=1)
        source(alice, b"second")
        second = await alice.operations.upload("in.bin", replaces=True, object_id=up.object_id, expected=1, target=5)
        assert (await ended(alice, second)).generation == 5
        assert len(lockers(alice, state=LockerState.CONSUMED)) == 1
        down = await ended(alice, await alice.operations.download(up.object_id, "out.bin"))
        assert (down.generation, read(source(alice).with_name("out.bin"))) == (5, b"second")
        stale = await alice.operations.upload("in.bin", replaces=True, object_id=up.object_id, expected=1, target=6)
        assert (await ended(alice, stale)).state == "failed"
        check_books(cluster, alice)

    play(story)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expected": 1}, "Create requires expected_generation=0"),
        ({"target": 0}, "target_generation must be greater than expected_generation"),
        ({"replaces": True, "expected": 1}, "Replacement requires object_id and the original locker_key"),
        ({"locker": "a" * 17}, "Invalid locker_key"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        source(alice)
        with pytest.raises(UsageError, match=message):
            await alice.operations.upload("in.bin", **options)
        assert alice._store.operations.unfinished() == []

    play(story, nodes=5)


def test_paths_outside_and_names_that_are_taken(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        up = await stored(alice)
        for path in ("/etc/passwd", "../in.bin", str(tmp_path / "x"), "none/in.bin"):
            with pytest.raises(PathRefused):
                await alice.operations.upload(path)
            with pytest.raises(PathRefused):
                await alice.operations.download(up.object_id, path)
        with pytest.raises(Conflict):
            await alice.operations.download(up.object_id, "in.bin")
        down = await alice.operations.download(up.object_id, "out.bin")
        source(alice, b"mine", "out.bin")  # meanwhile
        assert (await ended(alice, down)).state == "failed"
        assert read(source(alice, name="other").with_name("out.bin")) == b"mine"
        assert os.listdir(Path(alice.config.data) / "Downloads") == []

    play(story, nodes=5, **FREE)


def test_a_node_that_is_away_pauses_an_upload_until_it_is_resumed() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        source(alice)
        cluster.down.add(4)
        paused = await ended(alice, await alice.operations.upload("in.bin", node=4))
        assert (paused.state, paused.last_status) == ("paused", 0)
        assert paused.last_result
        cluster.down.clear()
        again = await alice.operations.resume(paused.id)
        assert again.task_id != paused.task_id
        assert (await ended(alice, again)).state == "completed"
        with pytest.raises(Conflict, match="could not be resumed"):
            await alice.operations.resume(paused.id)
        with pytest.raises(Conflict, match="could not be cancelled"):
            await alice.operations.cancel(paused.id)
        with pytest.raises(NotFound, match="Transfer not found"):
            await alice.operations.resume(bytes(16))
        assert len(lockers(alice, state=LockerState.CONSUMED)) == 1
        check_books(cluster, alice)

    play(story)


def test_a_file_that_changed_while_paused_is_not_sent() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        path = source(alice)
        cluster.down.add(4)
        paused = await ended(alice, await alice.operations.upload("in.bin", node=4))
        path.write_bytes(b"other")
        cluster.down.clear()
        failed = await ended(alice, await alice.operations.resume(paused.id))
        assert failed.state == "failed"
        assert "has changed" in failed.last_result
        await asyncio.sleep(10)  # the node is asked what became of the locker
        assert lockers(alice, state=LockerState.RESERVED) == []
        check_books(cluster, alice)

    play(story)


@pytest.mark.parametrize("away", [False, True])
def test_a_cancelled_upload_leaves_nothing(away: bool) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        source(alice)
        if away:
            cluster.down.add(4)
        operation = await alice.operations.upload("in.bin", node=4)
        if away:
            await alice.wait(operation.task_id)
        else:
            await moving(alice, operation)
        ended_ = await alice.operations.cancel(operation.id)
        assert (ended_.state, ended_.cancel_requested) == ("cancelled", True)
        assert alice.task(operation.task_id).status == ("failed" if away else "cancelled")
        assert cluster.raida.nodes[4].state.objects_held(None)[2] == 0
        cluster.down.clear()
        await asyncio.sleep(10)
        assert lockers(alice, state=LockerState.RESERVED) == []
        check_books(cluster, alice)

    play(story)


def test_cancelling_the_task_cancels_the_download() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        up = await stored(alice)
        operation = await alice.operations.download(up.object_id, "out.bin", chunk=1000)
        await moving(alice, operation)
        await alice.cancel(operation.task_id)
        assert alice.operations.get(operation.id).state == "cancelled"
        assert alice.task(operation.task_id).status == "cancelled"
        assert os.listdir(Path(alice.config.data) / "Downloads") == []

    play(story, nodes=5, **FREE)


@pytest.mark.parametrize("what", ["upload", "download"])
def test_what_a_stop_interrupted_goes_on_at_the_next_start(what: str) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        up = await stored(alice, chunk=1000)
        if what == "upload":
            operation = await alice.operations.upload("in.bin", chunk=1000)
        else:
            operation = await alice.operations.download(up.object_id, "out.bin", chunk=1000)
        await moving(alice, operation)
        await alice._tasks.close()
        assert alice.operations.get(operation.id).state == "running"
        alice.operations.resume_all()
        operation = alice.operations.get(operation.id)
        assert (await ended(alice, operation)).state == "completed"
        if what == "download":
            assert read(source(alice).with_name("out.bin")) == DATA

    play(story, nodes=5, **FREE)


def test_a_transfer_its_node_has_forgotten_is_begun_again() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        source(alice)
        operation = await alice.operations.upload("in.bin", node=2, chunk=1000)
        await moving(alice, operation)
        await alice.operations._nodes.abort({2: operation.transfer_id})
        done = await ended(alice, operation)
        assert (done.state, done.transfer_id != operation.transfer_id) == ("completed", True)
        assert len(lockers(alice, state=LockerState.CONSUMED)) == 1

    play(story, nodes=5)


def test_a_locker_of_the_users_own_pays() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", pool_upload=1)
        await alice.fill_pool()
        (own,) = [x for x in lockers(alice, state=LockerState.AVAILABLE) if x.kind == 0][:1]
        source(alice)
        done = await ended(alice, await alice.operations.upload("in.bin", node=1, locker=own.code))
        assert done.state == "completed"
        assert own.code not in repr(done)
        refused = await ended(alice, await alice.operations.upload("in.bin", node=1, locker="AAAABBBBCCCCDDDD"))
        assert refused.state == "failed"
        assert "AAAABBBB" not in refused.last_result

    play(story, nodes=5)


def test_what_a_node_offers() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        offer = await alice.operations.capabilities(3)
        assert (offer.node, offer.enabled, offer.paid, len(offer.classes)) == (3, True, True, 1)
        cluster.down.add(3)
        with pytest.raises((QMailError, NodeError)):
            await alice.operations.capabilities(3)

    play(story, nodes=5)
