"""Repair: what is lost comes back byte for byte, paid once, and the receipt never claims more than there is."""

from __future__ import annotations

import asyncio
import os

import pytest

from qmail_core import Cluster, Conflict, Draft, Engine, NotFound, QuorumError, Source
from qmail_core.model import Profile, Striping
from qmail_core.raida.node import Policy
from qmail_core.store.base import LockerState
from tests.conftest import skip
from tests.engine import check_books, couple, lockers, now, play

STRIPINGS = [None, Striping(Profile.RS, 20, 5), Striping(Profile.INTEROP, 24, 1)]


def pages(cluster: Cluster, guid: bytes) -> dict[tuple[int, int, int], bytes]:
    """Everything the nodes hold of a mail."""
    return {
        (node.index, kind, page): data
        for node in cluster.raida.nodes
        for kind in (0, 1, 10)
        for page in range(6)
        if (data := node.state.page(guid, kind, page)) is not None
    }


async def mailed(alice: Engine, size: int = 9_000_000) -> bytes:
    """A stored mail with an attachment of several pages."""
    draft = alice.draft(["bob"], "s", "b", attachments=[Source(name="x", data=os.urandom(size))])
    result = await alice.send(draft)
    return bytes.fromhex(result.receipt.file_guid)


@pytest.mark.parametrize("striping", STRIPINGS, ids=str)
def test_lost_stripes_come_back_byte_for_byte(striping: Striping | None) -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        guid = await mailed(alice)
        before = pages(cluster, guid)
        lost = [2, 8, 14, 20, 24][: cluster.striping.m]
        for node in lost:
            cluster.raida.lose(node, guid)
        cluster.raida.commit()
        assert pages(cluster, guid) != before
        done = await alice.repair(guid)
        assert (done.checked, done.missing, done.rebuilt) == (75, 3 * len(lost), 3 * len(lost))
        assert (done.unreachable, done.survives_loss_of) == ((), cluster.striping.m)
        assert pages(cluster, guid) == before
        again = await alice.repair(guid)
        assert (again.missing, again.rebuilt) == (0, 0)
        check_books(cluster, alice)

    play(story, striping=striping)


def test_a_degraded_upload_is_repaired_in_the_background() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        cluster.down |= {1, 2, 3}
        guid = await mailed(alice, 100_000)
        assert alice.receipt(guid).upload.survives_loss_of == 2
        await asyncio.sleep(60)
        assert alice.receipt(guid).upload.survives_loss_of == 2
        cluster.down.clear()
        skip(3600)
        await asyncio.sleep(5)
        up = alice.receipt(guid).upload
        assert (up.survives_loss_of, up.servers.ok, up.servers.fail) == (5, 25, 0)
        assert {row.status for row in up.files[0].stripes} == {"ok"}
        assert alice._store.sends.due_repairs(1 << 40) == []
        assert not lockers(alice, state=LockerState.RESERVED)
        assert len({node for node, _, _ in pages(cluster, guid)}) == 25
        check_books(cluster, alice)

    play(story)


def test_a_lying_server_gets_the_right_stripe_again() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        guid = await mailed(alice, 1000)
        before = pages(cluster, guid)
        state = cluster.raida.nodes[5].state
        state.put_page(guid, 10, 0, b"nonsense", 0.0, None)
        state.commit()
        done = await alice.repair(guid)
        assert (done.missing, done.rebuilt) == (1, 1)
        assert pages(cluster, guid) == before

    play(story)


def test_a_server_that_hangs_is_waited_for_once() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        guid = await mailed(alice)
        before = pages(cluster, guid)
        cluster.raida.lose(8, guid)
        cluster.raida.commit()
        cluster.delay.update({3: 1e9, 4: 1e9})
        begun = now()
        done = await alice.repair(guid)
        assert now() - begun < 15
        assert (done.missing, done.rebuilt, done.unreachable, done.survives_loss_of) == (3, 3, (3, 4), 3)
        assert pages(cluster, guid) == before
        cluster.delay.clear()
        assert (await alice.repair(guid)).survives_loss_of == 5

    play(story)


def test_single_lost_pages_are_counted_and_rebuilt() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        guid = await mailed(alice)
        before = pages(cluster, guid)
        for node, page in ((3, 0), (4, 1), (5, 2)):
            state = cluster.raida.nodes[node].state
            state.put_page(guid, 10, page, b"nonsense", 0.0, None)
            state.commit()
        done = await alice.repair(guid)
        assert (done.missing, done.rebuilt, done.survives_loss_of) == (3, 3, 5)
        assert pages(cluster, guid) == before

    play(story)


def test_what_could_not_be_repaired_is_not_claimed() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        guid = await mailed(alice, 1000)
        cluster.raida.lose(4, guid)
        cluster.raida.lose(5, guid)
        cluster.raida.commit()
        cluster.down.add(9)
        # node 5 answers, but takes nothing any more
        node = cluster.raida.nodes[5]
        node._context.policy = Policy(storage_fee=99)
        node.state._payments.clear()  # type: ignore[attr-defined]
        done = await alice.repair(guid)
        assert (done.missing, done.rebuilt, done.unreachable) == (6, 3, (9,))
        assert done.survives_loss_of == 3
        up = alice.receipt(guid).upload
        assert {row.server_id for row in up.files[0].stripes if row.status != "ok"} == {5, 9}
        assert (up.survives_loss_of, up.servers.ok) == (3, 23)

    play(story)


def test_a_server_that_took_one_object_of_two_is_not_counted() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        guid = await mailed(alice, 1000)
        for index in (4, 5):
            cluster.raida.lose(index, guid)
        cluster.raida.commit()
        # node 5 refuses the mail itself, meta and body, but takes the attachment
        node = cluster.raida.nodes[5]
        node._context.policy = Policy(storage_fee=99)
        del node.state._payments[guid, 0]  # type: ignore[attr-defined]
        done = await alice.repair(guid)
        assert (done.missing, done.rebuilt, done.survives_loss_of) == (6, 4, 4)
        up = alice.receipt(guid).upload
        assert {row.server_id for row in up.files[0].stripes if row.status != "ok"} == {5}

    play(story)


def test_a_mail_that_lost_too_much_is_an_error() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        guid = await mailed(alice, 1000)
        for node in range(6):
            cluster.raida.lose(node, guid)
        cluster.raida.commit()
        with pytest.raises(QuorumError) as lost:
            await alice.repair(guid)
        assert set(lost.value.failures) == set(range(6))

    play(story)


def test_only_a_stored_mail_of_ours_can_be_repaired() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        with pytest.raises(NotFound):
            await alice.repair(bytes(16))
        started = await alice.start_upload(Draft(body="b"), tell=False)
        with pytest.raises(Conflict):
            await alice.repair(started.guid)
        await alice.wait(started.task_id)
        assert (await alice.repair(started.guid)).missing == 0
        with pytest.raises(NotFound):
            await bob.repair(started.guid)

    play(story, nodes=5)


def test_repairs_are_given_up_after_a_while() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        cluster.down.add(1)
        await mailed(alice, 1000)
        for _ in range(32):
            skip(3600)
            await alice._repairer.repair_due()
        assert alice._store.sends.due_repairs(1 << 40) == []

    play(story, nodes=5)
