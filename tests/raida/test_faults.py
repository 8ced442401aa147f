"""raida.node: every check and its status, their order, and random damage."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.raida.node import Policy

from .client import GUID, NOW, World, request
from .faults import NAMES, ROWS, Row, check, keys


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
@pytest.mark.parametrize("datagram", [False, True])
def test_each_fault_has_its_documented_answer(row: Row, datagram: bool) -> None:
    world = World()
    frame = row.make(world)
    sent = bytes(frame)
    node = world.cluster.nodes[1]
    outcome = (node.handle_datagram if datagram else node.handle)(frame, NOW)
    assert outcome.reply is not None
    check(row, sent, bytes(outcome.reply))
    assert not outcome.changed


def test_header_faults_are_known_before_the_body_comes() -> None:
    world = World()
    node = world.cluster.nodes[1]
    for row in ROWS:
        head = row.make(world)
        head = head[: 48 if head[16] > 2 else 32]
        known = node.refuse(head)
        assert (known is not None) == (not row.echo or row.status == c.STATUS_ENCRYPTION_UNSUPPORTED), row.name
        if known is not None:
            assert known[2] == row.status


# ------------------------------------------------------------------------------------------------------------------
# Damage


@cache
def valid() -> tuple[World, list[bytes]]:
    """A world, and whole requests of every type and command its nodes serve."""
    world = World(policy=Policy(storage_fee=0, inbox_fee=0))
    known = keys(world)
    peer = world.peer(world.ones[0])
    identity = peer.identity
    bodies = [(0, 0, b""), (0, 1, b"x" * 30), (0, 2, bytes(16)), (0, 3, b""), (1, 10, bytes(42)), (8, 83, bytes(16))]
    mails = [
        (c.CMD_UPLOAD, mail.build_upload(GUID, bytes(16), 1, 2, 9) + b"nine byte"),
        (c.CMD_UPLOAD_PAGE, mail.build_upload_page(GUID, bytes(16), 10, 2, 0, 5) + b"bytes"),
        (c.CMD_DOWNLOAD, mail.build_download(GUID, bytes(16), 1, 0)),
        (c.CMD_PING, b""),
        (c.CMD_PEEK, mail.build_poll(0)),
    ]
    frames = [
        bytes(request(1, group, command, body, key=key).frame)
        for group, command, body in bodies
        for key in known.values()
    ]
    frames += [
        bytes(request(1, 6, command, identity + body, key=known[enc]).frame)
        for enc in (1, 2, 4, 5)
        for command, body in mails
    ]
    return world, frames


DAMAGE = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), max_size=5)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 10_000), DAMAGE, st.integers(-40, 40), st.booleans())
def test_damaged_frames_are_answered_or_refused(
    which: int, damage: list[tuple[int, int]], more: int, udp: bool
) -> None:
    world, frames = valid()
    frame = bytearray(frames[which % len(frames)])
    for at, value in damage:
        frame[at % len(frame)] = value
    frame = frame[:more] if more < 0 else frame + bytes(more)
    size, ignored = len(frame), len(frame) < 17 or frame[0] == 7
    node = world.cluster.nodes[1]
    outcome = (node.handle_datagram if udp else node.handle)(frame, NOW)
    if udp and ignored:
        assert outcome.reply is None
        return
    assert (outcome.reply is None) != (outcome.wait is None)
    if outcome.reply is not None:
        assert outcome.reply[2] not in (c.STATUS_INTERNAL, c.STATUS_FILESYSTEM)
        assert len(outcome.reply) >= 32
        if udp and frame[16] == 0:
            assert len(outcome.reply) <= 3 * size
    if outcome.changed:
        node.state.commit()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.booleans())
def test_arbitrary_bytes_are_answered_or_refused(data: bytes, udp: bool) -> None:
    world, _ = valid()
    node = world.cluster.nodes[1]
    outcome = (node.handle_datagram if udp else node.handle)(bytearray(data), NOW)
    assert outcome.reply is not None or udp
    assert not outcome.changed


def test_whole_frames_of_the_kit_are_sound() -> None:
    """Without damage nothing of the above is refused: otherwise it would test too little."""
    world, frames = valid.__wrapped__()  # what was seen once is refused
    node = world.cluster.nodes[1]
    for frame in frames:
        command = frame[4], frame[5]
        outcome = node.handle(bytearray(frame), NOW + 1)
        if outcome.reply is not None and command not in {(0, 2), (1, 10), (8, 83)}:
            assert outcome.reply[2] in (c.STATUS_SUCCESS, c.STATUS_FILE_NOT_EXIST), command
