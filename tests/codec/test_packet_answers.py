"""Frames of both ends: answers against the slow oracle, and arbitrary bytes against every parser."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmail_core import _framing as fr
from qmail_core.codec import consts as c
from qmail_core.codec import packet
from qmail_core.codec.cipher import Key
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from tests.fuzz import fuzz_frame
from tests.reference import framing as slow

AN = bytes(range(0x30, 0x40))
STATUSES = (0, 241, 250, 1, 33, 64, 255)


class Keys:
    def coin_an(self, selector: bytes) -> bytes | None:
        return AN

    def locker_an(self, prefix: bytes) -> bytes | None:
        return AN


def exchange(enc: int, status: int, payload: bytes, seed: int = 1) -> tuple[packet.Sent, bytearray]:
    """A request and what a node answers to it."""
    rng = random.Random(seed)
    secrets = {0: b"", 4: hashlib.sha256(AN).digest(), 5: hashlib.sha256(AN + AN).digest()}
    key = Key(enc, secrets.get(enc, AN), bytes(10 if enc == 5 else 5))
    batch = packet.Batch(6, 70, [11], [key], [b"head"], [b"tail"])
    (sent,) = packet.pack(batch, rng.randbytes(batch.entropy_size()))
    view = memoryview(bytearray(sent.frame))
    request = packet.open_request(view, packet.read_header(view), Keys())
    assert bytes(request.payload) == b"headtail"
    return sent, packet.build_reply(request, status, payload, 123_456, rng.randbytes(16))


def opened(sent: packet.Sent, frame: bytes | bytearray) -> tuple[int, int, bytes] | None:
    """The answer as the product sees it, in memory of its exact size."""
    answer = bytearray(frame)
    try:
        reply = packet.open_reply(sent, memoryview(answer))
    except RemoteProtocolError:
        assert answer == frame, "an answer that is refused stays as it came"
        return None
    return reply.status, reply.execution_us, bytes(reply.payload)


@pytest.fixture(params=["openssl", "vaes512"])
def aes(request: pytest.FixtureRequest) -> Any:
    fr._select("aes", request.param)
    yield
    fr._select("aes", "vaes512")


@pytest.mark.parametrize("enc", [0, 1, 2, 4])
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1024, 20_000])
def test_answers_come_back(aes: None, enc: int, status: int, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    sent, frame = exchange(enc, status, payload)
    assert opened(sent, frame) == slow.unpack(bytes(frame), 11, enc, sent.key.secret, sent.draw)
    assert opened(sent, frame) == (status, 123_456, payload)


@pytest.mark.parametrize("enc", [0, 1, 4])
@pytest.mark.parametrize("size", [0, 40])
def test_every_flipped_bit_and_every_truncation(enc: int, size: int) -> None:
    for status in (250, 33):
        sent, frame = exchange(enc, status, bytes(size))
        for bit in range(8 * len(frame)):
            wrong = bytearray(frame)
            wrong[bit // 8] ^= 1 << bit % 8
            assert opened(sent, wrong) == slow.unpack(bytes(wrong), 11, enc, sent.key.secret, sent.draw)
        for end in range(len(frame)):
            assert opened(sent, frame[:end]) == slow.unpack(bytes(frame[:end]), 11, enc, sent.key.secret, sent.draw)
        assert opened(sent, frame + b"x") is None


def test_only_the_answer_to_this_request_is_taken() -> None:
    for enc in (0, 1, 4, 5):
        sent, frame = exchange(enc, 250, b"payload")
        foreign = packet.Sent(12, sent.frame, sent.key, sent.draw)
        with pytest.raises(RemoteProtocolError, match="node 12 answered as node 11"):
            packet.open_reply(foreign, memoryview(bytearray(frame)))
        other, _ = exchange(enc, 250, b"payload", seed=2)
        assert opened(sent, frame) is not None
        assert opened(other, frame) is None


def test_a_refusal_before_the_key_was_known() -> None:
    sent, _ = exchange(4, 250, b"")
    header = packet.Header(11, 6, 70, 0, bytes(5), 0, bytes(8), bytes(2))
    assert opened(sent, packet.build_refusal(header, 34, echo=True)) == (34, 0, b"")
    assert opened(sent, packet.build_refusal(header, 250, echo=True)) is None


def test_statuses_of_success_are_the_same_in_c() -> None:
    for status in range(256):
        _, frame = exchange(0, status, b"")
        frame[16] ^= 1
        sent, _ = exchange(0, status, b"")
        assert (opened(sent, frame) is None) == (status in c.SUCCESSES)


def test_unpack_refuses_wrong_arguments() -> None:
    frame = memoryview(bytearray(32))
    with pytest.raises(ValueError, match="enc must be"):
        fr.unpack(frame, 0, 3, b"", bytes(20))
    with pytest.raises(ValueError, match="draw must be 20"):
        fr.unpack(frame, 0, 0, b"", bytes(36))
    with pytest.raises(ValueError, match="draw must be 36"):
        fr.unpack(frame, 0, 4, bytes(32), bytes(20))
    with pytest.raises(ValueError, match="key must be 16"):
        fr.unpack(frame, 0, 1, bytes(32), bytes(20))
    with pytest.raises(BufferError):
        fr.unpack(memoryview(bytes(32)), 0, 0, b"", bytes(20))


def test_a_body_that_does_not_fit_is_ours_to_refuse() -> None:
    key = Key(1, AN, bytes(5))
    batch = packet.Batch(6, 70, [1], [key], [b""], [bytes(65536)])
    with pytest.raises(LocalProtocolError, match="above the limit"):
        packet.pack(batch, bytes(20))


def examples() -> list[bytes]:
    """Whole requests and answers of every type."""
    pairs = [exchange(enc, *kind) for enc in (0, 1, 2, 4, 5) for kind in ((250, b"x" * 30), (33, b""))]
    return [bytes(frame) for sent, answer in pairs for frame in (sent.frame, answer)]


DAMAGE = st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), max_size=6)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    fuzz_frame.parse(data)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(examples()), DAMAGE, st.integers(0, 127))
def test_frames_with_damage_raise_nothing_else(frame: bytes, damage: list[tuple[int, int]], end: int) -> None:
    data = bytearray(frame)
    for at, value in damage:
        data[at % len(data)] = value
    fuzz_frame.parse(bytes(data))
    fuzz_frame.parse(bytes(data[: end % (len(data) + 1)]))
