"""One conformance suite over both states of a node, and what only the one on disk must survive."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from qmail_core.errors import StoreUnavailable
from qmail_core.model import StoredObject, Transfer
from qmail_core.raida.state import MemoryClaim, MemoryState, NodeState
from qmail_core.store.node import BLOB_LIMIT, NodeStore

GUID = bytes(range(16))
BOX, ME = b"\0\0\0\0\1", b"\0\0\0\0\2"
LOCKER = b"0123456789ab\xff\xff\xff\xff"
LARGE = b"L" * (BLOB_LIMIT + 1)


class Kit:
    """A state, and a way to see what is left of it after a crash."""

    def __init__(self, state: NodeState, crash: Callable[[], NodeState]) -> None:
        self.state = state
        self.crash = crash


@pytest.fixture(params=["memory", "disk"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    opened: list[NodeState] = []
    if request.param == "memory":
        state: NodeState = MemoryState()

        def crash() -> NodeState:
            state.rollback()
            return state
    else:
        state = NodeStore(tmp_path / "node")

        def crash() -> NodeState:
            # what the medium holds at this moment is what a new process would find
            copy = tmp_path / f"crashed{len(opened)}"
            shutil.copytree(tmp_path / "node", copy)
            opened.append(NodeStore(copy))
            return opened[-1]

    yield Kit(state, crash)
    for each in [state, *opened]:
        each.close()


@pytest.fixture
def state(kit: Kit) -> NodeState:
    return kit.state


def test_coins(state: NodeState) -> None:
    assert state.an(ME) is None
    state.set_ans([(ME, b"a" * 16), (BOX, b"b" * 16)])
    state.set_ans([(ME, b"c" * 16)])
    state.set_ans([])
    assert (state.an(ME), state.an(BOX)) == (b"c" * 16, b"b" * 16)


def test_coins_that_cease_to_exist(kit: Kit) -> None:
    state = kit.state
    state.set_ans([(ME, b"a" * 16), (BOX, LOCKER)])
    state.commit()
    state.drop_coins([ME, BOX, b"other"])
    assert (state.an(ME), state.an(BOX), state.locker(LOCKER)) == (None, None, [])
    state.rollback()
    assert (state.an(ME), state.locker(LOCKER)) == (b"a" * 16, [BOX])
    state.drop_coins([ME, BOX])
    state.commit()
    after = kit.crash()
    assert (after.an(ME), after.locker(LOCKER)) == (None, [])
    after.set_ans([(BOX, LOCKER)])
    assert after.locker(LOCKER) == [BOX]


def test_which_coins_are_held(state: NodeState) -> None:
    known = [b"\0\0\0\1\0", b"\0\0\0\1\5", b"\0\0\0\2\0", b"\xff\0\0\1\5"]
    state.set_ans((selector, b"x" * 16) for selector in known)
    assert state.held(b"\0\0\0\1\0", b"\0\0\0\1\xff") == known[:2]
    assert state.held(b"\0\0\0\1\1", b"\0\0\0\2\0") == known[1:3]
    assert state.held(b"\xff\0\0\0\0", b"\xff\0\0\xff\xff") == known[3:]
    assert state.held(b"\1\0\0\0\0", b"\1\0\0\0\xff") == []


def test_claims(kit: Kit) -> None:
    state = kit.state
    pay, other = b"p" * 16, b"q" * 16
    claims = [MemoryClaim(pay, node, bytes((node,)) * 16, b"c" * 21) for node in (2, 0, 1)]
    state.add_claims([*claims, MemoryClaim(other, 0, b"k" * 16, b"d" * 42)])
    state.commit()
    state = kit.crash()
    due = state.claims_due(5.0, 10)
    assert [(claim.payment, claim.node) for claim in due] == [(pay, 0), (pay, 1), (pay, 2), (other, 0)]
    assert (due[3].key, due[3].coins) == (b"k" * 16, b"d" * 42)
    assert "kkk" not in repr(due[3])
    assert [claim.node for claim in state.claims_due(5.0, 2)] == [0, 1]
    assert state.claimed() == []
    state.postpone_claim(due[0], 9.0)
    state.end_claim(due[1], b"t" * 21)
    state.end_claim(due[2], b"")
    assert [(claim.payment, claim.node) for claim in state.claims_due(5.0, 10)] == [(other, 0)]
    assert [(claim.payment, claim.node) for claim in state.claims_due(9.0, 10)] == [(other, 0), (pay, 0)]
    assert state.claimed() == [(1, b"t" * 21)]
    state.rollback()
    assert len(state.claims_due(5.0, 10)) == 4


def test_lockers(state: NodeState) -> None:
    assert state.locker(LOCKER) == []
    state.set_ans([(BOX, LOCKER), (b"\xff\0\0\0\1", LOCKER), (ME, b"same".ljust(16))])
    assert state.locker(LOCKER) == [BOX, b"\xff\0\0\0\1"]
    assert state.locker(b"same".ljust(16)) == []
    assert state.locker_by_prefix(LOCKER[:5]) == LOCKER
    assert state.locker_by_prefix(b"same ") is None
    state.set_ans([(BOX, b"x" * 16), (b"\xff\0\0\0\1", b"y" * 16)])
    assert state.locker(LOCKER) == []
    assert state.locker_by_prefix(LOCKER[:5]) is None


def test_the_lowest_locker_of_a_prefix(state: NodeState) -> None:
    higher = LOCKER[:11] + b"z" + LOCKER[12:]
    state.set_ans([(BOX, higher), (ME, LOCKER)])
    assert state.locker_by_prefix(LOCKER[:5]) == LOCKER


def test_earned_coins(state: NodeState) -> None:
    state.earn([(ME, b"e" * 16), (BOX, b"f" * 16)])
    assert state.earned() == [(BOX, b"f" * 16), (ME, b"e" * 16)]
    state.set_ans([(BOX, b"g" * 16)])
    assert state.earned() == [(ME, b"e" * 16)]
    assert state.an(ME) == b"e" * 16


@pytest.mark.parametrize("first", [b"small", LARGE, b""])
@pytest.mark.parametrize("second", [b"other", LARGE + b"2", b""])
def test_pages(kit: Kit, first: bytes, second: bytes) -> None:
    state = kit.state
    assert state.page(GUID, 1, 0) is None
    buffer = bytearray(first)
    state.put_page(GUID, 1, 0, memoryview(buffer), 1.0, None)
    assert state.page(GUID, 1, 0) == first
    state.commit()
    buffer[:] = bytes(len(buffer))
    assert state.page(GUID, 1, 0) == first
    state.put_page(GUID, 1, 0, second, 2.0, 99.0)
    state.put_page(GUID, 1, 1, LARGE, 2.0, 99.0)
    assert state.page(GUID, 1, 0) == second
    assert kit.crash().page(GUID, 1, 0) == first
    state.rollback()
    assert (state.page(GUID, 1, 0), state.page(GUID, 1, 1)) == (first, None)
    state.put_page(GUID, 1, 0, second, 2.0, 99.0)
    state.commit()
    assert kit.crash().page(GUID, 1, 0) == second


def test_dropping_a_mail(kit: Kit) -> None:
    state = kit.state
    state.put_page(GUID, 1, 0, b"x", 1.0, None)
    state.put_page(GUID, 10, 5, LARGE, 1.0, None)
    state.claim(GUID, ME)
    state.commit()
    state.drop(GUID)
    assert state.page(GUID, 10, 5) is None
    state.rollback()
    assert state.page(GUID, 10, 5) == LARGE
    state.drop(GUID)
    state.commit()
    after = kit.crash()
    assert (after.page(GUID, 1, 0), after.page(GUID, 10, 5), after.owner(GUID)) == (None, None, ME)


def test_owners_and_payments(state: NodeState) -> None:
    assert state.owner(GUID) is None
    state.claim(GUID, ME)
    state.claim(GUID, BOX)
    assert state.owner(GUID) == ME
    assert state.paid(GUID, 0) is None
    state.record_payment(GUID, 0, LOCKER, 3)
    assert (state.paid(GUID, 0), state.paid(GUID, 10)) == (LOCKER, None)


def test_tells(state: NodeState) -> None:
    for number, arrived in ((b"1", 10.0), (b"2", 20.0), (b"3", 30.0)):
        state.add_tell(BOX, number, b"record" + number, arrived)
    state.add_tell(BOX, b"1", b"another", 40.0)
    assert [record for _, record, _ in state.tells(BOX, 0, 0, 9)] == [b"record1", b"record2", b"record3"]
    assert [record for _, record, _ in state.tells(BOX, 10, 0, 9)] == [b"record2", b"record3"]
    assert len(state.tells(BOX, 0, 0, 2)) == 2
    assert state.tells(ME, 0, 0, 9) == []
    assert (state.has_tell(BOX, b"1"), state.has_tell(ME, b"1"), state.pending_tells(BOX)) == (True, False, 3)


def test_served_and_forgotten_tells(state: NodeState) -> None:
    state.add_tell(BOX, b"1", b"record", 10.0)
    ((tell_id, _, served),) = state.tells(BOX, 0, 0, 9)
    assert served == 0
    state.tells_served([tell_id], 100.0)
    assert state.tells(BOX, 0, 99.0, 9) == []
    assert state.tells(BOX, 0, 100.0, 9) == [(tell_id, b"record", 1)]
    state.forget_tells([tell_id])
    assert state.tells(BOX, 0, 1e12, 9) == []
    state.add_tell(BOX, b"1", b"record", 200.0)
    assert state.tells(BOX, 0, 1e12, 9) == []
    assert (state.has_tell(BOX, b"1"), state.pending_tells(BOX)) == (True, 0)
    state.tells_served([], 0)
    state.forget_tells([])


def mailbox(serial: int) -> bytes:
    return b"\1" + serial.to_bytes(4, "big")


def test_users(state: NodeState) -> None:
    assert state.user(BOX) is None
    state.put_user(BOX, b"record", b"alice", b"smith")
    state.put_user(BOX, b"changed", b"alicia", b"smith")
    assert state.user(BOX) == b"changed"
    assert state.find_users(b"alice", None, 9) == []
    assert state.find_users(b"ali", b"smith", 9) == [b"changed"]
    state.remove_user(BOX)
    state.remove_user(ME)
    assert (state.user(BOX), state.find_users(None, b"", 9)) == (None, [])


def slowly(people: dict[bytes, tuple[bytes, bytes]], first: bytes | None, last: bytes | None) -> list[bytes]:
    """The obvious search."""
    by_last = first is None or (last is not None and len(last) > len(first))
    found = [
        ((names[::-1] if by_last else names), key)
        for key, names in people.items()
        if names[0].startswith(first or b"") and names[1].startswith(last or b"")
    ]
    return [key for _, key in sorted(found)]


NAMES = ["", "a", "al", "alice", "b", "bo", "z", "\u00e9", "\u00e9mile", "\U0010ffff"]


def test_searches_find_what_a_look_at_everybody_finds(kit: Kit) -> None:
    draw = random.Random(5)
    state, people = kit.state, {}
    for serial in range(120):
        names = draw.choice(NAMES).encode(), draw.choice(NAMES).encode()
        people[mailbox(serial)] = names
        state.put_user(mailbox(serial), mailbox(serial), *names)
    state.commit()
    for serial in range(0, 120, 3):  # changes that come to nothing leave the index as it was
        state.put_user(mailbox(serial), b"other", b"al", b"other")
        state.remove_user(mailbox(serial + 1))
    state.rollback()
    prefixes = [None, *(name.encode() for name in NAMES)]
    for first in prefixes:
        for last in prefixes:
            expected = slowly(people, first, last)
            assert state.find_users(first, last, 1000) == expected
            assert state.find_users(first, last, 3) == expected[:3]


@pytest.mark.parametrize("names", [(b"a", None), (None, b"a"), (b"a", b"b"), (b"a", b"bo")])
def test_a_search_on_disk_reads_an_index(tmp_path: Path, names: tuple[bytes | None, bytes | None]) -> None:
    store = NodeStore(tmp_path / "node")
    asked: list[str] = []
    store._db.set_trace_callback(asked.append)
    store.find_users(*names, 9)
    store._db.set_trace_callback(None)
    plan = [row[3] for row in store._rows(f"EXPLAIN QUERY PLAN {asked[0]}")]
    lead = "first" if names[1] is None or names[1] == b"b" else "last"
    assert any(line.startswith(f"SEARCH users USING COVERING INDEX users_{lead}") for line in plan), plan
    assert not any(line.startswith("SCAN users") for line in plan), plan
    store.close()


def test_lists(state: NodeState) -> None:
    assert (state.listed(BOX, ME), state.list_entries(BOX)) == (None, [])
    state.set_listed(BOX, [(ME, 1), (BOX, 0)])
    state.set_listed(BOX, [(ME, 0)])
    assert (state.listed(BOX, ME), state.listed(ME, BOX)) == (0, None)
    assert state.list_entries(BOX) == [(BOX, 0), (ME, 0)]
    state.set_listed(BOX, [(ME, None), (mailbox(9), None)])
    assert (state.listed(BOX, ME), state.list_entries(BOX)) == (None, [(BOX, 0)])


def test_master_keys(state: NodeState) -> None:
    assert state.master_key(b"server", 1) is None
    state.set_master_key(b"server", 1, b"secret")
    state.set_master_key(b"server", 1, b"newer")
    assert (state.master_key(b"server", 1), state.master_key(b"server", 2)) == (b"newer", None)


TRANSFER = Transfer(
    id=b"T" * 16, owner=ME, object_id=GUID, file_type=10, fingerprint=b"f" * 32, operation=0, chunk=9, total_size=90,
    expected_generation=0, target_generation=(1 << 64) - 1, object_hash=b"h" * 32, retention=7, storage_class=1,
    expires_at=50, state=1, held=True, due=50.0,
)  # fmt: skip
OBJECT = StoredObject(
    id=GUID, file_type=10, owner=ME, state=1, generation=(1 << 64) - 1, transfer=TRANSFER.id, total_size=90,
    object_hash=b"h" * 32, storage_class=1, expires_at=50,
)  # fmt: skip


def test_transfers(state: NodeState) -> None:
    assert state.transfer(TRANSFER.id) is None
    assert (state.objects_held(None), state.due_transfers(1e9, 9)) == ((0, 0, 0), [])
    state.put_transfer(TRANSFER)
    other = replace(TRANSFER, id=b"U" * 16, owner=BOX, state=2, due=20.0)
    ended = replace(TRANSFER, id=b"V" * 16, state=3, held=False, due=30.0)
    for row in (other, ended):
        state.put_transfer(row)
    assert (state.transfer(TRANSFER.id), state.transfer(ended.id)) == (TRANSFER, ended)
    assert (state.objects_held(None), state.objects_held(ME), state.objects_held(GUID[:5])) == (
        (1, 2, 180),
        (1, 1, 90),
        (0, 0, 0),
    )
    assert state.due_transfers(50.0, 9) == [other, ended, TRANSFER]
    assert state.due_transfers(49.0, 1) == [other]
    assert state.opened_for(GUID, 10, 49.0)
    assert not state.opened_for(GUID, 10, 50.0)
    assert not state.opened_for(GUID, 11, 0.0)
    state.put_transfer(replace(TRANSFER, state=2))
    assert not state.opened_for(GUID, 10, 0.0)
    state.forget_transfer(ended.id)
    assert state.transfer(ended.id) is None


def test_stored_objects(state: NodeState) -> None:
    assert state.stored_object(GUID, 10) is None
    state.put_stored_object(OBJECT)
    assert (state.stored_object(GUID, 10), state.stored_object(GUID, 11)) == (OBJECT, None)
    state.put_stored_object(replace(OBJECT, state=2))
    assert state.stored_object(GUID, 10) == replace(OBJECT, state=2)


def test_spans(kit: Kit) -> None:
    state = kit.state
    for offset, data in ((20, b"cc"), (10, b"a"), (22, b"ddd"), (11, b"b"), (40, b""), (30, b"e")):
        buffer = bytearray(data)
        state.write_span(GUID, offset, memoryview(buffer))
        if offset == 11:
            state.commit()
            buffer[:] = bytes(len(buffer))
    assert state.spans(GUID, 0, 99) == [(10, 12), (20, 25), (30, 31)]
    assert state.spans(GUID, 11, 22) == [(11, 12), (20, 22)]
    assert state.spans(GUID, 0, 99, 1) == [(10, 12)]
    assert (state.spans(GUID, 12, 20), state.spans(GUID, 31, 99), state.spans(ME, 0, 99)) == ([], [], [])
    state.write_span(GUID, 12, b"........")
    assert state.spans(GUID, 0, 99) == [(10, 25), (30, 31)]
    assert (state.read_span(GUID, 11, 12), state.read_span(GUID, 5, 0)) == (b"b........ccd", b"")
    state.commit()
    state.drop_spans(GUID)
    state.drop_spans(ME)
    assert state.spans(GUID, 0, 99) == []
    state.rollback()
    assert state.read_span(GUID, 22, 3) == b"ddd"
    state.mark()
    state.write_span(GUID, 25, b"xx")
    state.undo()
    assert kit.crash().spans(GUID, 0, 99) == [(10, 25), (30, 31)]
    state.drop_spans(GUID)
    state.commit()
    assert kit.crash().spans(GUID, 0, 99) == []


def test_coins_by_denomination(state: NodeState) -> None:
    assert state.denominations() == {}
    state.set_ans([(BOX, b"a" * 16), (ME, b"b" * 16), (b"\xff\0\0\0\1", b"c" * 16)])
    state.set_ans([(ME, b"d" * 16)])
    assert state.denominations() == {0: 2, -1: 1}


def test_a_number_read_before_a_change_is_not_what_is_read_after(kit: Kit) -> None:
    state = kit.state
    state.set_ans([(ME, b"1" * 16)])
    state.commit()
    assert state.an(ME) == b"1" * 16
    state.mark()
    state.set_ans([(ME, b"2" * 16)])
    assert state.an(ME) == b"2" * 16
    state.undo()
    assert state.an(ME) == b"1" * 16
    state.set_ans([(ME, b"3" * 16)])
    assert state.an(ME) == b"3" * 16
    state.rollback()
    assert state.an(ME) == b"1" * 16


# ------------------------------------------------------------------------------------------------------------------
# what is past its time

OTHER = bytes(range(1, 17))


def test_a_page_is_gone_when_its_time_is_over(state: NodeState) -> None:
    state.put_page(GUID, 1, 0, b"short", 1.0, 100.0)
    state.put_page(GUID, 1, 1, LARGE, 1.0, None)
    assert state.page(GUID, 1, 0, 99.9) == b"short"
    assert state.page(GUID, 1, 0, 100.0) is None
    assert state.page(GUID, 1, 1, 1e12) == LARGE
    state.put_page(GUID, 1, 0, b"again", 101.0, 200.0)
    assert state.page(GUID, 1, 0, 150.0) == b"again"


def store_for(state: NodeState, guid: bytes, expires: float | None, *pages: bytes) -> None:
    for number, data in enumerate(pages):
        state.put_page(guid, 1, number, data, 1.0, expires)
    state.claim(guid, ME)
    state.record_payment(guid, 0, LOCKER, 1)


def test_sweeping_takes_pages_and_with_the_last_one_everything(kit: Kit) -> None:
    state = kit.state
    store_for(state, GUID, 100.0, b"small", LARGE, b"")
    store_for(state, OTHER, 100.0, LARGE)
    state.put_page(OTHER, 10, 0, b"stays", 1.0, None)
    state.commit()
    assert state.sweep_pages(99.0, 10) == 0
    assert not state.dirty()
    assert state.sweep_pages(100.0, 10) == 4
    state.rollback()
    assert (state.page(GUID, 1, 1), state.owner(GUID), state.paid(GUID, 0)) == (LARGE, ME, LOCKER)
    assert state.sweep_pages(100.0, 10) == 4
    state.commit()
    after = kit.crash()
    assert [after.page(GUID, 1, number) for number in range(3)] == [None] * 3
    assert (after.owner(GUID), after.paid(GUID, 0)) == (None, None)
    assert (after.page(OTHER, 1, 0), after.page(OTHER, 10, 0)) == (None, b"stays")
    assert (after.owner(OTHER), after.paid(OTHER, 0)) == (ME, LOCKER)
    assert after.sweep_pages(1e12, 10) == 0


def test_what_accompanies_a_guid_goes_with_the_last_that_is_kept_of_it(kit: Kit) -> None:
    state = kit.state
    store_for(state, GUID, 100.0, b"page")
    store_for(state, OTHER, None, b"page")
    for row in (TRANSFER, replace(TRANSFER, id=b"U" * 16, object_id=OTHER)):
        state.put_transfer(row)
    state.put_stored_object(OBJECT)
    state.put_stored_object(replace(OBJECT, file_type=11, state=2, expires_at=60))
    state.commit()

    def there() -> bool:
        assert (state.owner(OTHER), state.paid(OTHER, 0)) == (ME, LOCKER)
        assert (state.owner(GUID) is None) == (state.paid(GUID, 0) is None)
        return state.owner(GUID) is not None

    state.forget_transfer(b"U" * 16)  # of OTHER, which has a page
    assert there()
    state.forget_transfer(b"V" * 16)  # unknown
    assert state.sweep_pages(100.0, 9) == 1
    assert there()
    assert state.sweep_tombstones(1e9, 9) == 1
    assert there()
    state.forget_transfer(TRANSFER.id)
    assert there()
    state.put_stored_object(replace(OBJECT, state=2))
    assert (state.sweep_tombstones(49.0, 9), state.sweep_tombstones(50.0, 9)) == (0, 1)
    assert (there(), state.stored_object(GUID, 10)) == (False, None)
    state.rollback()
    assert (there(), state.stored_object(GUID, 10), state.transfer(TRANSFER.id)) == (True, OBJECT, TRANSFER)
    state.sweep_pages(100.0, 9)
    state.put_stored_object(replace(OBJECT, state=2))
    assert (state.sweep_tombstones(1e9, 1), state.sweep_tombstones(1e9, 9), there()) == (1, 1, True)
    state.forget_transfer(TRANSFER.id)
    state.commit()
    after = kit.crash()
    assert (after.owner(GUID), after.paid(GUID, 0), after.owner(OTHER)) == (None, None, ME)


def test_sweeping_is_bounded_and_gets_there(state: NodeState) -> None:
    store_for(state, GUID, 100.0, *[b"x"] * 25)
    counts = []
    while count := state.sweep_pages(200.0, 10):
        counts.append(count)
        assert (state.owner(GUID) is None) == (sum(counts) == 25)
    assert counts == [10, 10, 5]


def test_a_sweep_can_be_undone_alone(state: NodeState) -> None:
    store_for(state, GUID, 100.0, LARGE)
    state.add_tell(BOX, b"1", b"record", 1.0)
    state.commit()
    state.mark()
    state.set_ans([(ME, b"1" * 16)])
    state.mark()
    assert state.sweep_pages(200.0, 9) + state.sweep_tells(200.0, 9) == 2
    state.undo()
    state.commit()
    assert (state.page(GUID, 1, 0), state.owner(GUID), state.an(ME)) == (LARGE, ME, b"1" * 16)
    assert state.has_tell(BOX, b"1")
    assert [record for _, record, _ in state.tells(BOX, 0, 0, 9)] == [b"record"]


def test_old_tells_go_with_their_keys(kit: Kit) -> None:
    state = kit.state
    for number, arrived in enumerate((10.0, 20.0, 30.0, 40.0)):
        state.add_tell(BOX, bytes([number]), b"record%d" % number, arrived)
    state.forget_tells([tell_id for tell_id, _, _ in state.tells(BOX, 0, 0, 1)])
    state.commit()
    assert state.sweep_tells(30.0, 2) == 2
    assert state.sweep_tells(30.0, 2) == 1
    assert state.sweep_tells(30.0, 2) == 0
    state.commit()
    after = kit.crash()
    assert [after.has_tell(BOX, bytes([number])) for number in range(4)] == [False, False, False, True]
    assert [record for _, record, _ in after.tells(BOX, 0, 0, 9)] == [b"record3"]
    after.add_tell(BOX, b"\0", b"new", 50.0)
    assert [record for _, record, _ in after.tells(BOX, 0, 0, 9)] == [b"record3", b"new"]
    assert after.sweep_tells(100.0, 9) == 2
    assert after.pending_tells(BOX) == 0


def change_everything(state: NodeState) -> None:
    state.put_transfer(TRANSFER)
    state.write_span(TRANSFER.id, 5, b"bytes")
    state.put_stored_object(OBJECT)
    state.set_ans([(BOX, LOCKER)])
    state.earn([(ME, b"e" * 16)])
    state.put_page(GUID, 1, 0, LARGE, 1.0, None)
    state.claim(GUID, ME)
    state.record_payment(GUID, 0, LOCKER, 1)
    state.add_tell(BOX, b"1", b"record", 1.0)
    state.put_user(BOX, b"record", b"a", b"b")
    state.set_listed(BOX, [(ME, 1)])
    state.set_master_key(b"server", 1, b"secret")


def picture(state: NodeState) -> list[object]:
    return [
        state.an(BOX), state.locker(LOCKER), state.earned(), state.page(GUID, 1, 0), state.owner(GUID),
        state.paid(GUID, 0), state.has_tell(BOX, b"1"), state.user(BOX), state.find_users(b"a", b"b", 9),
        state.listed(BOX, ME), state.master_key(b"server", 1),
        state.transfer(TRANSFER.id), state.spans(TRANSFER.id, 0, 99), state.stored_object(GUID, 10),
    ]  # fmt: skip


def test_nothing_lasts_before_the_commit_and_everything_after(kit: Kit) -> None:
    before = picture(kit.state)
    assert not kit.state.dirty()
    change_everything(kit.state)
    assert kit.state.dirty()
    changed = picture(kit.state)
    if isinstance(kit.state, NodeStore):
        assert picture(kit.crash()) == before
    kit.state.rollback()
    assert picture(kit.state) == before
    change_everything(kit.state)
    kit.state.commit()
    assert not kit.state.dirty()
    assert picture(kit.crash()) == changed


def test_undo_takes_back_one_request_only(kit: Kit) -> None:
    state = kit.state
    state.mark()
    state.set_ans([(ME, b"1" * 16)])
    state.put_page(GUID, 1, 0, LARGE, 1.0, None)
    state.mark()
    state.set_ans([(ME, b"2" * 16)])
    state.put_page(GUID, 1, 0, LARGE + b"2", 1.0, None)
    state.undo()
    state.mark()
    state.undo()
    state.mark()
    state.put_page(GUID, 1, 1, LARGE, 1.0, None)
    state.commit()
    after = kit.crash()
    assert (after.an(ME), after.page(GUID, 1, 0), after.page(GUID, 1, 1)) == (b"1" * 16, LARGE, LARGE)
    state.mark()
    state.undo()
    assert state.an(ME) == b"1" * 16


# ------------------------------------------------------------------------------------------------------------------
# on disk only


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NodeStore]:
    store = NodeStore(tmp_path / "node")
    yield store
    store.close()


def page_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "objects").rglob("*") if path.is_file())


def test_files_are_private(store: NodeStore, tmp_path: Path) -> None:
    change_everything(store)
    store.commit()
    for path in [tmp_path / "node", *(tmp_path / "node").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_replaced_and_dropped_pages_leave_no_files(store: NodeStore, tmp_path: Path) -> None:
    for size in range(3):
        store.put_page(GUID, 1, 0, LARGE + bytes(size), 1.0, None)
        store.put_page(GUID, 1, 1, LARGE, 1.0, None)
        store.commit()
        assert len(page_files(tmp_path / "node")) == (2 if size else 1)
    store.put_page(GUID, 1, 0, b"small", 1.0, None)
    store.put_page(GUID, 1, 2, LARGE, 1.0, None)
    store.rollback()
    assert len(page_files(tmp_path / "node")) == 2
    store.drop(GUID)
    store.commit()
    assert page_files(tmp_path / "node") == []


def test_pages_of_a_stripe_share_a_file(store: NodeStore, tmp_path: Path) -> None:
    for page in (3, 0, 2):
        store.put_page(GUID, 1, page, LARGE + bytes([page]), 1.0, None)
        store.mark()
    store.commit()
    store.put_page(GUID, 1, 1, b"lost" + LARGE, 1.0, None)
    store.undo()
    store.put_page(GUID, 1, 4, LARGE + b"4", 1.0, None)
    store.mark()
    store.put_page(GUID, 1, 5, b"lost" + LARGE, 1.0, None)
    store.rollback()
    store.put_page(GUID, 1, 1, LARGE + bytes([1]), 1.0, None)
    store.commit()
    assert len(page_files(tmp_path / "node")) == 1
    assert [store.page(GUID, 1, page) for page in range(6)] == [*(LARGE + bytes([n]) for n in range(4)), None, None]


def test_a_stripe_stored_in_the_turn_it_was_dropped(store: NodeStore, tmp_path: Path) -> None:
    store.put_page(GUID, 1, 0, LARGE, 1.0, None)
    store.commit()
    store.drop(GUID)
    store.put_page(GUID, 1, 0, LARGE + b"2", 1.0, None)
    store.rollback()
    assert store.page(GUID, 1, 0) == LARGE
    store.drop(GUID)
    store.put_page(GUID, 1, 0, LARGE + b"3", 1.0, None)
    store.commit()
    assert store.page(GUID, 1, 0) == LARGE + b"3"
    assert len(page_files(tmp_path / "node")) == 1


def test_a_file_goes_with_its_last_page(store: NodeStore, tmp_path: Path) -> None:
    for page, expires in enumerate((5.0, 6.0, None)):
        store.put_page(GUID, 1, page, LARGE, 1.0, expires)
        store.put_page(GUID, 2, page, LARGE, 1.0, 6.0)
    store.commit()
    assert store.sweep_pages(5.0, 9) == 1
    store.commit()
    assert len(page_files(tmp_path / "node")) == 2
    assert store.sweep_pages(6.0, 9) == 4
    store.put_page(GUID, 2, 0, LARGE + b"2", 1.0, None)  # in the turn that lets the file go
    store.commit()
    assert (store.page(GUID, 1, 2), store.page(GUID, 2, 0)) == (LARGE, LARGE + b"2")
    assert len(page_files(tmp_path / "node")) == 2


def test_a_small_page_in_place_of_the_only_large_one(store: NodeStore, tmp_path: Path) -> None:
    store.put_page(GUID, 1, 0, LARGE, 1.0, None)
    store.commit()
    store.put_page(GUID, 1, 0, b"small", 1.0, None)
    store.put_page(GUID, 1, 1, LARGE, 1.0, None)
    store.commit()
    assert (store.page(GUID, 1, 0), store.page(GUID, 1, 1)) == (b"small", LARGE)
    assert len(page_files(tmp_path / "node")) == 1


def test_pages_written_and_taken_back_in_one_request(store: NodeStore, tmp_path: Path) -> None:
    store.put_page(GUID, 1, 0, LARGE, 1.0, None)
    store.put_page(GUID, 1, 1, LARGE, 1.0, None)
    store.undo()
    store.set_ans([(ME, bytes(16))])
    store.commit()
    assert page_files(tmp_path / "node") == []


def test_a_page_file_that_was_cut(store: NodeStore, tmp_path: Path) -> None:
    store.put_page(GUID, 1, 0, LARGE, 1.0, None)
    store.commit()
    os.truncate(page_files(tmp_path / "node")[0], 100)
    with pytest.raises(StoreUnavailable):
        store.page(GUID, 1, 0)


OLD_PAGES = """
DROP TABLE segments; DROP TABLE pages;
CREATE TABLE pages (
    guid BLOB NOT NULL, file_type INTEGER NOT NULL, page INTEGER NOT NULL,
    stored REAL NOT NULL, expires REAL, version INTEGER NOT NULL, data BLOB, UNIQUE (guid, file_type, page)
);
PRAGMA user_version = 5;
"""


def test_pages_of_a_database_with_a_file_for_each(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    NodeStore(folder).close()
    db = sqlite3.connect(folder / "node.sqlite")
    db.executescript(OLD_PAGES)
    rows = [(GUID, 1, 0, 1.0, None, 0, b"small"), (GUID, 1, 1, 1.0, None, 2, None)]
    db.executemany("INSERT INTO pages VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    db.commit()
    db.close()
    (folder / "objects" / GUID.hex()[:2]).mkdir()
    (folder / "objects" / GUID.hex()[:2] / f"{GUID.hex()}.1.1.2").write_bytes(LARGE)
    store = NodeStore(folder)
    store.put_page(GUID, 1, 2, LARGE + b"2", 1.0, None)
    store.commit()
    assert [store.page(GUID, 1, page) for page in range(3)] == [b"small", LARGE, LARGE + b"2"]
    store.put_page(GUID, 1, 1, LARGE + b"1", 1.0, None)
    store.commit()
    assert store.page(GUID, 1, 1) == LARGE + b"1"
    assert len(page_files(folder)) == 2
    store.close()


def test_leftovers_are_swept_at_open(store: NodeStore, tmp_path: Path) -> None:
    store.put_page(GUID, 1, 0, LARGE, 1.0, None)
    store.commit()
    store.put_page(GUID, 1, 0, LARGE + b"new", 1.0, None)  # never committed
    assert store.page(GUID, 1, 0) == LARGE + b"new"  # to be read it must have been written
    (page_files(tmp_path / "node")[0].parent / "foreign").write_bytes(b"x")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "node", copy)
    assert len(page_files(copy)) == 3
    again = NodeStore(copy)
    assert len(page_files(copy)) == 1
    assert again.page(GUID, 1, 0) == LARGE
    again.close()


def test_a_folder_has_one_user(store: NodeStore, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        NodeStore(tmp_path / "node")


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    NodeStore(tmp_path / "node").close()
    db = sqlite3.connect(tmp_path / "node" / "node.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreUnavailable, match="version 99"):
        NodeStore(tmp_path / "node")


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    db = sqlite3.connect(tmp_path / "node" / "node.sqlite")
    db.execute("CREATE TABLE coins (x)")
    db.close()
    with pytest.raises(StoreUnavailable, match="coins"):
        NodeStore(tmp_path / "node")
    (tmp_path / "node" / "node.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnavailable):
        NodeStore(tmp_path / "node")


class Refusing:
    """A connection that fails some statements."""

    def __init__(self, db: sqlite3.Connection, *statements: str) -> None:
        self.db, self.statements = db, statements

    def __getattr__(self, name: str) -> object:
        return getattr(self.db, name)

    def execute(self, sql: str, *args: object) -> object:
        if sql in self.statements:
            raise sqlite3.OperationalError("disk I/O error")
        return self.db.execute(sql, *args)  # type: ignore[arg-type]


@pytest.mark.parametrize("refused", ["ROLLBACK TO request", "RELEASE request"])
def test_requests_that_cannot_be_kept_apart_fail_the_commit(
    store: NodeStore, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    store.mark()
    store.set_ans([(ME, b"1" * 16)])
    with monkeypatch.context() as patch:
        patch.setattr(store, "_db", Refusing(store._db, refused))
        if refused.startswith("RELEASE"):
            with pytest.raises(StoreUnavailable):
                store.mark()
        store.undo()
    assert store.dirty()
    with pytest.raises(StoreUnavailable):
        store.commit()
    store.rollback()
    assert store.an(ME) is None


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = NodeStore(tmp_path / "node")
    store.close()
    store.close()
    uses: list[Callable[[], object]] = [
        lambda: store.an(ME),
        lambda: store.set_ans([(ME, bytes(16))]),
        lambda: store.claim(GUID, ME),
    ]
    for use in uses:
        with pytest.raises(StoreUnavailable):
            use()


def test_an_unusable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreUnavailable):
        NodeStore(tmp_path / "file")
    (tmp_path / "node" / "node.sqlite").mkdir(parents=True)
    with pytest.raises(StoreUnavailable):
        NodeStore(tmp_path / "node")


def test_a_page_file_that_vanished(store: NodeStore, tmp_path: Path) -> None:
    store.put_page(GUID, 1, 0, LARGE, 1.0, None)
    store.commit()
    page_files(tmp_path / "node")[0].unlink()
    with pytest.raises(StoreUnavailable):
        store.page(GUID, 1, 0)


def no_space(*args: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_under_a_page_file(store: NodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_page(GUID, 1, 0, LARGE, 1.0, None)
    store.commit()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", no_space)
        store.put_page(GUID, 1, 0, LARGE + b"2", 1.0, None)
        with pytest.raises(StoreUnavailable):
            store.commit()
        store.rollback()
    assert store.page(GUID, 1, 0) == LARGE
    assert len(page_files(tmp_path / "node")) == 1


def test_pages_are_written_by_the_commit(store: NodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it waits anyway, and other nodes do so beside it."""
    files = tmp_path / "node"
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", no_space)
        for page in range(3):
            store.put_page(GUID, 1, page, LARGE, 1.0, None)
            store.mark()
        assert page_files(files) == []
        with pytest.raises(StoreUnavailable):
            store.commit()
        store.rollback()
    assert page_files(files) == []
    assert store.page(GUID, 1, 0) is None
    store.put_page(GUID, 1, 0, LARGE, 1.0, None)
    store.put_page(GUID, 1, 1, LARGE + b"1", 1.0, None)
    assert store.page(GUID, 1, 1) == LARGE + b"1"  # read between: the file is there, and goes on
    store.put_page(GUID, 1, 2, LARGE + b"2", 1.0, None)
    store.commit()
    assert [store.page(GUID, 1, page) for page in range(3)] == [LARGE, LARGE + b"1", LARGE + b"2"]
    assert len(page_files(files)) == 1


def test_a_commit_that_fails_can_be_rolled_back(
    store: NodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_page(GUID, 1, 0, LARGE, 1.0, None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(StoreUnavailable):
            store.commit()
        store.rollback()
    assert store.page(GUID, 1, 0) is None
    assert page_files(tmp_path / "node") == []
    store.put_page(GUID, 1, 0, LARGE, 1.0, None)
    store.commit()


def fill(store: NodeStore) -> None:
    for number in range(100):
        store.put_page(GUID, 1, number, bytes(BLOB_LIMIT), 1.0, None)


def test_a_full_database_fails_the_commit_too(store: NodeStore) -> None:
    store.set_ans([(ME, b"1" * 16)])
    store.commit()
    store._db.execute("PRAGMA max_page_count = 1")
    store.mark()
    store.set_ans([(ME, b"2" * 16)])
    with pytest.raises(StoreUnavailable):
        fill(store)
    store.undo()
    if store.dirty() and not store._db.in_transaction:  # SQLite may end the transaction by itself
        with pytest.raises(StoreUnavailable):
            store.commit()
    store.rollback()
    assert store.an(ME) == b"1" * 16
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.put_page(GUID, 1, 0, bytes(BLOB_LIMIT), 1.0, None)
    store.commit()


def test_a_lost_transaction_is_never_committed_in_part(store: NodeStore) -> None:
    store.set_ans([(ME, b"1" * 16)])
    store._db.execute("ROLLBACK")  # as SQLite does after some I/O errors
    uses: list[Callable[[], object]] = [lambda: store.set_ans([(BOX, b"2" * 16)]), store.commit]
    for use in uses:
        with pytest.raises(StoreUnavailable):
            use()
    store.mark()
    store.undo()
    store.rollback()
    store.set_ans([(BOX, b"2" * 16)])
    store.commit()
    assert (store.an(ME), store.an(BOX)) == (None, b"2" * 16)


WRITER = """
import sys
from pathlib import Path
from qmail_core.store.node import NodeStore
store = NodeStore(Path(sys.argv[1]))
for n in range(100000):
    fill = bytes([n % 251]) * 262144
    for page in range(3):
        store.put_page(bytes(16), 10, page, fill, 1.0, None)
    store.set_ans([(b"count", n.to_bytes(16, "big"))])
    store.commit()
    print(n, flush=True)
"""


@pytest.mark.parametrize("delay", [0.02, 0.05, 0.11])
def test_a_kill_leaves_whole_pages_of_one_commit(tmp_path: Path, delay: float) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "n")], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        reported = writer.stdout.read().split()
    store = NodeStore(tmp_path / "n")
    number = int.from_bytes(store.an(b"count") or b"", "big")
    assert number >= int(reported[-1] if reported else 0)
    for page in range(3):
        assert store.page(bytes(16), 10, page) == bytes([number % 251]) * 262144
    assert len(page_files(tmp_path / "n")) == (3 if number else 1)
    store.close()


def test_swept_pages_leave_no_files(store: NodeStore, tmp_path: Path) -> None:
    store_for(store, GUID, 100.0, LARGE, LARGE, b"small")
    store.commit()
    store.sweep_pages(200.0, 9)
    store.rollback()
    assert len(page_files(tmp_path / "node")) == 1
    store.sweep_pages(200.0, 9)
    assert len(page_files(tmp_path / "node")) == 1  # until the commit
    store.commit()
    assert page_files(tmp_path / "node") == []


def test_a_database_of_the_version_before_is_opened(tmp_path: Path) -> None:
    store = NodeStore(tmp_path / "node")
    old = "CREATE INDEX transfers_open ON transfers (object_id); DROP INDEX transfers_object; DROP INDEX tells_age;"
    store._db.executescript(f"{old} {OLD_PAGES} PRAGMA user_version = 2")
    store._db.execute("INSERT INTO pages VALUES (?, ?, ?, ?, ?, ?, ?)", (GUID, 1, 0, 1.0, 100.0, 0, None))
    store.close()
    again = NodeStore(tmp_path / "node")
    assert again.sweep_pages(200.0, 9) == 1
    indexes = {name for (name,) in again._db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert {"pages_expiry", "tells_age", "transfers_object"} <= indexes
    assert "transfers_open" not in indexes
    again.close()


SWEEPER = """
import sys
from pathlib import Path
from qmail_core.store.node import NodeStore
store = NodeStore(Path(sys.argv[1]))
for n in range(100000):
    guid = n.to_bytes(16, "big")
    for page in range(3):
        store.put_page(guid, 10, page, bytes(70000), n, n + 2)
    store.claim(guid, b"owner")
    store.record_payment(guid, 0, bytes(16), 1)
    store.sweep_pages(n, 4)
    store.commit()
    print(n, flush=True)
"""


@pytest.mark.parametrize("delay", [0.03, 0.08])
def test_a_kill_while_sweeping_leaves_nothing_inconsistent(tmp_path: Path, delay: float) -> None:
    with subprocess.Popen([sys.executable, "-c", SWEEPER, str(tmp_path / "n")], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(4):
            writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.stdout.read()
    store = NodeStore(tmp_path / "n")
    rows = store._db.execute("SELECT guid, file_type, page FROM pages").fetchall()
    assert len(page_files(tmp_path / "n")) == len({guid for guid, _, _ in rows}) > 0
    for where in rows:
        assert store.page(*where) == bytes(70000)
    guids = {guid for guid, _, _ in rows}
    assert {guid for (guid,) in store._db.execute("SELECT guid FROM objects")} == guids
    assert {guid for (guid,) in store._db.execute("SELECT guid FROM payments")} == guids
    while store.sweep_pages(1e12, 100):
        store.commit()
    assert page_files(tmp_path / "n") == []
    store.close()
