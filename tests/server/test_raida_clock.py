"""qmail_server.raida.clock in virtual time."""

from __future__ import annotations

import asyncio
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qmail_server.raida import clock
from qmail_server.raida.clock import Deadlines

from tests.conftest import virtual


class Peer:
    """Something with a deadline."""

    def __init__(self, name: int) -> None:
        self.name, self.deadline, self.queued = name, inf, inf


def now() -> float:
    return asyncio.get_running_loop().time()


STEPS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["put", "later", "drop"]), st.integers(1, 50)), max_size=40
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_each_peer_expires_at_its_last_deadline(steps: list[tuple[int, str, int]]) -> None:
    async def story() -> None:
        wanted: dict[int, float] = {}

        def expire(peer: Peer) -> None:
            assert wanted.pop(peer.name) == now()

        deadlines: Deadlines[Peer] = Deadlines(expire)
        peers = [Peer(name) for name in range(5)]
        for name, what, span in steps:
            peer = peers[name]
            if what == "put":
                wanted[name] = now() + span
                deadlines.put(peer, wanted[name])
            elif what == "later" and name in wanted:
                peer.deadline = wanted[name] = max(wanted[name], now() + span)
            elif what == "drop" and name in wanted:
                deadlines.drop(peer)
                del wanted[name]
            await asyncio.sleep(0.5)
        await asyncio.sleep(200)
        assert wanted == {}
        assert len(deadlines) == 0

    virtual(story())


def test_many_that_end_together_do_not_end_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "CHUNK", 10)

    async def story() -> None:
        turns: list[int] = []
        expired: list[Peer] = []
        deadlines: Deadlines[Peer] = Deadlines(expired.append)
        for name in range(95):
            deadlines.put(Peer(name), 5.0)
        while len(expired) < 95:
            await asyncio.sleep(5.0 if not turns else 0)
            turns.append(len(expired))
        assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) <= 10
        assert now() == pytest.approx(5.0)

    virtual(story())


def test_peers_that_leave_do_not_fill_the_heap() -> None:
    async def story() -> None:
        deadlines: Deadlines[Peer] = Deadlines(lambda peer: None)
        stays = Peer(0)
        deadlines.put(stays, now() + 600)
        for name in range(5000):
            peer = Peer(name)
            deadlines.put(peer, now() + 600)
            deadlines.drop(peer)
            assert len(deadlines) < 200
        assert stays.queued == 600
        deadlines.stop()
        deadlines.stop()
        await asyncio.sleep(1000)

    virtual(story())
