"""raida.node: what is past its time, before and after it was swept."""

from __future__ import annotations

import pytest

from qmail_core.codec import consts as c
from qmail_core.codec.mail import TellRecipient
from qmail_core.errors import StoreUnavailable
from qmail_core.raida.node import Policy
from qmail_core.raida.state import MemoryState

from .client import NOW, World, tell_from

DAY = 86_400.0
FREE = Policy(storage_fee=0, inbox_fee=0, tell_ttl=5 * DAY)


def test_an_expired_stripe_is_refused_before_it_is_swept() -> None:
    peer = (world := World(policy=FREE)).peer(world.ones[0])
    assert peer.upload(b"for a day", duration=0) == c.STATUS_SUCCESS
    assert peer.download().status == c.STATUS_SUCCESS
    peer.now = NOW + DAY
    assert peer.download().status == c.STATUS_FILE_NOT_EXIST
    assert peer.node.sweep(peer.now, 10) == 1
    peer.node.state.commit()
    assert peer.download().status == c.STATUS_FILE_NOT_EXIST
    assert peer.upload(b"anew", duration=255) == c.STATUS_SUCCESS
    peer.now += 10_000 * DAY
    assert peer.node.sweep(peer.now, 10) == 0
    assert peer.download().status == c.STATUS_SUCCESS


def test_after_expiry_another_coin_may_use_the_guid() -> None:
    world = World(policy=FREE)
    first, second = world.peer(world.ones[0]), world.peer(world.ones[1])
    assert first.upload(b"for a day", duration=0) == c.STATUS_SUCCESS
    assert second.upload(b"no", duration=0) == c.STATUS_FILE_EXISTS
    first.node.sweep(NOW + DAY, 10)
    assert second.upload(b"yes", duration=0) == c.STATUS_SUCCESS


@pytest.mark.parametrize("ttl", [5 * DAY, 0.0])
def test_tells_are_kept_for_their_time(ttl: float) -> None:
    world = World(policy=Policy(inbox_fee=0, tell_ttl=ttl))
    sender, reader = world.peer(world.ones[0]), world.peer(world.ones[1])
    assert sender.tell(tell_from(sender.coin), TellRecipient(reader.coin.address)) == c.STATUS_SUCCESS
    assert sender.node.sweep(NOW + 4.9 * DAY, 10) == 0
    assert sender.node.sweep(NOW + 5.1 * DAY, 10) == (1 if ttl else 0)
    assert len(reader.peek()) == (0 if ttl else 1)


def test_a_sweep_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    world = World(policy=FREE)
    peer = world.peer(world.ones[0])
    peer.upload(b"for a day", duration=0)

    def broken(*args: object) -> int:
        raise StoreUnavailable("disk on fire")

    monkeypatch.setattr(MemoryState, "sweep_tells", broken)
    assert peer.node.sweep(NOW + DAY, 10) == 0
    assert "disk on fire" in caplog.text
    assert not peer.node.state.dirty()
    assert peer.download().status == c.STATUS_SUCCESS
