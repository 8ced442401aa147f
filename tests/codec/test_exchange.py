"""The length rule of one exchange: known as early as possible, never wrong, never beyond what a node accepts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core.codec import consts as c
from qmail_core.codec import exchange, packet
from qmail_core.codec.cipher import NO_KEY, Key
from qmail_core.errors import RemoteProtocolError

KEYS = {
    c.ENC_NONE: NO_KEY,
    c.ENC_COIN: Key(c.ENC_COIN, bytes(16), bytes(5)),
    c.ENC_LOCKER: Key(c.ENC_LOCKER, bytes(16), bytes(5)),
    c.ENC_COIN256: Key(c.ENC_COIN256, bytes(32), bytes(5)),
    c.ENC_COINS256: Key(c.ENC_COINS256, bytes(32), bytes(10)),
}
entropy = random.Random(1).randbytes


def frame(enc: int, command: int, body: int) -> memoryview:
    batch = packet.Batch(c.GROUP_MAIL, command, [1], [KEYS[enc]], [bytes(body)], [b""])
    return memoryview(packet.pack(batch, entropy(batch.entropy_size()))[0].frame)


@pytest.mark.parametrize("enc", KEYS)
@pytest.mark.parametrize("command", [c.CMD_UPLOAD, c.CMD_UPLOAD_PAGE, 76, 84])
@pytest.mark.parametrize("body", [0, 1, 4096])
def test_a_requests_size_is_known_from_its_header(enc: int, command: int, body: int) -> None:
    whole = frame(enc, command, body)
    header = c.HEADER256_SIZE if enc >= c.ENC_COIN256 else c.HEADER_SIZE
    for seen in range(len(whole) + 1):
        found = exchange.request_size(whole[:seen])
        assert found == (len(whole) if seen >= header else None), seen


def test_a_long_page_is_measured_by_its_u32() -> None:
    whole = frame(c.ENC_COIN256, c.CMD_UPLOAD_PAGE, c.PAGE_SIZE)
    assert exchange.request_size(whole[:48]) == len(whole) > 0xFFFF


def test_a_request_may_announce_no_more_than_a_node_accepts() -> None:
    head = bytearray(frame(c.ENC_NONE, c.CMD_UPLOAD_PAGE, 0)[:32])
    head[10:14] = c.MAX_BODY.to_bytes(4, "big")
    assert exchange.request_size(memoryview(head)) == 32 + c.MAX_BODY
    head[10:14] = (c.MAX_BODY + 1).to_bytes(4, "big")
    with pytest.raises(RemoteProtocolError):
        exchange.request_size(memoryview(head))


@pytest.mark.parametrize("enc", [5, 6, 7, 255])
def test_unknown_encryption_types_have_the_long_header(enc: int) -> None:
    head = bytearray(frame(c.ENC_NONE, c.CMD_PEEK, 4)[:32])
    head[16] = enc
    assert exchange.request_size(memoryview(head)) is None
    assert exchange.request_size(memoryview(bytes(head).ljust(48, b"\0"))) is not None


@pytest.mark.parametrize("payload", [0, 2, 300, 262_188])
def test_an_answers_size_is_known_from_its_header(payload: int) -> None:
    head = bytearray(32)
    head[9:12] = payload.to_bytes(3, "big")
    for seen in range(32):
        assert exchange.reply_size(memoryview(head)[:seen], c.ENC_NONE) is None
    assert exchange.reply_size(memoryview(head), c.ENC_NONE) == 32 + payload
    # a type 4 request may be refused with a short header
    assert exchange.reply_size(memoryview(head), c.ENC_COIN256) == 32 + payload
    head[16] = c.ENC_COIN256
    assert exchange.reply_size(memoryview(head), c.ENC_COIN) == 32 + payload
    assert exchange.reply_size(memoryview(head), c.ENC_COIN256) is None
    assert exchange.reply_size(memoryview(bytes(head).ljust(48, b"\0")), c.ENC_COIN256) == 48 + payload


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(list(KEYS)), st.integers(0, 300), st.binary(max_size=20), st.integers(-60, 60), st.integers(0, 255)
)
def test_the_quick_cut_takes_what_the_rule_says(enc: int, size: int, behind: bytes, less: int, other: int) -> None:
    data = bytearray(frame(enc, c.CMD_DOWNLOAD, size)) + behind
    if other % 5 == 0:
        data[16] = other
    have = min(len(data), max(0, len(data) - abs(less)))
    wanted = exchange.request_size(memoryview(data)[:have])
    found = exchange.first_request(memoryview(data), have)
    if found is not None:
        assert found == data[:wanted]
    else:
        assert wanted is None or wanted > have or data[16] not in (0, 1, 2, 4, 5)


def test_the_quick_cut_leaves_oversized_frames_to_the_rule() -> None:
    whole = bytearray(frame(c.ENC_COIN256, c.CMD_UPLOAD_PAGE, c.PAGE_SIZE))
    assert exchange.first_request(memoryview(whole), len(whole)) == whole
    whole[10:14] = (c.MAX_BODY + 1).to_bytes(4, "big")
    assert exchange.first_request(memoryview(whole), len(whole)) is None
    with pytest.raises(ValueError, match="cannot be"):
        exchange.first_request(memoryview(whole), len(whole) + 1)


@pytest.mark.parametrize("enc", [c.ENC_NONE, c.ENC_COIN, c.ENC_COIN256])
def test_an_answer_is_known_by_its_echo(enc: int) -> None:
    long = enc == c.ENC_COIN256
    frame = bytearray(64)
    frame[16] = enc
    frame[46:48] = frame[30:32] = b"ok"
    answer = bytearray(48 if long else 32)
    answer[16:17] = bytes([enc]) if long else b"\0"
    answer[slice(46, 48) if long else slice(6, 8)] = b"ok"
    assert exchange.is_answer(memoryview(answer), frame)
    answer[slice(46, 48) if long else slice(6, 8)] = b"no"
    assert not exchange.is_answer(memoryview(answer), frame)
    assert exchange.is_answer(memoryview(bytes([3, 0, 7, 6, 0, 1]) + bytes(26)), frame)  # a header that was refused


def test_what_takes_its_time_is_not_brief() -> None:
    def frame(group: int, command: int, size: int = 200) -> bytes:
        return bytes([1, 0, 0, 0, group, command]).ljust(size, b"\0")

    assert exchange.is_brief(frame(c.GROUP_MAIL, c.CMD_PEEK))
    assert exchange.is_brief(frame(c.GROUP_STATUS, c.CMD_ECHO, exchange.BRIEF))
    assert not exchange.is_brief(frame(c.GROUP_STATUS, c.CMD_ECHO, exchange.BRIEF + 1))
    for command in (c.CMD_PING, c.CMD_OLD_PING, c.CMD_DOWNLOAD, c.CMD_OLD_DOWNLOAD, c.CMD_OBJECT_GET_RANGE):
        assert not exchange.is_brief(frame(c.GROUP_MAIL, command))
    assert not exchange.is_brief(frame(c.GROUP_HEALING, c.CMD_FIX))


@given(st.binary(max_size=120), st.sampled_from([c.ENC_NONE, c.ENC_COIN, c.ENC_LOCKER, c.ENC_COIN256, c.ENC_COINS256]))
def test_the_first_answer_is_as_long_as_it_says(data: bytes, enc: int) -> None:
    for sample in (data, data[:9] + b"\0\0" + data[11:]):
        size = exchange.reply_size(memoryview(sample), enc)
        whole = exchange.first_answer(bytearray(sample), len(sample), enc)
        if size is None or size > len(sample):
            assert whole is None
        else:
            assert bytes(whole or b"") == sample[:size]
    with pytest.raises(ValueError, match="cannot be in a buffer"):
        exchange.first_answer(bytearray(data), len(data) + 1, enc)
