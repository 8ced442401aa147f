"""codec.objects: every layout byte by byte, there and back, and whatever is not one of them refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import consts as c
from qmail_core.codec import objects as o
from qmail_core.codec.packet import Refused
from qmail_core.errors import LocalProtocolError, RemoteProtocolError

IDENTITY = bytes(range(32))
T, OID, L, H = b"T" * 16, b"O" * 16, b"LOCKER".ljust(16, b"\0"), b"H" * 32
HEAD = b"\1\0\0\0\0\0\0\0" + (77).to_bytes(8, "big")


def u(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


# what docs/protocol.md says, written out once more: widths in order
BEGIN = o.Begin(T, OID, L, 10, 3600, 1, 1, 0, bytes(7), 1 << 20, 5000, 2, 3, H)
REQUESTS: list[tuple[Callable[[memoryview], Any], o.Fields, bytes]] = [
    (
        o.parse_begin,
        BEGIN,
        T + OID + L + u(10, 1) + u(3600, 8) + u(1, 1) + u(1, 1) + u(0, 2) + bytes(7) + u(1 << 20, 4) + u(5000, 8)
        + u(2, 8) + u(3, 8) + H,
    ),
    (o.parse_inquiry, o.Inquiry(T, 9, 0, 256), T + u(9, 8) + u(0, 1) + u(256, 2)),
    (o.parse_commit, o.Commit(T, 5000, 1, H), T + u(5000, 8) + u(1, 1) + H),
    (o.parse_abort, o.Abort(T), T),
    (o.parse_info, o.Info(OID, 10, 3), OID + u(10, 1) + u(3, 8)),
    (o.parse_get_range, o.GetRange(OID, 10, 3, 7, 9), OID + u(10, 1) + u(3, 8) + u(7, 8) + u(9, 4)),
    (o.parse_delete, o.Delete(OID, 10, 3, 4), OID + u(10, 1) + u(3, 8) + u(4, 8)),
]  # fmt: skip
ANSWERS: list[tuple[o.Fields, bytes]] = [
    (
        o.Begun(T, 1 << 20, 16, 1, 0, 1, 2, 3, 4, 5),
        T + u(1 << 20, 4) + u(16, 2) + u(1, 1) + u(0, 1) + u(1, 2) + u(2, 8) + u(3, 8) + u(4, 8) + u(5, 8),
    ),
    (o.RangePut(T, 7, 9), T + u(7, 8) + u(9, 4)),
    (
        o.Committed(OID, 10, 1, 1, 1, 3, 5000, H),
        OID + u(10, 1) + u(1, 1) + u(1, 2) + u(1, 1) + u(3, 8) + u(5000, 8) + H,
    ),
    (
        o.Described(OID, 10, 1, 1, 1, 3, 5000, H, 1 << 20, 99),
        OID + u(10, 1) + u(1, 1) + u(1, 2) + u(1, 1) + u(3, 8) + u(5000, 8) + H + u(1 << 20, 4) + u(99, 8),
    ),
    (o.Tombstone(2, 4), u(2, 1) + u(4, 8)),
]


@pytest.mark.parametrize(("parse", "fields", "raw"), REQUESTS)
def test_requests(parse: Callable[[memoryview], Any], fields: o.Fields, raw: bytes) -> None:
    assert o.build_request(77, fields) == HEAD + raw
    whole = IDENTITY + HEAD + raw
    assert o.parse_head(memoryview(whole)) == 77
    assert parse(memoryview(whole)) == fields
    for wrong in (*(whole[:size] for size in range(len(whole))), whole + b"\0"):
        with pytest.raises(RemoteProtocolError):
            parse(memoryview(wrong))


def test_command_76_has_the_size_of_its_vector() -> None:
    # C.9.1: 194 bytes of body with challenge, identity and trailer
    assert 16 + 32 + len(o.build_request(77, BEGIN)) + 2 == 194


@pytest.mark.parametrize(("fields", "raw"), ANSWERS)
def test_answers(fields: o.Fields, raw: bytes) -> None:
    whole = o.build_answer(77, fields)
    assert whole == HEAD + raw
    assert o.parse_answer(type(fields), memoryview(whole), 77) == fields
    for wrong in (*(whole[:size] for size in range(len(whole))), whole + b"\0"):
        with pytest.raises(RemoteProtocolError):
            o.parse_answer(type(fields), memoryview(wrong), 77)
    with pytest.raises(RemoteProtocolError):
        o.parse_answer(type(fields), memoryview(whole), 78)


@given(data=st.binary(max_size=40))
def test_put_range(data: bytes) -> None:
    fields = o.PutRange(T, 7, len(data), 1, H)
    raw = T + u(7, 8) + u(len(data), 4) + u(1, 1) + H
    whole = IDENTITY + o.build_request(77, fields) + data
    assert whole == IDENTITY + HEAD + raw + data
    found, view = o.parse_put_range(memoryview(whole))
    assert (found, bytes(view)) == (fields, data)
    for wrong in (*(whole[:size] for size in range(len(whole))), whole + b"\0"):
        with pytest.raises(RemoteProtocolError):
            o.parse_put_range(memoryview(wrong))


@given(ranges=st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(1, 1 << 40)), max_size=5))
def test_progress(ranges: list[tuple[int, int]]) -> None:
    fields = o.Progress(T, 5000, 3, 1, len(ranges), 1, 42)
    raw = T + u(5000, 8) + u(3, 8) + u(1, 1) + u(len(ranges), 2) + u(1, 1) + u(42, 8)
    whole = o.build_answer(77, fields, o.build_ranges(ranges))
    assert whole == HEAD + raw + b"".join(u(at, 8) + u(size, 8) for at, size in ranges)
    assert o.parse_progress(memoryview(whole), 77) == (fields, ranges)
    for wrong in (*(whole[:size] for size in range(len(whole))), whole + b"\0"):
        with pytest.raises(RemoteProtocolError):
            o.parse_progress(memoryview(wrong), 77)


def test_range_got() -> None:
    fields = o.RangeGot(OID, 10, 1, 3, 7, 4, 5000, H)
    raw = OID + u(10, 1) + u(1, 1) + u(3, 8) + u(7, 8) + u(4, 4) + u(5000, 8) + H
    whole = o.build_answer(77, fields, b"data")
    assert whole == HEAD + raw + b"data"
    found, view = o.parse_range_got(memoryview(whole), 77)
    assert (found, bytes(view)) == (fields, b"data")
    beyond = o.build_answer(77, o.RangeGot(OID, 10, 1, 3, 4999, 4, 5000, H), b"data")
    for wrong in (*(whole[:size] for size in range(len(whole))), whole + b"\0", beyond):
        with pytest.raises(RemoteProtocolError):
            o.parse_range_got(memoryview(wrong), 77)


def test_capabilities() -> None:
    fields = o.Capabilities(1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2)
    raw = b"".join(
        u(value, size)
        for value, size in (
            (1, 2), (1, 1), (1, 1), (1, 1), (1, 4), (2, 4), (3, 4), (4, 4), (5, 4), (6, 2), (7, 8), (8, 8), (9, 8),
            (1, 1), (2, 2),
        )
    )  # fmt: skip
    classes = [o.StorageClass(n, 0, 0, 11, 12, 13, 14, 15) for n in (1, 2)]
    rows = [u(n, 2) + bytes(2) + u(11, 8) + u(12, 8) + u(13, 8) + u(14, 8) + u(15, 4) for n in (1, 2)]
    whole = o.build_answer(77, fields, *classes)
    assert whole == HEAD + raw + b"".join(rows)
    assert o.parse_capabilities(memoryview(whole), 77) == (fields, classes)
    for wrong in (*(whole[:size] for size in range(len(whole))), whole + b"\0"):
        with pytest.raises(RemoteProtocolError):
            o.parse_capabilities(memoryview(wrong), 77)
    o.parse_capabilities_request(memoryview(IDENTITY + HEAD))
    with pytest.raises(RemoteProtocolError):
        o.parse_capabilities_request(memoryview(IDENTITY + HEAD + b"\0"))


def test_an_answer_that_is_a_head_alone() -> None:
    o.parse_empty(memoryview(HEAD), 77)
    for wrong in (b"", HEAD[:-1], HEAD + b"\0"):
        with pytest.raises(RemoteProtocolError):
            o.parse_empty(memoryview(wrong), 77)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\2" + HEAD[1:], c.STATUS_PROTOCOL_UNSUPPORTED),
        (b"\1\1" + HEAD[2:], c.STATUS_INVALID_PARAMETER),
        (HEAD[:7] + b"\1" + HEAD[8:], c.STATUS_INVALID_PARAMETER),
        (HEAD[:8] + bytes(8), c.STATUS_INVALID_PARAMETER),
    ],
)
def test_heads_a_node_does_not_take(head: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        o.parse_head(memoryview(IDENTITY + head))
    assert refused.value.status == status


def test_what_is_not_sent() -> None:
    for request_id in (0, 1 << 64, -1):
        with pytest.raises(LocalProtocolError):
            o.build_head(request_id)
    with pytest.raises(LocalProtocolError):
        o.Info(OID, 256, 0).pack()


def test_a_locker_is_not_printed() -> None:
    assert "LOCKER" not in repr(BEGIN)
