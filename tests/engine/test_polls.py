"""Long polls: however many wait, each beacon is asked once, and everybody is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from qmail_core import Cluster, Engine, NotFound, QuorumError
from qmail_core.codec import consts as c
from qmail_core.errors import StoreUnavailable
from qmail_core.model import Polled
from tests.conftest import skip
from tests.engine import couple, now, play

BEACONS = (11, 14)


def watched(engine: Engine, wanted: int = c.CMD_PING) -> Counter[int]:
    """Pings this engine sends from now on, or peeks, by node."""
    asked: Counter[int] = Counter()
    batch = engine._ctx.mail_batch

    def counted(command: int, nodes: list[int], *rest: object) -> object:
        if command == wanted:
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


def shown(engine: Engine) -> list[str]:
    return [item.tell.guid.hex() for item in engine.notifications()]


class Late:
    """A transport whose answers take their time on the way back; the requests arrive at once."""

    def __init__(self, engine: Engine, delay: dict[int, float]) -> None:
        self._fanout = engine._ctx.fanout
        self._inner, self._fanout.transport = self._fanout.transport, self
        self._delay = delay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def send(self, node: int, frame: Any, enc: int, done: Any) -> Any:
        dropped = False

        def back(answer: Any) -> None:
            def arrive() -> None:
                if not dropped:
                    done(answer)

            asyncio.get_running_loop().call_later(self._delay.get(node, 0.0), arrive)

        cancel = self._inner.send(node, frame, enc, back)

        def drop() -> None:
            nonlocal dropped
            dropped = True
            cancel()

        return drop


async def told_at(cluster: Cluster, alice: Engine, *beacons: int) -> str:
    """The GUID of a mail to bob whose tell lies at these beacons only."""
    away = set(BEACONS) - set(beacons)
    cluster.down.update(away)
    sent = await alice.send(alice.draft(["bob"], "s", "b"))
    cluster.down.difference_update(away)
    return str(sent.receipt.file_guid)


@pytest.mark.parametrize("seconds", [0.7, 11.0, 50.0])
def test_what_the_slower_beacon_answers_to_a_peek_is_kept_and_told(seconds: float) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        guid = await told_at(cluster, alice, 14)
        Late(bob, {14: seconds})
        assert (await bob.peek()).notifications == ()
        waiting = asyncio.create_task(bob.ping(300))
        await asyncio.sleep(seconds)
        assert shown(bob) == [guid]
        assert guids(await waiting) == [guid]

    play(story)


def test_what_a_beacon_answers_after_a_peek_failed_or_was_cancelled_is_kept() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        guid = await told_at(cluster, alice, 14)
        Late(bob, dict.fromkeys(BEACONS, 20.0))
        with pytest.raises(QuorumError, match="Peek failed") as lost:
            await bob.peek()
        assert set(lost.value.failures) == set(BEACONS)
        assert now() == pytest.approx(10, abs=1)
        await asyncio.sleep(15)
        assert shown(bob) == [guid]
        other = await told_at(cluster, alice, 11)
        peek = asyncio.create_task(bob.peek())
        await asyncio.sleep(1)
        peek.cancel()
        await asyncio.sleep(20)
        assert shown(bob) == [other, guid]

    play(story)


def test_a_cancelled_peek_does_not_keep_its_tells_from_being_announced() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        keep = bob._store.mail.add_tells

        async def slow(*given: object) -> object:
            peek.cancel()
            await asyncio.sleep(1)
            return await keep(*given)  # type: ignore[arg-type]

        bob._store.mail.add_tells = slow  # type: ignore[method-assign,assignment]
        guid = await told_at(cluster, alice, *BEACONS)
        peek = asyncio.create_task(bob.peek())
        await asyncio.wait([peek])
        assert peek.cancelled()
        assert guids(await bob.ping(300)) == [guid]

    play(story)


def test_an_answer_that_comes_while_the_other_is_committed_disturbs_nothing() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        keep = bob._store.mail.add_tells

        async def slow(*given: object) -> object:
            await asyncio.sleep(1)
            return await keep(*given)  # type: ignore[arg-type]

        bob._store.mail.add_tells = slow  # type: ignore[method-assign,assignment]
        first, second = await told_at(cluster, alice, 11), await told_at(cluster, alice, 14)
        Late(bob, {14: 0.8})
        assert [item.tell.guid.hex() for item in (await bob.peek()).notifications] == [first]
        assert guids(await bob.ping(10)) == [second]

    play(story)


def test_a_hanging_beacon_is_owed_few_peeks() -> None:
    async def story(cluster: Cluster) -> None:
        _, bob = await couple(cluster)
        cluster.delay[11] = 1e9
        asked = watched(bob, c.CMD_PEEK)
        for _ in range(20):
            await bob.peek()
        assert asked == {11: 4, 14: 20}
        cluster.delay[14] = 1e9
        for _ in range(5):
            with pytest.raises(QuorumError) as lost:
                await bob.peek()
            assert set(lost.value.failures) == set(BEACONS)
        assert asked == {11: 4, 14: 24}
        await asyncio.sleep(100)
        cluster.delay.clear()
        await bob.peek()
        assert asked == {11: 5, 14: 25}

    play(story)


def test_a_beacon_that_answers_a_ping_later_than_the_other_loses_nothing() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        Late(bob, {14: 0.05})
        found: list[str] = []
        wanted: list[str] = []
        for _ in range(4):
            waiting = asyncio.create_task(bob.ping(30))
            wanted += [await told_at(cluster, alice, 14), await told_at(cluster, alice, *BEACONS)]
            found += guids(await waiting)
        for _ in range(3):
            found += guids(await bob.ping(5))
        assert sorted(found) == sorted(wanted)
        assert sorted(shown(bob)) == sorted(wanted)

    play(story)


def test_a_ping_stays_parked_for_the_next_who_waits() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        asked = watched(bob)
        for _ in range(20):
            assert (await bob.ping(5)).notifications == ()
        gone = asyncio.create_task(bob.ping(300))
        await asyncio.sleep(1)
        gone.cancel()
        await asyncio.sleep(1)
        assert bob._receiver.polls.waiting == 0
        assert asked == dict.fromkeys(BEACONS, 1)
        guid = await told_at(cluster, alice, *BEACONS)
        await asyncio.sleep(1)
        assert shown(bob) == [guid]
        assert guids(await bob.ping(300)) == [guid]  # nobody has heard of it yet
        assert (await bob.ping(5)).notifications == ()
        assert asked == dict.fromkeys(BEACONS, 2)
        await asyncio.sleep(700)
        assert bob._receiver.polls._watches == {}
        assert asked == dict.fromkeys(BEACONS, 2)

    play(story)


def test_what_was_peeked_or_downloaded_meanwhile_is_no_news() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await bob.ping(5)
        guid = await told_at(cluster, alice, *BEACONS)
        await asyncio.sleep(1)
        assert [item.tell.guid.hex() for item in (await bob.peek()).notifications] == [guid]
        assert (await bob.ping(5)).notifications == ()
        guid = await told_at(cluster, alice, *BEACONS)
        await asyncio.sleep(1)
        await bob.download(bytes.fromhex(guid))
        assert (await bob.ping(5)).notifications == ()

    play(story)


def test_one_beacon_that_hangs_does_not_keep_the_other_from_being_asked_again() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.delay[14] = 1e9
        waiting = asyncio.create_task(bob.ping(3000))
        await asyncio.sleep(1000)  # the other ended it once
        guid = await told_at(cluster, alice, 11)
        assert guids(await waiting) == [guid]

    play(story)


def test_a_ping_that_hangs_for_longer_than_any_is_not_relied_on() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        asked = watched(bob)
        cluster.delay[14] = 1e9
        for _ in range(100):
            await bob.ping(20)
        assert asked[14] == 3  # in 2000 seconds
        cluster.delay.clear()
        await asyncio.sleep(700)
        waiting = asyncio.create_task(bob.ping(20))
        guid = await told_at(cluster, alice, 14)
        assert guids(await waiting) == [guid]
        await asyncio.sleep(3600)
        assert bob._receiver.polls._watches == {}

    play(story)


def test_many_values_of_since_park_few_requests() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        asked = watched(bob)
        waiting = [asyncio.create_task(bob.ping(300, since)) for since in range(100, 200)]
        await asyncio.sleep(1)
        assert asked == dict.fromkeys(BEACONS, 9)
        guid = await told_at(cluster, alice, *BEACONS)
        assert {tuple(guids(await task)) for task in waiting} == {(guid,)}

    play(story)


def test_an_answer_on_its_way_is_kept_while_the_server_drains_and_the_engine_closes() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        Late(bob, {14: 1.0})
        waiting = asyncio.create_task(bob.ping(300))
        await asyncio.sleep(1)
        first = await told_at(cluster, alice, 14)
        bob.drain()
        assert (await waiting).notifications == ()
        await asyncio.sleep(2)
        assert shown(bob) == [first]
        second = await told_at(cluster, alice, 14)
        await bob.peek()
        kept: list[list[str]] = []
        close = bob._store.close

        async def closed() -> None:
            bob._store.close = close  # type: ignore[method-assign]
            kept.append(shown(bob))
            await close()

        bob._store.close = closed  # type: ignore[method-assign]
        await bob.close()
        assert kept == [[second, first]]

    play(story)


def test_a_hanging_beacon_delays_a_close_by_two_seconds_at_most() -> None:
    async def story(cluster: Cluster) -> None:
        _, bob = await couple(cluster)
        cluster.delay[14] = 1e9
        await bob.peek()
        begun = now()
        await bob.close()
        assert now() - begun == pytest.approx(2, abs=0.1)
        assert not [task for task in asyncio.all_tasks() if task.get_name() in ("qmail-poll", "qmail-peek")]

    play(story)


def test_what_the_store_does_not_take_is_kept_for_later() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        keep = bob._store.mail.add_tells

        async def full(*_: object) -> object:
            raise StoreUnavailable("the disk is full")

        bob._store.mail.add_tells = full  # type: ignore[method-assign,assignment]
        guid = await told_at(cluster, alice, *BEACONS)
        with pytest.raises(StoreUnavailable, match="full"):
            await bob.peek()
        await asyncio.sleep(30)
        assert shown(bob) == []
        waiting = asyncio.create_task(bob.ping(300))
        await asyncio.sleep(1)
        bob._store.mail.add_tells = keep  # type: ignore[method-assign]
        assert guids(await waiting) == [guid]
        assert now() < 60

    play(story)


def test_a_tell_that_comes_as_the_last_one_leaves_is_kept() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        Late(bob, dict.fromkeys(BEACONS, 0.05))
        leave = bob.watch(300, 0, lambda _: None)
        await asyncio.sleep(1)
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        leave()  # the beacons have answered, but it has not come yet
        await asyncio.sleep(1)
        assert shown(bob) == [sent.receipt.file_guid]
        assert bob._receiver.polls._watches == {}

    play(story)
