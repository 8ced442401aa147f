"""raida.legacy: early clients' frames, and mails that cross between the old and the new commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmail_core.codec import cipher, mail
from qmail_core.codec import consts as c
from qmail_core.model import Address, Coin, ListKind, UserProfile
from qmail_core.raida.cluster import Cluster
from qmail_core.raida.mail import Lookup
from qmail_core.raida.node import Node, Outcome, Policy
from qmail_core.raida.state import MemoryState, NodeState
from qmail_core.store.node import NodeStore
from tests.reference import legacy as old

from .client import GUID, NOW, Peer, code, entropy, tell_from

PAY = b"ABC-1234"
T0 = int(NOW)


class OldClient:
    """Speaks 60 to 64 in the clear, or under a coin's key."""

    def __init__(self, node: Node, coin: Coin) -> None:
        self.node, self.coin, self.now = node, coin, NOW
        self.who = old.preamble(coin.address.denomination, coin.address.serial, coin.an(node.index))
        self.parked: Any = None

    def outcome(self, command: int, body: bytes) -> Outcome:
        outcome = self.node.handle(old.frame(command, self.node.index, body), self.now)
        if outcome.changed:
            self.node.state.commit()
        return outcome

    def ask(self, command: int, body: bytes) -> tuple[int, bytes]:
        outcome = self.outcome(command, body)
        assert outcome.reply is not None
        return self.read(outcome.reply)

    def read(self, reply: bytearray) -> tuple[int, bytes]:
        size = int.from_bytes(reply[9:11], "big") * 256 + reply[11]
        assert (reply[0], bytes(reply[6:8]), len(reply)) == (self.node.index, b"\x11\x22", 32 + size)
        if reply[2] == 250:
            assert reply[16:32] == self.who[:16]  # type 0: the challenge comes back
        return reply[2], bytes(reply[32:-2])

    def upload(self, data: bytes, locker: bytes = PAY, file_type: int = 1, duration: int = 2) -> int:
        return self.ask(60, old.upload(self.who, GUID, locker, file_type, duration, data))[0]

    def tell(self, *recipients: Coin, fee: bytes = bytes(8), locker: bytes = bytes(8)) -> int:
        entries = [old.address_entry(r.address.denomination, r.address.serial, locker) for r in recipients]
        return self.ask(61, old.tell(self.who, GUID, 5, T0, fee, entries, PLACES))[0]

    def peek(self) -> tuple[int, list[dict[str, Any]]]:
        status, payload = self.ask(63, old.poll(self.who, 0))
        assert status == 250
        return old.read_tells(payload)

    def download(self, file_type: int = 1, size_code: int = 3, page: int = 0) -> int | bytes:
        status, payload = self.ask(64, old.download(self.who, GUID, file_type, size_code, page))
        if status != 250:
            return status
        head, data = old.read_page(payload)
        assert head == (file_type, 1, size_code, page)
        return data


PLACES = [old.location(0, 0, (192, 0, 2, 10), 50_000), old.location(1, 1, (192, 0, 2, 11), 777)]


class World:
    def __init__(self, state: NodeState, **policy: Any) -> None:
        self.node = Node(1, state, policy=Policy(**{"legacy_commands": True, **policy}), entropy=entropy)
        cluster = Cluster([Node(0, MemoryState(), entropy=entropy), self.node])
        self.coins = cluster.mint([Address(i // 8, 1 + i % 8) for i in range(16)], entropy)
        cluster.commit()
        self.alice, self.bob = (OldClient(self.node, coin) for coin in self.coins[:2])
        self.new_alice, self.new_bob = (Peer(self.node, coin) for coin in self.coins[:2])

    def pay(self, text: str, coin: int) -> bytes:
        assert self.new_alice.put([self.coins[coin]], code(text)) == 241
        return text.encode().ljust(8, b"\0")


@pytest.fixture(params=["memory", "disk"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NodeState]:
    state: NodeState = MemoryState() if request.param == "memory" else NodeStore(tmp_path / "node")
    yield state
    state.close()


@pytest.fixture
def world(state: NodeState) -> World:
    return World(state, storage_fee=0, inbox_fee=0)


def test_nodes_do_not_know_them_unless_told(state: NodeState) -> None:
    world = World(state, legacy_commands=False)
    for command in range(60, 66):
        assert world.node.handle(old.frame(command, 1, bytes(50)), NOW).reply[2] == 6  # type: ignore[index]
    assert Policy().legacy_commands is False


def test_only_they_may_come_in_the_clear(world: World) -> None:
    for command in (*range(70, 85), 65):
        status = world.node.handle(old.frame(command, 1, bytes(world.alice.who) + old.T), NOW).reply[2]  # type: ignore[index]
        assert status in (6, 16, 34)


def test_they_may_be_encrypted_too(world: World) -> None:
    body = old.upload(world.alice.who, GUID, PAY, 1, 2, b"stripe")[16:-2]
    assert world.new_alice.mail(60, body[32:]).status == 250
    assert world.bob.download() == b"stripe"


def test_a_mail_from_an_old_client_to_a_new_one(world: World) -> None:
    assert world.alice.upload(b"stripe") == 250
    assert world.alice.tell(world.coins[1]) == 250
    assert bytes(mail.parse_page(world.new_bob.download().payload)) == b"stripe"
    (record,) = world.new_bob.peek()
    tell, size = mail.parse_record(memoryview(record))
    assert size == len(record)
    assert (tell.guid, tell.sender, tell.timestamp, tell.total_size) == (GUID, world.coins[0].address, T0, 5)
    assert [(s.stripe, s.parity, s.raida, s.host, s.port) for s in tell.servers] == [
        (0, False, 0, "192.0.2.10", 50_000),
        (1, True, 255, "192.0.2.11", 777),
    ]
    assert b"LOCK" not in record
    assert [(entry.file_type, entry.size, entry.crc32) for entry in tell.files] == [(1, 5, None)]
    assert tell.striping.k == 1


def test_a_mail_from_a_new_client_to_an_old_one(world: World) -> None:
    assert world.new_alice.upload(b"stripe") == 250
    assert world.new_alice.tell(tell_from(world.coins[0]), mail.TellRecipient(world.coins[1].address)) == 250
    remaining, (found,) = world.bob.peek()
    assert remaining == 0
    assert found == {
        "sender": (0, 1), "timestamp": T0, "type": 0, "guid": GUID, "size": 5, "locker": bytes(16),
        "places": [(0, 0, (127, 0, 0, 1), 0), (1, 1, (127, 0, 0, 1), 0)],
    }  # fmt: skip
    assert world.bob.download() == b"stripe"


def test_an_old_client_to_an_old_one(world: World) -> None:
    assert world.bob.peek() == (0, [])
    assert world.alice.tell(world.coins[1], world.coins[2]) == 250
    assert world.alice.tell(world.coins[1]) == 250  # known: delivered once
    remaining, (found,) = world.bob.peek()
    assert (remaining, found["guid"], len(found["places"])) == (0, GUID, 2)


def test_more_tells_than_an_answer_holds(world: World) -> None:
    mailbox = mail.build_selector(world.coins[1].address)
    for number in range(300):
        record = mail.build_record(tell_from(world.coins[0], guid=number.to_bytes(16, "big")))
        world.node.state.add_tell(mailbox, bytes([number % 256, number // 256]), record, NOW)
    remaining, found = world.bob.peek()
    assert (remaining, len(found)) == (45, 255)


def test_ping_waits_and_answers_in_the_old_layout(world: World) -> None:
    for since in (None, 0):
        outcome = world.bob.outcome(62, old.poll(world.bob.who, since))
        assert outcome.wait is not None
        ended = world.node.expire(outcome.wait, NOW).reply
        assert ended is not None
        assert world.bob.read(ended) == (17, b"")
    assert outcome.wait is not None
    assert world.node.resume(outcome.wait, NOW).wait is outcome.wait
    assert world.alice.tell(world.coins[1]) == 250
    reply = world.node.resume(outcome.wait, NOW).reply
    assert reply is not None
    status, payload = world.bob.read(reply)
    assert (status, len(old.read_tells(payload)[1])) == (250, 1)
    world.bob.now += 100
    assert world.bob.outcome(62, old.poll(world.bob.who, None)).reply is not None


def test_pages_as_old_clients_count_them(world: World) -> None:
    data = bytes(range(256)) * 1100  # 281 600 bytes
    for page, at in enumerate(range(0, len(data), c.PAGE_SIZE)):
        world.node.state.put_page(GUID, 10, page, data[at : at + c.PAGE_SIZE], NOW, None)
    for size_code, size in ((0, 65_536), (1, 1024), (2, 8192), (3, 65_536)):
        last = (len(data) - 1) // size
        for page in {0, 1, min(last, 255)}:
            assert world.bob.download(10, size_code, page) == data[page * size : (page + 1) * size]
        if last < 255:
            assert world.bob.download(10, size_code, last + 1) == 202
    assert world.bob.download(10, 4) == 198
    assert world.bob.download(11) == 202
    world.node.state.put_page(GUID, 1, 0, b"", NOW, None)
    assert world.bob.download(1) == b""
    world.node.tamper = bytes.upper
    world.node.state.put_page(GUID, 1, 0, b"low", NOW, None)
    assert world.bob.download(1) == b"LOW"


def bodies(client: OldClient) -> list[tuple[int, bytes]]:
    entry = old.address_entry(0, 2, bytes(8))
    return [
        (60, old.upload(client.who, GUID, PAY, 1, 2, b"")),
        (61, old.tell(client.who, GUID, 5, T0, bytes(8), [entry], PLACES)),
        (62, old.poll(client.who, None)),
        (63, old.poll(client.who, 0)),
        (64, old.download(client.who, GUID, 1, 3, 0)),
    ]


def test_every_truncation_is_refused(world: World) -> None:
    for command, body in bodies(world.alice):
        for size in range(16, len(body) - 2):
            status = world.alice.ask(command, body[:size] + old.T)[0]
            assert status == 16, (command, size)
        assert world.alice.ask(command, body[:-2] + bytes(5) + old.T)[0] == 16
    assert world.alice.ask(61, bytes(world.alice.who) + bytes(40) + old.T)[0] == 16  # no recipients


def test_who_speaks(world: World) -> None:
    for coin, status in (
        (Coin(world.coins[0].address, b"w" * 32), 165),
        (Coin(world.coins[0].address, bytes(32)), 34),
        (Coin(Address(0, 99), b"s" * 32), 40),
    ):
        stranger = OldClient(world.node, coin)
        for command, body in bodies(stranger):
            assert stranger.ask(command, body)[0] == status


def test_payment_in_the_old_words(state: NodeState) -> None:
    world = World(state, storage_fee=2, inbox_fee=2)
    assert world.alice.upload(b"x", bytes(8)) == 166
    assert world.alice.upload(b"x", world.pay("LITTLE", 4)) == 166
    assert world.alice.upload(b"x", world.pay("ABC-1234", 10)) == 250
    assert not world.node.state.locker(cipher.locker_key(b"ABC-1234", 1))
    assert world.alice.upload(b"x", bytes(8), file_type=0) == 250
    assert world.bob.upload(b"x", bytes(8)) == 201
    assert world.alice.upload(b"x", bytes(8), duration=9) == 198
    assert world.alice.tell(world.coins[1]) == 166
    assert world.alice.tell(world.coins[1], locker=world.pay("POOR", 5)) == 166
    assert world.alice.tell(world.coins[1], fee=world.pay("FEE", 11)) == 250
    assert world.alice.tell(world.coins[2], locker=world.pay("EACH", 12)) == 250


def test_the_gate_is_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox, sender = (mail.build_selector(world.coins[i].address) for i in (1, 0))
    world.node.state.set_listed(mailbox, [(sender, ListKind.BLACK)])
    assert world.alice.tell(world.coins[1]) == 236
    world.node.state.set_listed(mailbox, [(sender, None)])
    assert world.new_bob.publish(UserProfile(class_rejection=1)) == 250
    assert world.alice.tell(world.coins[1]) == 237
    monkeypatch.setattr("qmail_core.raida.mail._look_up", lambda read: Lookup.FAILED)
    assert world.alice.tell(world.coins[1]) == 167
    assert world.alice.tell(Coin(Address(0, 99), b"s" * 32)) == 40
