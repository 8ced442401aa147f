"""raida.objects: every command of Object Transfer v1 and each status it may answer, over both states of a node."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmail_core.codec import cipher, mail
from qmail_core.codec import consts as c
from qmail_core.codec import objects as o
from qmail_core.errors import StoreUnavailable
from qmail_core.model import Address, Coin
from qmail_core.raida.cluster import Cluster
from qmail_core.raida.node import Node, Policy
from qmail_core.raida.objects import SWEPT_AT_ONCE
from qmail_core.raida.state import MemoryState, NodeState
from qmail_core.store.node import NodeStore

from .client import GUID, NOW, Peer, code, entropy, frame_of, request

ID, OTHER_ID = b"T" * 16, b"U" * 16
FREE = Policy(storage_fee=0)
RID = 77
DAY = 86_400

Status = int


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Client(Peer):
    """A coin that transfers objects to one node. Calls return the parsed answer, or the status of a refusal."""

    def ask_object(self, command: int, fields: o.Fields | None = None, data: bytes = b"", **how: Any) -> Any:
        reply = self.mail(command, o.build_request(RID, fields) + data, **how)
        return reply.status if reply.status != 250 else memoryview(reply.payload)

    def begin(self, data: bytes = b"", transfer_id: bytes = ID, **changes: Any) -> Any:
        wish = o.Begin(transfer_id, GUID, bytes(16), 10, 0, 1, 0, 0, bytes(7), 1 << 20, len(data), 0, 1, sha(data))
        fields = {name: getattr(wish, name) for name in o.Begin.__struct_fields__} | changes
        found = self.ask_object(76, o.Begin(**fields))
        return found if isinstance(found, int) else o.parse_answer(o.Begun, found, RID)

    def put_range(self, offset: int, data: bytes, transfer_id: bytes = ID, digest: bytes = b"", alg: int = 1) -> Status:
        found = self.ask_object(77, o.PutRange(transfer_id, offset, len(data), alg, digest or sha(data)), data)
        if isinstance(found, int):
            return found
        assert o.parse_answer(o.RangePut, found, RID) == o.RangePut(transfer_id, offset, len(data))
        return 250

    def status(self, cursor: int = 0, count: int = 256, transfer_id: bytes = ID, mode: int = 0) -> Any:
        found = self.ask_object(78, o.Inquiry(transfer_id, cursor, mode, count))
        return found if isinstance(found, int) else o.parse_progress(found, RID)

    def missing(self, count: int = 256) -> list[tuple[int, int]]:
        """All missing ranges, page by page."""
        cursor, ranges = 0, []
        while True:
            progress, some = self.status(cursor, count)
            ranges += some
            if not progress.flags & o.MORE:
                return ranges
            cursor = progress.next_cursor

    def commit(self, data: bytes, transfer_id: bytes = ID, size: int | None = None, digest: bytes = b"") -> Any:
        size = len(data) if size is None else size
        found = self.ask_object(79, o.Commit(transfer_id, size, 1, digest or sha(data)))
        return found if isinstance(found, int) else o.parse_answer(o.Committed, found, RID)

    def abort(self, transfer_id: bytes = ID) -> Status:
        found = self.ask_object(80, o.Abort(transfer_id))
        if isinstance(found, int):
            return found
        o.parse_empty(found, RID)
        return 250

    def info(self, generation: int = 0, file_type: int = 10) -> Any:
        found = self.ask_object(81, o.Info(GUID, file_type, generation))
        return found if isinstance(found, int) else o.parse_answer(o.Described, found, RID)

    def get_range(self, offset: int, size: int, generation: int = 0, file_type: int = 10) -> Any:
        found = self.ask_object(82, o.GetRange(GUID, file_type, generation, offset, size))
        return found if isinstance(found, int) else bytes(o.parse_range_got(found, RID)[1])

    def delete(self, expected: int, target: int) -> Any:
        found = self.ask_object(84, o.Delete(GUID, 10, expected, target))
        return found if isinstance(found, int) else o.parse_answer(o.Tombstone, found, RID)

    def store(self, data: bytes, transfer_id: bytes = ID, **changes: Any) -> Any:
        """Begin, put, commit."""
        begun = self.begin(data, transfer_id, **changes)
        if isinstance(begun, int):
            return begun
        for at in range(0, len(data), begun.chunk):
            assert self.put_range(at, data[at : at + begun.chunk], transfer_id) == 250
        return self.commit(data, transfer_id)


class World:
    """One node over either state, with coins, and a way to start it again from what its medium holds."""

    def __init__(self, folder: Path | None, policy: Policy) -> None:
        self.folder, self.policy, self.copies = folder, policy, 0
        self.states: list[NodeState] = []
        self.node = self._node(folder)
        cluster = Cluster([Node(0, MemoryState(), entropy=entropy), self.node])
        self.coins = cluster.mint([Address(0, serial) for serial in range(1, 9)], entropy)
        cluster.commit()
        self.owner, self.other = self.client(0), self.client(1)

    def _node(self, folder: Path | None) -> Node:
        self.states.append(MemoryState() if folder is None else NodeStore(folder))
        return Node(1, self.states[-1], policy=self.policy, entropy=entropy)

    def client(self, coin: int) -> Client:
        return Client(self.node, self.coins[coin])

    def crash(self) -> None:
        """What the medium holds at this moment is what a new process finds."""
        if self.folder is None:
            self.node.state.rollback()
            return
        self.copies += 1
        copy = self.folder.with_name(f"{self.folder.name}.{self.copies}")
        shutil.copytree(self.states[-1]._objects.parent, copy)  # type: ignore[attr-defined]
        self.states[-1].close()
        self.node = self._node(copy)
        self.owner.node = self.other.node = self.node

    def close(self) -> None:
        for state in self.states:
            state.close()


Make = Callable[..., World]


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    worlds: list[World] = []

    def world(**policy: Any) -> World:
        folder = tmp_path / f"node{len(worlds)}" if request.param == "disk" else None
        worlds.append(World(folder, Policy(**{"storage_fee": 0, **policy})))
        return worlds[-1]

    yield world
    for each in worlds:
        each.close()


@pytest.fixture
def world(make: Make) -> World:
    return make()


@pytest.fixture
def owner(world: World) -> Client:
    return world.owner


DATA = random.Random(1).randbytes(3000)


# ------------------------------------------------------------------------------------------------------------------
# whole stories


def test_an_object_in_ranges_of_any_order(owner: Client) -> None:
    begun = owner.begin(DATA, chunk=1000, retention=5 * DAY)
    assert begun == o.Begun(ID, 1000, 16, 1, 0, 1, 0, 1, int(NOW) + DAY, 5 * DAY)
    assert owner.info() == 228
    for at in (2000, 0, 1000):
        assert owner.get_range(0, 1) == 228
        assert owner.put_range(at, DATA[at : at + 1000]) == 250
    assert owner.status()[0].state == o.OPEN
    done = owner.commit(DATA)
    assert done == o.Committed(GUID, 10, o.LIVE, 1, 1, 1, 3000, sha(DATA))
    assert owner.commit(DATA) == done
    assert owner.begin(DATA, chunk=1000, retention=5 * DAY) == begun
    assert owner.status()[0].state == o.COMMITTED
    found = owner.info()
    assert (found.generation, found.total_size, found.expires_at) == (1, 3000, int(NOW) + 5 * DAY)
    assert owner.get_range(0, 1 << 20) == DATA
    assert owner.get_range(2990, 100, generation=1) == DATA[2990:]


def test_an_empty_object(owner: Client) -> None:
    assert owner.store(b"").total_size == 0
    assert owner.get_range(0, 5) == b""
    assert owner.get_range(1, 5) == 229
    assert owner.download(10).payload[8:] == b""


def test_a_committed_object_is_read_by_pages_too(owner: Client, world: World) -> None:
    data = random.Random(2).randbytes(c.PAGE_SIZE + 5)
    assert owner.store(data).generation == 1
    pages = [bytes(mail.parse_page(world.other.download(10, page).payload)) for page in (0, 1)]
    assert b"".join(pages) == data
    assert world.other.download(10, 2).status == 202
    assert world.other.download(11).status == 202
    whole = random.Random(3).randbytes(c.PAGE_SIZE)
    assert owner.store(whole, OTHER_ID, file_type=1).generation == 1
    assert bytes(mail.parse_page(owner.download(1).payload)) == whole
    assert owner.download(1, 1).status == 202
    assert owner.delete(1, 2) == o.Tombstone(o.DELETED, 2)
    assert owner.download(10).status == 202


def test_replacing_an_object(owner: Client) -> None:
    assert owner.store(DATA).generation == 1
    newer = DATA[::-1]
    again = {"operation": 1, "expected_generation": 1, "target_generation": 5}
    assert owner.begin(newer, OTHER_ID, **again).base_generation == 1
    assert owner.get_range(0, 9) == DATA[:9]
    assert owner.put_range(0, newer, OTHER_ID) == 250
    assert owner.commit(newer, OTHER_ID).generation == 5
    assert owner.get_range(0, 9, generation=5) == newer[:9]
    assert owner.get_range(0, 9, generation=1) == 233
    assert owner.info(generation=1) == 233
    assert owner.commit(DATA).generation == 1  # what was answered once is answered again
    assert owner.put_range(0, DATA) == 231


def test_a_lying_node(owner: Client) -> None:
    assert owner.store(DATA).generation == 1
    owner.node.tamper = lambda data: bytes(len(data))
    assert owner.get_range(0, 3000) == bytes(3000)


# ------------------------------------------------------------------------------------------------------------------
# statuses that every command has

COMMANDS: list[tuple[int, o.Fields | None, bytes]] = [
    (76, o.Begin(ID, GUID, bytes(16), 10, 0, 1, 0, 0, bytes(7), 9, 1, 0, 1, bytes(32)), b""),
    (77, o.PutRange(ID, 0, 1, 1, sha(b"x")), b"x"),
    (78, o.Inquiry(ID, 0, 0, 9), b""),
    (79, o.Commit(ID, 1, 1, bytes(32)), b""),
    (80, o.Abort(ID), b""),
    (81, o.Info(GUID, 10, 0), b""),
    (82, o.GetRange(GUID, 10, 0, 0, 1), b""),
    (83, None, b""),
    (84, o.Delete(GUID, 10, 1, 2), b""),
]
each_command = pytest.mark.parametrize(("command", "fields", "data"), COMMANDS)


@each_command
def test_who_speaks(world: World, command: int, fields: o.Fields | None, data: bytes) -> None:
    wrong = Coin(world.coins[0].address, b"w" * 32)
    zeros = Coin(world.coins[0].address, bytes(32))
    stranger = Coin(Address(0, 999), b"s" * 32)
    for coin, status in ((wrong, 200), (zeros, 34), (stranger, 40)):
        assert world.owner.ask_object(command, fields, data, identity=mail.build_identity(coin, 1)) == status
    assert world.owner.ask(c.GROUP_MAIL, command, world.owner.identity).status == 34  # in the clear


@each_command
def test_lengths_and_heads(owner: Client, command: int, fields: o.Fields | None, data: bytes) -> None:
    whole = o.build_request(RID, fields) + data
    for size in range(len(whole)):
        assert owner.mail(command, whole[:size]).status == 16
    assert owner.mail(command, whole + b"\0").status == 16
    for place, status in ((0, 219), (1, 198), (2, 198), (7, 198)):
        assert owner.mail(command, whole[:place] + b"\x09" + whole[place + 1 :]).status == status
    assert owner.mail(command, whole[:8] + bytes(8) + whole[16:]).status == 198
    assert not owner.node.state.dirty()


@pytest.mark.parametrize(("command", "fields", "data"), COMMANDS[1:5])
def test_transfers_of_nobody_and_of_others(world: World, command: int, fields: o.Fields | None, data: bytes) -> None:
    assert world.other.ask_object(command, fields, data) == 222
    world.owner.begin(b"x")
    assert world.other.ask_object(command, fields, data) == 232


# ------------------------------------------------------------------------------------------------------------------
# 76


def test_begin_with_nonsense(owner: Client) -> None:
    for changes in (
        {"transfer_id": bytes(16)}, {"hash_alg": 2}, {"operation": 2}, {"storage_class": 7}, {"chunk": 0},
        {"reserved": b"\0\0\1\0\0\0\0"}, {"expected_generation": 1, "target_generation": 2},
        {"operation": 1, "target_generation": 2}, {"target_generation": 0},
        {"operation": 1, "expected_generation": 3, "target_generation": 3},
    ):  # fmt: skip
        assert owner.begin(DATA, **changes) == 198, changes
    assert owner.status() == 222


def test_begin_is_an_idempotent_key(world: World, owner: Client) -> None:
    begun = owner.begin(DATA)
    assert owner.begin(DATA) == begun
    for changes in ({"total_size": 1}, {"object_id": ID}, {"file_type": 1}, {"retention": 1}, {"locker": b"x" * 16}):
        assert owner.begin(DATA, **changes) == 234
    assert world.other.begin(DATA) == 232
    owner.now += DAY
    assert owner.begin(DATA) == 223
    assert owner.begin(DATA, OTHER_ID).transfer_id == OTHER_ID
    assert owner.abort(OTHER_ID) == 250
    assert owner.begin(DATA, OTHER_ID) == 231


def test_objects_and_mails_have_one_owner(world: World, owner: Client) -> None:
    assert world.other.upload(b"body") == 250
    assert owner.begin(DATA) == 232
    assert owner.begin(DATA, object_id=ID).transfer_id == ID
    assert world.other.begin(DATA, OTHER_ID, object_id=ID) == 232
    assert world.other.upload(b"body", guid=ID) == 201


def test_retention(owner: Client, world: World) -> None:
    assert owner.begin(DATA, retention=world.policy.max_retention + 1) == 235
    assert owner.begin(DATA, retention=world.policy.max_retention).retention == world.policy.max_retention
    assert owner.begin(DATA, OTHER_ID, retention=0).retention == world.policy.object_retention


def test_sizes_and_quotas(make: Make) -> None:
    world = make(max_object=100, object_quota=150, object_capacity=200, max_transfers=2)
    mine, yours = world.owner, world.other
    assert mine.begin(bytes(101)) == 220
    assert mine.store(bytes(100)).total_size == 100
    assert mine.begin(bytes(51), OTHER_ID, file_type=11) == 227
    assert mine.begin(bytes(50), OTHER_ID, file_type=11).chunk
    assert yours.begin(bytes(51), b"V" * 16, object_id=ID) == 230
    assert yours.begin(bytes(10), b"V" * 16, object_id=ID).chunk
    assert yours.begin(bytes(10), b"W" * 16, object_id=ID).chunk
    assert yours.begin(bytes(1), b"X" * 16, object_id=ID) == 227
    assert mine.abort(OTHER_ID) == 250
    assert mine.delete(1, 2) == o.Tombstone(2, 2)
    assert mine.begin(bytes(100), b"Y" * 16, target_generation=3).chunk


def test_the_generation_must_be_the_senders(owner: Client) -> None:
    replace: dict[str, Any] = {"operation": 1, "expected_generation": 1, "target_generation": 2}
    assert owner.begin(DATA, **replace) == 233
    assert owner.begin(DATA).chunk
    assert owner.begin(DATA, OTHER_ID, target_generation=9).chunk
    for transfer_id in (ID, OTHER_ID):
        assert owner.put_range(0, DATA, transfer_id) == 250
    assert owner.commit(DATA).generation == 1
    assert owner.commit(DATA, OTHER_ID) == 233
    assert owner.begin(DATA, b"V" * 16) == 233
    assert owner.begin(DATA, b"V" * 16, operation=1, expected_generation=2, target_generation=3) == 233
    assert owner.begin(DATA, b"V" * 16, **replace).base_generation == 1


def pay(client: Client, coin: Coin, text: str) -> bytes:
    assert client.put([coin], code(text)) == 241
    return code(text)


def test_payment_is_taken_once(make: Make) -> None:
    world = make(storage_fee=1)
    owner = world.owner
    assert owner.begin(DATA) == 169
    assert owner.begin(DATA, locker=code("EMPTY")) == 169
    locker = pay(owner, world.coins[3], "PAY")
    begun = owner.begin(DATA, locker=locker)
    assert begun.transfer_id == ID
    assert owner.begin(DATA, locker=locker) == begun
    assert len(owner.node.state.earned()) == 1
    assert owner.begin(DATA, OTHER_ID, file_type=11, locker=locker) == 169
    # a new try of the same object is paid, and so is the same attachment by command 75
    assert owner.abort() == 250
    assert owner.begin(DATA, OTHER_ID).transfer_id == OTHER_ID
    assert owner.upload(b"page", file_type=10) == 250
    assert owner.upload(b"body", file_type=1) == 169


def test_a_locker_with_too_little(make: Make) -> None:
    world = make(storage_fee=2)
    locker = pay(world.owner, world.coins[3], "PAY")
    assert world.owner.begin(DATA, locker=locker) == 168
    assert world.owner.status() == 222
    assert len(world.node.state.locker(cipher.locker_key(locker, 1))) == 1


def test_a_payment_that_cannot_be_looked_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(storage_fee=1)
    locker = pay(world.owner, world.coins[3], "PAY")

    def broken(*args: object) -> None:
        raise StoreUnavailable("disk")

    with monkeypatch.context() as patch:
        patch.setattr(world.node.state, "locker", broken)
        assert world.owner.begin(DATA, locker=locker) == 167
    with monkeypatch.context() as patch:
        patch.setattr(world.node.state, "record_payment", broken)
        assert world.owner.begin(DATA, locker=locker) == 194
    assert world.node.state.earned() == []
    assert world.owner.begin(DATA, locker=locker).chunk


# ------------------------------------------------------------------------------------------------------------------
# 77, 78, 79, 80


def test_ranges_out_of_range(owner: Client) -> None:
    assert owner.begin(DATA, chunk=1000).chunk == 1000
    assert owner.put_range(0, DATA[:1001]) == 221
    assert owner.put_range(0, b"") == 229
    assert owner.put_range(2001, DATA[:1000]) == 229
    assert owner.put_range((1 << 64) - 1, b"x") == 229
    assert owner.put_range(0, DATA[:1000], digest=bytes(32)) == 226
    assert owner.put_range(0, DATA[:1000], alg=2) == 198
    assert owner.missing() == [(0, 3000)]


def test_the_chunk_a_node_accepts(make: Make) -> None:
    world = make(object_chunk=500)
    assert world.owner.begin(DATA).chunk == 500
    assert world.owner.put_range(0, DATA[:501]) == 221
    assert world.owner.get_range(0, 501) == 228
    world.owner.store(DATA, OTHER_ID)
    assert world.owner.get_range(0, 501) == 221


def test_duplicates_and_conflicts(owner: Client) -> None:
    owner.begin(DATA)
    for _ in range(2):
        assert owner.put_range(100, DATA[100:200]) == 250
    assert owner.put_range(50, DATA[50:250]) == 250
    assert owner.put_range(190, bytes(100)) == 224
    assert owner.missing() == [(0, 50), (250, 2750)]


def test_status_page_by_page(owner: Client) -> None:
    owner.begin(DATA)
    for at in range(100, 1000, 100):
        assert owner.put_range(at, DATA[at : at + 10]) == 250
    expected = [(0, 100)] + [(at + 10, 90) for at in range(100, 900, 100)] + [(910, 2090)]
    for count in (1, 2, 3, 9, 10, 11, 65535):
        assert owner.missing(count) == expected
    assert owner.status(5000) == (o.Progress(ID, 3000, 1, o.OPEN, 0, 0, 0), [])
    assert owner.status(950)[1] == [(950, 2050)]
    assert owner.status(count=0) == 198
    assert owner.status(mode=1) == 198


def test_commit_too_early_or_of_something_else(owner: Client) -> None:
    owner.begin(DATA)
    assert owner.commit(DATA) == 225
    owner.put_range(0, DATA[:-1])
    assert owner.commit(DATA) == 225
    owner.put_range(2999, b"?")
    assert owner.commit(DATA) == 226
    assert owner.commit(DATA, digest=bytes(32)) == 226
    assert owner.commit(DATA, size=1) == 234
    assert owner.ask_object(79, o.Commit(ID, 3000, 2, sha(DATA))) == 198
    assert owner.info() == 228


def test_abort(owner: Client) -> None:
    owner.begin(DATA)
    owner.put_range(0, DATA)
    assert owner.abort() == 250
    assert owner.abort() == 250
    assert (owner.put_range(0, DATA), owner.commit(DATA)) == (231, 231)
    assert owner.status()[0].state == o.ABORTED
    assert owner.info() == 202
    owner.store(DATA, OTHER_ID)
    assert owner.abort(OTHER_ID) == 231


def test_unfinished_transfers_expire(owner: Client, world: World) -> None:
    owner.begin(DATA)
    owner.put_range(0, DATA)
    owner.now += DAY - 1
    assert owner.put_range(0, DATA) == 250
    owner.now += 1
    for swept in (False, True):
        assert (owner.put_range(0, DATA), owner.commit(DATA), owner.abort()) == (223, 223, 223)
        assert owner.status()[0].state == o.EXPIRED
        assert owner.info() == 202
        assert bool(world.node.sweep(owner.now)) is not swept
        world.node.state.commit()
    assert world.node.state.spans(ID, 0, 3000) == []
    assert world.node.state.objects_held(None) == (0, 0, 0)
    owner.now += world.policy.keep_transfers
    assert world.node.sweep(owner.now)
    world.node.state.commit()
    assert owner.status() == 222


def test_objects_end_with_their_retention(owner: Client, world: World) -> None:
    owner.store(DATA, retention=100)
    owner.now += 100
    for swept in (False, True):
        assert (owner.info(), owner.get_range(0, 1), owner.download(10).status) == (202, 202, 202)
        assert bool(world.node.sweep(owner.now)) is not swept
        world.node.state.commit()
    assert owner.begin(DATA, OTHER_ID) == 233
    assert owner.store(DATA, OTHER_ID, target_generation=2).generation == 2


def test_a_tombstone_goes_when_the_object_would_have_gone(owner: Client, world: World) -> None:
    owner.store(DATA, retention=100)
    assert owner.delete(1, 2) == o.Tombstone(o.DELETED, 2)
    last = 100 + world.policy.keep_transfers
    for later, there in ((0, True), (last - 1, True), (last, False)):
        owner.now = NOW + later
        world.node.sweep(owner.now)
        world.node.state.commit()
        assert owner.delete(1, 2) == (o.Tombstone(o.DELETED, 2) if there else 202)
    world.crash()
    assert owner.store(DATA, OTHER_ID).generation == 1


def test_nothing_of_an_object_is_kept_for_ever(make: Make) -> None:
    """Owner and payment go with the last that is known of a GUID, and not before: pages and objects may share one."""
    world = make(storage_fee=1)
    owner, state = world.owner, world.node.state
    assert owner.store(DATA, retention=30 * DAY, locker=pay(owner, world.coins[3], "PAY")).generation == 1
    assert owner.upload(b"page", file_type=10, duration=0) == 250
    assert owner.begin(DATA, OTHER_ID, operation=1, expected_generation=1, target_generation=2).chunk
    kept = []
    for day in range(40):
        owner.now = NOW + day * DAY
        world.node.sweep(owner.now)
        state.commit()
        paid = any(state.paid(GUID, unit) for unit in range(256))
        assert (state.owner(GUID) is not None) == paid
        if paid:
            kept.append(day)
    assert kept == list(range(37))  # 30 days, and 7 in which the ids of its transfers are known
    assert [state.transfer(transfer_id) for transfer_id in (ID, OTHER_ID)] == [None, None]
    assert (state.stored_object(GUID, 10), state.page(GUID, 10, 0)) == (None, None)


def test_a_begin_sweeps_what_is_due(make: Make) -> None:
    world = make(object_capacity=100)
    assert world.owner.begin(bytes(100)).chunk
    assert world.other.begin(bytes(1), OTHER_ID, object_id=ID) == 230
    world.other.now += DAY
    assert world.other.begin(bytes(1), OTHER_ID, object_id=ID).chunk


def test_a_sweep_ends_a_few_at_a_time(owner: Client, world: World) -> None:
    for number in range(SWEPT_AT_ONCE + 1):
        owner.begin(DATA, bytes([number + 1]) * 16)
    assert world.node.state.objects_held(mail.build_selector(owner.coin.address))[0] == SWEPT_AT_ONCE + 1
    for left in (1, 0, 0):
        world.node.sweep(NOW + DAY)
        assert world.node.state.objects_held(None)[0] == left


def test_a_sweep_over_a_broken_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.owner.begin(DATA)

    def broken(*args: object) -> None:
        raise StoreUnavailable("disk")

    monkeypatch.setattr(world.node.state, "put_transfer", broken)
    assert not world.node.sweep(NOW + DAY)
    assert world.node.state.objects_held(None) == (1, 1, 3000)


# ------------------------------------------------------------------------------------------------------------------
# 81 to 84


def test_reading_what_is_not_there(owner: Client) -> None:
    assert (owner.info(), owner.get_range(0, 1)) == (202, 202)
    owner.store(DATA)
    assert owner.get_range(3000, 1) == 229
    assert owner.get_range(0, 0) == 229
    assert owner.get_range(0, (1 << 20) + 1) == 221
    assert owner.info(file_type=11) == 202
    assert owner.get_range(0, 1, file_type=11) == 202


def test_everybody_who_knows_the_id_reads(world: World) -> None:
    world.owner.store(DATA)
    assert world.other.get_range(0, 3000) == DATA


def test_deleting(world: World, owner: Client) -> None:
    assert owner.delete(1, 2) == 202
    owner.store(DATA)
    assert world.other.delete(1, 2) == 232
    assert owner.delete(2, 3) == 233
    assert owner.delete(1, 1) == 233
    assert owner.delete(0, 3) == 198
    for _ in range(2):
        assert owner.delete(1, 4) == o.Tombstone(o.DELETED, 4)
    assert owner.delete(1, 5) == 233
    assert owner.info() == 202
    assert owner.begin(DATA, OTHER_ID, target_generation=4) == 233
    assert owner.store(DATA, OTHER_ID, target_generation=5).generation == 5
    assert owner.info().generation == 5


def test_capabilities(make: Make) -> None:
    for fee, mode in ((0, o.PAY_NOTHING), (1, o.PAY_LOCKER)):
        world = make(storage_fee=fee, object_capacity=5000)
        if not fee:
            world.owner.begin(DATA)
        offer, (only,) = o.parse_capabilities(world.owner.ask_object(83), RID)
        assert (offer.payment_mode, offer.max_chunk, offer.generated_at) == (mode, 1 << 20, int(NOW))
        assert (only.id, only.capacity, only.available) == (1, 5000, 2000 if not fee else 5000)


def test_generations_use_all_64_bits(owner: Client) -> None:
    top = (1 << 64) - 1
    assert owner.store(DATA, target_generation=top).generation == top
    assert owner.info(generation=top).generation == top
    assert owner.begin(DATA, OTHER_ID, operation=1, expected_generation=top, target_generation=top) == 198


# ------------------------------------------------------------------------------------------------------------------
# crashes


def test_a_crash_after_every_step(world: World) -> None:
    owner = world.owner
    steps: list[Callable[[], Any]] = [
        lambda: owner.begin(DATA, chunk=1000).transfer_id,
        *(lambda at=at: owner.put_range(at, DATA[at : at + 1000]) for at in (2000, 0, 1000)),
        lambda: owner.commit(DATA).generation,
        lambda: owner.begin(DATA[1:], OTHER_ID, operation=1, expected_generation=1, target_generation=2).transfer_id,
        lambda: owner.put_range(0, DATA[1:], OTHER_ID),
        lambda: owner.commit(DATA[1:], OTHER_ID).generation,
        lambda: owner.delete(2, 3).generation,
    ]
    for step in steps:
        first = step()
        world.crash()
        assert step() == first  # an answer that may be lost can be asked for again
        world.crash()
    assert owner.info() == 202


def test_what_was_not_committed_is_not_there(world: World) -> None:
    owner = world.owner
    owner.begin(DATA)
    sent = o.build_request(RID, o.PutRange(ID, 0, 3000, 1, sha(DATA))) + DATA
    frames = [request(1, c.GROUP_MAIL, 77, owner.identity + sent, key=owner.key) for _ in range(2)]
    assert world.node.handle(frame_of(frames[0]), NOW).changed
    world.crash()  # before the commit, and so before the answer
    assert owner.missing() == [(0, 3000)]
    assert owner.put_range(0, DATA[:1000]) == 250
    assert world.node.handle(frame_of(frames[1]), NOW).changed
    world.crash()
    assert owner.missing() == [(1000, 2000)]
    assert owner.put_range(0, DATA) == 250
    assert owner.commit(DATA).generation == 1


def test_refused_and_ended_transfers_leave_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "node", FREE)
    owner = world.owner

    def files() -> int:
        return sum(path.is_file() for path in (tmp_path / "node" / "transfers").rglob("*"))

    def broken(*args: object) -> None:
        raise StoreUnavailable("disk")

    owner.begin(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(world.node.state, "_change", broken)
        assert owner.put_range(0, DATA) == 194
    assert files() == 0
    assert owner.put_range(0, DATA) == 250
    assert files() == 1
    assert owner.commit(DATA).generation == 1
    owner.store(DATA, OTHER_ID, operation=1, expected_generation=1, target_generation=2)
    assert files() == 1
    owner.delete(2, 3)
    assert files() == 0
    world.close()


@pytest.mark.parametrize("failing", ["open", "pread", "pwrite", "short"])
def test_a_failing_disk_under_a_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    world = World(tmp_path / "node", FREE)
    owner = world.owner
    owner.begin(DATA)
    assert owner.put_range(0, DATA[:1000]) == 250

    def broken(*args: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        if failing == "short":
            patch.setattr("os.pread", lambda *args: b"")
        else:
            patch.setattr(f"os.{failing}", broken)
        if failing == "pwrite":  # that is for the commit to do, and for the host to answer
            with pytest.raises(StoreUnavailable):
                owner.put_range(500, DATA[500:1500])
            world.node.state.rollback()
        else:
            assert owner.put_range(500, DATA[500:1500]) == 194
    assert owner.missing() == [(1000, 2000)]
    assert owner.put_range(500, DATA[500:1500]) == 250
    world.close()


def test_leftover_files_are_swept_at_open(tmp_path: Path) -> None:
    world = World(tmp_path / "node", FREE)
    world.owner.begin(DATA)
    world.owner.put_range(0, DATA)
    folder = next((tmp_path / "node" / "transfers").iterdir())
    (folder / (b"T" + bytes(15)).hex()).write_bytes(b"never committed")
    world.close()
    NodeStore(tmp_path / "node").close()
    assert len(list(folder.iterdir())) == 1


# ------------------------------------------------------------------------------------------------------------------
# ranges against a model

SIZE = 64
put_ranges = st.lists(
    st.tuples(st.integers(0, SIZE + 2), st.integers(0, 20), st.booleans(), st.booleans()), min_size=1, max_size=25
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(puts=put_ranges, pages=st.integers(1, 5))
def test_ranges_behave_like_a_list_of_bytes(world: World, puts: list[Any], pages: int) -> None:
    owner, transfer_id = world.owner, entropy(16)
    plain = random.Random(5).randbytes(SIZE)
    model: list[int | None] = [None] * SIZE
    assert owner.begin(plain, transfer_id, chunk=16, object_id=entropy(16)).chunk == 16
    for offset, size, altered, crash in puts:
        data = bytearray(plain[offset : offset + size].ljust(size, b"\0"))
        if altered and data:
            data[-1] ^= 1
        there = model[offset : offset + size]
        if size > 16:
            expected = 221
        elif not size or offset + size > SIZE:
            expected = 229
        elif any(old not in (None, new) for old, new in zip(there, data, strict=True)):
            expected = 224
        else:
            expected, model[offset : offset + size] = 250, data
        assert owner.put_range(offset, bytes(data), transfer_id) == expected
        if crash:
            world.crash()
    found: set[int] = set()
    cursor = 0
    while True:
        progress, ranges = owner.status(cursor, pages, transfer_id)
        assert len(ranges) <= pages
        for low, size in ranges:
            assert not found & set(range(low, low + size))
            found |= set(range(low, low + size))
        if not progress.flags & o.MORE:
            break
        cursor = progress.next_cursor
    assert found == {place for place, byte in enumerate(model) if byte is None}
    complete = bytes(byte or 0 for byte in model)
    status = owner.commit(plain, transfer_id)
    if found:
        assert status == 225
    elif complete != plain:
        assert status == 226
    else:
        assert status.total_size == SIZE
    owner.abort(transfer_id)
