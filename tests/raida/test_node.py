"""raida.node: header and body checks in order, every encryption type, and what failures turn into."""

from __future__ import annotations

import logging

import pytest

from qmail_core.codec import cipher, packet
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import Key
from qmail_core.errors import RemoteProtocolError, StoreUnavailable
from qmail_core.raida.node import Node, Policy
from qmail_core.raida.state import MemoryState

from .client import NOW, Peer, World, code, entropy, frame_of, opened, request


@pytest.fixture
def peer() -> Peer:
    world = World()
    return world.peer(world.ones[0])


def status_of(peer: Peer, frame: bytearray) -> int:
    reply = peer.node.handle(frame, NOW).reply
    assert reply is not None
    return reply[2]


@pytest.mark.parametrize(
    ("position", "value", "status"),
    [(0, 2, 255), (1, 1, 2), (2, 7, 3), (4, 17, 5), (3, 4, 4), (5, 99, 6), (7, 7, 7), (16, 3, 27), (16, 9, 27)],
)
def test_each_header_field_has_its_status(peer: Peer, position: int, value: int, status: int) -> None:
    frame = frame_of(request(1, 0, 0, bytes(40)))
    frame[position] = value
    outcome = peer.node.handle(frame, NOW)
    assert outcome.reply is not None
    assert outcome.reply[2] == status
    assert outcome.close
    assert not outcome.changed


def test_header_checks_run_in_the_documented_order(peer: Peer) -> None:
    frame = frame_of(request(1, 0, 0))
    faults = [(16, 3, 27), (7, 9, 7), (5, 99, 6), (3, 9, 4), (4, 17, 5), (2, 9, 3), (1, 9, 2), (0, 9, 255)]
    for position, value, status in faults:
        frame[position] = value
        assert status_of(peer, bytearray(frame)) == status


def test_byte_0_may_be_zero(peer: Peer) -> None:
    frame = frame_of(request(1, 0, 0))
    frame[0] = 0
    assert status_of(peer, frame) == c.STATUS_SUCCESS


def test_echo_matches_the_worked_example(peer: Peer) -> None:
    node = Node(11, MemoryState(), entropy=entropy, timer=iter([1.0, 1.000007]).__next__)
    frame = bytearray.fromhex("01000b00000000060000000000000000000000000000001200000000000011220001020304050607")
    frame += bytes.fromhex("08090a0b9270c9653e3e")
    reply = node.handle(frame, NOW).reply
    assert reply is not None
    assert reply.hex() == "0b00fa00000111220000000000000007000102030405060708090a0b9270c965"


@pytest.mark.parametrize("enc", [c.ENC_NONE, c.ENC_COIN, c.ENC_COIN256])
def test_echo_and_version_under_every_coin_encryption(peer: Peer, enc: int) -> None:
    key = cipher.coin_key(enc, peer.coin, 1) if enc else cipher.NO_KEY
    assert peer.ask(0, c.CMD_ECHO, b"extra", key=key).status == c.STATUS_SUCCESS
    version = peer.ask(0, c.CMD_VERSION, key=key)
    assert (version.status, bytes(version.payload)) == (c.STATUS_SUCCESS, b"Q261121F")


def test_a_locker_key_encrypts_while_the_locker_is_filled(peer: Peer) -> None:
    world = World()
    peer = world.peer(world.ones[0])
    secret = cipher.locker_key(b"ABC-1234", 1)
    key = Key(c.ENC_LOCKER, secret, secret[:5])
    sent = request(1, 0, c.CMD_VERSION, key=key)
    assert peer.node.handle(frame_of(sent), NOW).reply[2] == c.STATUS_INVALID_ENCRYPTION  # type: ignore[index]
    assert peer.put([world.tens[0]], code("ABC-1234")) == c.STATUS_ALL_PASS
    assert bytes(peer.ask(0, c.CMD_VERSION, key=key).payload) == b"Q261121F"


def test_a_coin_nobody_knows_cannot_encrypt(peer: Peer) -> None:
    stranger = Key(c.ENC_COIN, bytes(16), b"\0\0\0\xff\xff")
    assert status_of(peer, frame_of(request(1, 0, 0, key=stranger))) == c.STATUS_INVALID_ENCRYPTION
    stranger = Key(c.ENC_COIN256, bytes(32), b"\0\0\0\xff\xff")
    assert status_of(peer, frame_of(request(1, 0, 0, key=stranger))) == c.STATUS_KEY_COIN_NOT_FOUND


def test_a_wrong_key_is_noticed(peer: Peer) -> None:
    wrong = Key(c.ENC_COIN, b"x" * 16, peer.key.selector)
    assert status_of(peer, frame_of(request(1, 0, 0, key=wrong))) == c.STATUS_INVALID_CRC
    wrong = Key(c.ENC_COIN256, b"x" * 32, peer.key.selector)
    assert status_of(peer, frame_of(request(1, 0, 0, key=wrong))) == c.STATUS_INVALID_HMAC


def test_group_6_needs_encryption(peer: Peer) -> None:
    frame = frame_of(request(1, c.GROUP_MAIL, c.CMD_PEEK, peer.identity + bytes(4)))
    assert status_of(peer, frame) == c.STATUS_INVALID_ENCRYPTION


def test_a_missing_trailer_closes_the_connection(peer: Peer) -> None:
    frame = frame_of(request(1, 0, 0))
    frame[-1] = 0
    outcome = peer.node.handle(frame, NOW)
    assert outcome.reply is not None
    assert outcome.reply[2] == c.STATUS_NO_TRAILER
    assert outcome.close


def announced(peer: Peer, group: int, command: int, size: int) -> bytearray:
    frame = frame_of(request(1, group, command))[: 32 + size]
    frame[22:24] = size.to_bytes(2, "big")
    return frame


def test_an_empty_body(peer: Peer) -> None:
    assert status_of(peer, announced(peer, 0, c.CMD_ECHO, 0)) == c.STATUS_SUCCESS
    assert status_of(peer, announced(peer, 0, c.CMD_VERSION, 0)) == c.STATUS_EMPTY_BODY
    assert status_of(peer, announced(peer, 0, c.CMD_ECHO, 1)) == c.STATUS_PACKET_LENGTH


def test_every_truncation_of_a_request_is_refused(peer: Peer) -> None:
    for enc in (c.ENC_NONE, c.ENC_COIN, c.ENC_COIN256):
        key = cipher.coin_key(enc, peer.coin, 1) if enc else cipher.NO_KEY
        whole = frame_of(request(1, 0, c.CMD_VERSION, key=key))
        for size in range(len(whole)):
            assert status_of(peer, whole[:size]) in (c.STATUS_PACKET_LENGTH, 255, 3, 5, 7)


def test_random_frames_never_raise(peer: Peer) -> None:
    for _ in range(3000):
        frame = bytearray(entropy(80))
        frame[:3] = b"\1\0\1"
        frame[3], frame[6:8] = 0, c.COIN_ID
        frame[4] %= 9
        frame[5] = frame[5] % 20 + 70
        frame[16] %= 6
        assert peer.node.handle(frame, NOW).reply is not None


def test_malformed_payloads_of_every_command_are_refused_politely(peer: Peer) -> None:
    cases = [(1, 10), (8, 82), (8, 83), (8, 84), (8, 88), (6, 70), (6, 71), (6, 72), (6, 73), (6, 74), (6, 75)]
    for group, command in cases:
        for size in (0, 1, 15, 31, 38, 70):
            body = (peer.identity if group == 6 else b"") + bytes(size)
            if (command, size) in {(72, 0), (72, 1)}:
                continue  # a whole ping
            reply = peer.ask(group, command, body, key=peer.key)
            assert reply.status in (16, 39, 198, 199, 242, 169, 202), (command, size, reply.status)


class Broken(MemoryState):
    """A state whose medium fails on demand."""

    error: Exception | None = None

    def an(self, selector: bytes) -> bytes | None:
        if self.error:
            raise self.error
        return super().an(selector)


def test_a_failing_medium_becomes_194_and_a_bug_252(caplog: pytest.LogCaptureFixture) -> None:
    state = Broken()
    peer = Peer(Node(1, state, entropy=entropy), World().ones[0])
    state.set_ans([(b"\0\0\0\0\1", b"k" * 16)])
    state.commit()
    body = b"\0\0\0\0\1" + b"k" * 16
    state.error = StoreUnavailable("disk on fire")
    assert peer.ask(1, c.CMD_DETECT, body).status == c.STATUS_FILESYSTEM
    assert status_of(peer, frame_of(request(1, 0, 0, key=peer.key))) == c.STATUS_FILESYSTEM
    state.error = RuntimeError("bug")
    with caplog.at_level(logging.ERROR, "qmail.raida"):
        assert peer.ask(1, c.CMD_DETECT, body).status == c.STATUS_INTERNAL
    assert "Traceback" in caplog.text
    state.error = None
    assert peer.ask(1, c.CMD_DETECT, body).status == c.STATUS_ALL_PASS


def test_a_failed_request_leaves_the_changes_of_others() -> None:
    world = World()
    peer = world.peer(world.ones[0])
    first = request(1, 8, 82, _put_body(world), key=peer.key)
    assert opened(first, peer.node.handle(frame_of(first), NOW)).status == c.STATUS_ALL_PASS
    assert peer.ask(8, 82, b"\0" * 37).status == c.STATUS_INVALID_PAN  # undone; commits what was before
    peer.node.state.rollback()
    assert len(peer.node.state.locker(cipher.locker_key(b"A", 1))) == 1


def _put_body(world: World) -> bytes:
    from qmail_core.codec.lockers import build_put

    return build_put(world.tens[:1], cipher.locker_key(b"A", 1), 1)


def test_fail_answers_the_same_request_with_another_status(peer: Peer) -> None:
    sent = request(1, 0, c.CMD_VERSION, key=peer.key)
    outcome = peer.node.handle(frame_of(sent), NOW)
    assert opened(sent, peer.node.fail(outcome, c.STATUS_FILESYSTEM)).status == c.STATUS_FILESYSTEM
    refused = peer.node.handle(bytearray(3), NOW)
    assert peer.node.fail(refused, c.STATUS_FILESYSTEM) is refused


def test_an_answer_is_for_one_request_only(peer: Peer) -> None:
    key = cipher.coin_key(c.ENC_COIN, peer.coin, 1)
    sent, other = request(1, 0, 0, key=key), request(1, 0, 0, key=key)
    outcome = peer.node.handle(frame_of(sent), NOW)
    with pytest.raises(RemoteProtocolError):
        opened(other, outcome)


def test_policy_defaults() -> None:
    policy = Policy()
    assert (policy.storage_fee, policy.inbox_fee, policy.redeliver_times) == (1, 10, 3)
    assert packet.ENTROPY_LONG == 36
