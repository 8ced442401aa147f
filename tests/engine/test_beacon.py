"""The watch of the beacons, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from qmail_core.embed import Cluster
from qmail_core.model import Downloaded, Polled
from tests.engine import T0, couple, play

NODES = 5


def test_it_keeps_tells_and_leaves_the_mail_where_it_is() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        assert not bob.beacon.state.running
        bob.beacon.start()
        bob.beacon.start()
        await asyncio.sleep(5)
        await alice.send(alice.draft(["bob"], "s", "b"))
        await asyncio.sleep(5)
        (row,) = bob.notifications()
        assert not row.downloaded
        state = bob.beacon.state
        assert (state.running, state.last_tell, state.errors) == (True, row.tell.timestamp, 0)
        await bob.beacon.stop()
        await bob.beacon.stop()
        assert not bob.beacon.state.running

    play(story, NODES)


def test_it_fetches_mail_if_told_to() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster, auto_download=True)
        bob.beacon.start()
        await asyncio.sleep(1)
        await alice.send(alice.draft(["bob"], "Fetched", "b"))
        await asyncio.sleep(5)
        (row,) = bob.notifications(downloaded=True)
        assert row.downloaded
        assert (await bob.message(row.tell.guid)).subject == "Fetched"

    play(story, NODES)


def test_mail_that_comes_while_another_is_fetched_is_fetched_too() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster, auto_download=True)
        download = bob._receiver.download

        async def slow(guid: bytes, sender_sn: int | None = None) -> Downloaded:
            await asyncio.sleep(30)
            return await download(guid, sender_sn)

        bob._receiver.download = slow  # type: ignore[method-assign]
        bob.beacon.start()
        for _ in range(3):
            waiting = asyncio.create_task(bob.ping(300))  # somebody else hears of it
            await asyncio.sleep(10)
            await alice.send(alice.draft(["bob"], "s", "b"))
            assert len((await waiting).notifications) == 1
        await asyncio.sleep(100)
        assert [row.downloaded for row in bob.notifications(downloaded=True)] == [True, True, True]

    play(story, NODES)


def test_a_clock_that_is_set_back_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster, auto_download=True)
        bob.beacon.start()
        await asyncio.sleep(100)
        monkeypatch.setattr("tests.engine.T0", T0 - 86400)
        await asyncio.sleep(900)
        await alice.send(alice.draft(["bob"], "s", "b"))
        await asyncio.sleep(10)
        assert [row.downloaded for row in bob.notifications(downloaded=True)] == [True]

    play(story, NODES)


def test_who_else_waits_is_told_too() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster, auto_download=True)
        bob.beacon.start()
        waiting = [asyncio.create_task(bob.ping(300)) for _ in range(3)]
        await asyncio.sleep(30)
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        for task in waiting:
            assert [item.tell.guid.hex() for item in (await task).notifications] == [sent.receipt.file_guid]

    play(story, NODES)


def test_it_pauses_longer_and_longer_while_the_beacons_are_away() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.down |= set(range(NODES))
        bob.beacon.start()
        await asyncio.sleep(20)
        state = bob.beacon.state
        assert state.errors == 5
        assert state.backoff == 16
        cluster.down.clear()
        await asyncio.sleep(30)
        assert (bob.beacon.state.errors, bob.beacon.state.backoff) == (5, 16)  # until something comes
        await alice.send(alice.draft(["bob"], "s", "b"))
        await asyncio.sleep(1)
        assert (bob.beacon.state.errors, bob.beacon.state.backoff) == (0, 0)

    play(story, NODES)


def test_beacons_that_do_not_wait_are_not_asked_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        _, bob = await couple(cluster)
        asked = []

        async def ping(timeout: float, since: int) -> Polled:
            asked.append(timeout)
            return Polled((), timed_out=True, elapsed_ms=20)

        monkeypatch.setattr(bob._receiver, "ping", ping)
        bob.beacon.start()
        await asyncio.sleep(60)
        assert 10 <= len(asked) <= 13

    play(story, NODES)


def test_what_is_no_error_of_the_network_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster, auto_download=True)

        async def ping(timeout: float, since: int) -> Polled:
            raise ZeroDivisionError

        monkeypatch.setattr(bob._receiver, "ping", ping)
        bob.beacon.start()
        await asyncio.sleep(5)
        assert bob.beacon.state.errors > 1
        monkeypatch.undo()
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        cluster.down |= set(range(1, NODES - 1))
        await asyncio.sleep(30)
        assert "cannot be fetched now" in caplog.text
        assert [row.tell.guid.hex() for row in bob.notifications()] == [sent.receipt.file_guid]

    play(story, NODES)
    assert "watching the beacons failed" in caplog.text


def test_it_ends_when_the_server_drains() -> None:
    async def story(cluster: Cluster) -> None:
        _, bob = await couple(cluster)
        bob.beacon.start()
        await asyncio.sleep(1)
        bob.drain()
        await asyncio.sleep(6)
        assert not bob.beacon.state.running

    play(story, NODES)
