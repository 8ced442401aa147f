"""Long polls: however many wait, each beacon is asked once, and everybody is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from qmail_core import Cluster, Engine, NotFound, QuorumError
from qmail_core.codec import consts as c
from qmail_core.model import Polled
from tests.conftest import skip
from tests.engine import couple, now, play

BEACONS = (11, 14)


def watched(engine: Engine) -> Counter[int]:
    """Pings this engine sends from now on, by node."""
    asked: Counter[int] = Counter()
    batch = engine._ctx.mail_batch

    def counted(command: int, nodes: list[int], *rest: object) -> object:
        if command == c.CMD_PING:
            asked.update(nodes)
        return batch(command, nodes, *rest)  # type: ignore[arg-type]

    engine._ctx.mail_batch = counted  # type: ignore[method-assign,assignment]
    return asked


def guids(polled: Polled) -> list[str]:
    return [item.tell.guid.hex() for item in polled.notifications]


def test_many_who_wait_are_one_request_and_all_are_told() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        asked = watched(bob)
        told: list[Polled | Exception] = []
        waiting = []
        for _ in range(50):
            waiting.append(asyncio.create_task(bob.ping(300)))
            bob.watch(300, 0, told.append)
            await asyncio.sleep(0.1)
        assert asked == dict.fromkeys(BEACONS, 1)
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        for task in waiting:
            assert guids(await task) == [sent.receipt.file_guid]
        assert len(told) == 50
        assert all(found is told[0] for found in told)
        await asyncio.sleep(400)
        assert asked == dict.fromkeys(BEACONS, 1)  # nobody waits: nobody is asked
        assert bob._receiver.polls._watches == {}

    play(story)


def test_each_since_is_a_request_of_its_own_and_mail_is_for_all() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        asked = watched(bob)
        waiting = [asyncio.create_task(bob.ping(300, since)) for since in (0, 5, 5)]
        await asyncio.sleep(1)
        assert asked == dict.fromkeys(BEACONS, 2)
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        assert [guids(await task) for task in waiting] == [[sent.receipt.file_guid]] * 3

    play(story)


def test_who_waits_less_or_leaves_holds_nobody_up() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        long, gone = (asyncio.create_task(bob.ping(300)) for _ in range(2))
        polled = await bob.ping(20)
        assert (polled.notifications, polled.timed_out, polled.status) == ((), False, 0)
        assert now() == pytest.approx(20, abs=1)
        gone.cancel()
        await asyncio.sleep(1)
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        assert guids(await long) == [sent.receipt.file_guid]

    play(story)


def test_a_request_that_ends_ends_it_for_those_who_were_there() -> None:
    async def story(cluster: Cluster) -> None:
        _, bob = await couple(cluster)
        first = asyncio.create_task(bob.ping(2000))
        await asyncio.sleep(500)
        second = asyncio.create_task(bob.ping(2000))
        assert (await first).status == c.STATUS_POLL_TIMEOUT
        assert now() == pytest.approx(600, abs=5)
        assert (await second).status == c.STATUS_POLL_TIMEOUT
        assert now() == pytest.approx(1200, abs=5)

    play(story)


def test_a_beacon_that_is_back_is_asked_again_when_somebody_new_waits() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.down.add(11)
        asked = watched(bob)
        waiting = [asyncio.create_task(bob.ping(300))]
        await asyncio.sleep(10)
        assert asked == {11: 1, 14: 1}
        cluster.down.clear()
        waiting += [asyncio.create_task(bob.ping(300)) for _ in range(3)]
        await asyncio.sleep(1)
        assert asked == {11: 2, 14: 1}
        cluster.down.add(14)
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        for task in waiting:
            assert guids(await task) == [sent.receipt.file_guid]

    play(story)


def test_when_no_beacon_answers_everybody_hears_it() -> None:
    async def story(cluster: Cluster) -> None:
        _, bob = await couple(cluster)
        cluster.down.update(BEACONS)
        for found in await asyncio.gather(*(bob.ping(10) for _ in range(3)), return_exceptions=True):
            assert isinstance(found, QuorumError)
            assert set(found.failures) == set(BEACONS)
        cluster.down.clear()
        assert (await bob.ping(1)).notifications == ()

    play(story)


def test_a_time_that_ends_while_tells_are_kept_waits_for_them() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        keep = bob._store.mail.add_tells

        async def slow(*given: object) -> object:
            skip(100)  # the time of whoever waits is over now
            await asyncio.sleep(0.01)
            return await keep(*given)  # type: ignore[arg-type]

        bob._store.mail.add_tells = slow  # type: ignore[method-assign,assignment]
        waiting = asyncio.create_task(bob.ping(50))
        await asyncio.sleep(1)
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        assert guids(await waiting) == [sent.receipt.file_guid]

    play(story)


def test_what_goes_wrong_while_tells_are_kept_is_raised() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)

        async def broken(*_: object) -> object:
            raise NotFound("lost")

        bob._store.mail.add_tells = broken  # type: ignore[method-assign,assignment]
        waiting = asyncio.create_task(bob.ping(50))
        await asyncio.sleep(1)
        await alice.send(alice.draft(["bob"], "s", "b"))
        with pytest.raises(NotFound, match="lost"):
            await waiting

    play(story)


def test_a_tell_that_comes_as_the_last_one_leaves_is_kept() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        leave = bob.watch(300, 0, lambda _: None)
        await asyncio.sleep(1)
        run = bob._receiver.polls._watches[0]._run
        assert run is not None
        settle = run.settle

        def settled(*given: Any) -> None:
            settle(*given)
            leave()

        run.settle = settled  # type: ignore[method-assign,assignment]
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        await asyncio.sleep(1)
        assert [row.tell.guid.hex() for row in bob.notifications()] == [sent.receipt.file_guid]
        assert bob._receiver.polls._watches == {}

    play(story)
