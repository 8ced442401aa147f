"""raida.replay, and what a node does with a frame it has seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.raida.node import Policy
from qmail_core.raida.replay import BUCKETS, Recent

from .client import GUID, NOW, World, frame_of, request
from .faults import keys

COIN = b"\0\0\0\0\1"


def test_a_mark_is_new_once_per_coin() -> None:
    recent = Recent(10.0, 1000)
    assert recent.first(COIN, b"a", 0.0)
    assert not recent.first(COIN, b"a", 1.0)
    assert recent.first(b"\0\0\0\0\2", b"a", 1.0)
    assert recent.first(COIN, b"b", 1.0)
    assert len(recent) == 3


@given(st.floats(0, 9.9), st.floats(0, 9.9))
def test_a_mark_lives_at_least_one_window(start: float, later: float) -> None:
    recent = Recent(10.0, 1000)
    recent.first(COIN, b"before", 0.0)
    assert recent.first(COIN, b"a", start)
    assert not recent.first(COIN, b"a", start + later)


def test_old_marks_are_forgotten() -> None:
    recent = Recent(10.0, 1000)
    recent.first(COIN, b"a", 0.0)
    recent.first(COIN, b"b", 11.0)
    assert recent.first(COIN, b"c", 22.0)
    assert recent.first(COIN, b"a", 22.0)


def test_memory_is_bounded_whatever_comes() -> None:
    room = 64 * BUCKETS
    recent = Recent(1e9, room)
    for number in range(5000):
        mark = number.to_bytes(8, "big")
        coin = COIN if number % 2 else mark[-5:]
        assert recent.first(coin, mark, 1.0)
        assert not recent.first(coin, mark, 1.0)
        assert len(recent) <= room


def test_a_busy_coin_displaces_few_of_the_others() -> None:
    recent = Recent(1e9, 64 * BUCKETS)
    quiet = [bytes([1, 0, 0, 0, number]) for number in range(100)]
    for coin in quiet:
        assert recent.first(coin, b"mark", 1.0)
    for number in range(10_000):
        recent.first(COIN, number.to_bytes(8, "big"), 1.0)
    assert sum(not recent.first(coin, b"mark", 1.0) for coin in quiet) > 60


# ------------------------------------------------------------------------------------------------------------------
# The node


@pytest.mark.parametrize("enc", [1, 2, 4, 5])
def test_a_frame_sent_twice_is_acted_on_once(enc: int) -> None:
    world = World()
    node, key = world.cluster.nodes[1], keys(world)[enc]
    sent = request(1, 0, c.CMD_VERSION, key=key)
    statuses = [outcome.reply[2] for _ in range(3) if (outcome := node.handle(frame_of(sent), NOW)).reply]
    assert statuses == [c.STATUS_SUCCESS, c.STATUS_INVALID_CRC, c.STATUS_INVALID_CRC]
    outcome = node.handle(frame_of(request(1, 0, c.CMD_VERSION, key=key)), NOW)
    assert outcome.reply is not None
    assert outcome.reply[2] == c.STATUS_SUCCESS


def test_a_replayed_upload_cannot_bring_back_an_old_page() -> None:
    world = World(policy=Policy(storage_fee=0))
    peer = world.peer(world.ones[0], enc=c.ENC_COIN)
    rest = mail.build_upload(GUID, bytes(16), 1, 2, 3)
    first = request(1, 6, c.CMD_UPLOAD, peer.identity + rest + b"old", key=peer.key)
    peer.send(first)
    assert peer.upload(b"new") == c.STATUS_SUCCESS
    outcome = peer.send(first)
    assert outcome.reply is not None
    assert outcome.reply[2] == c.STATUS_INVALID_CRC
    assert bytes(mail.parse_page(peer.download().payload)) == b"new"


def test_clear_frames_that_change_something_count_too() -> None:
    world = World()
    node = world.cluster.nodes[1]
    asked, echo = request(1, 1, c.CMD_DETECT, bytes(21)), request(1, 0, c.CMD_ECHO)
    other = asked.frame[:-4] + b"\1\1" + asked.frame[-2:]  # type: ignore[index]
    assert node.handle(bytearray(other), NOW).reply is not None
    for sent, statuses in ((asked, [242, 37]), (echo, [250, 250])):
        assert [node.handle(frame_of(sent), NOW).reply[2] for _ in range(2)] == statuses  # type: ignore[index]


def test_frames_of_strangers_leave_no_mark() -> None:
    world = World()
    node, key = world.cluster.nodes[1], keys(world)[1]
    sent = request(1, 0, c.CMD_VERSION, key=key)
    damaged = frame_of(sent)
    damaged[33] ^= 1
    before = len(node._recent)
    node.handle(damaged, NOW)
    assert len(node._recent) == before
    assert node.handle(frame_of(sent), NOW).reply[2] == c.STATUS_SUCCESS  # type: ignore[index]


def test_the_memory_can_be_turned_off_and_ends_with_the_window() -> None:
    for policy, later in ((Policy(replay_window=0), 0.0), (Policy(replay_window=60), 121.0)):
        world = World(policy=policy)
        node, key = world.cluster.nodes[1], keys(world)[1]
        sent = request(1, 0, c.CMD_VERSION, key=key)
        node.handle(frame_of(sent), NOW)
        node.handle(frame_of(request(1, 0, c.CMD_VERSION, key=key)), NOW + later / 2)
        assert node.handle(frame_of(sent), NOW + later).reply[2] == c.STATUS_SUCCESS  # type: ignore[index]


@pytest.mark.parametrize("at", range(40, 48))
@pytest.mark.parametrize("enc", [4, 5])
@pytest.mark.parametrize(("group", "command"), [(c.GROUP_STATUS, c.CMD_VERSION), (c.GROUP_MAIL, c.CMD_PEEK)])
def test_the_bytes_of_a_nonce_that_do_not_encrypt_make_no_new_frame(
    at: int, enc: int, group: int, command: int
) -> None:
    world = World()
    node, peer = world.cluster.nodes[1], world.peer(world.ones[1])
    body = peer.identity + bytes(4) if group == c.GROUP_MAIL else b""
    frame = frame_of(request(1, group, command, body, key=keys(world)[enc]))
    outcomes = [node.handle(frame[:], NOW)]
    frame[at] ^= 1  # neither the key stream nor the HMAC depends on it
    outcomes.append(node.handle(frame, NOW))
    assert [outcome.reply[2] for outcome in outcomes if outcome.reply] == [c.STATUS_SUCCESS, c.STATUS_INVALID_CRC]
