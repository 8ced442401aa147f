"""raida.directory: the published requests as a node answers them, and every status it can give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qmail_core.codec import consts as c
from qmail_core.codec import directory as drd
from qmail_core.codec import packet
from qmail_core.codec.cipher import NO_KEY
from qmail_core.codec.directory import Owned, Search
from qmail_core.codec.mail import build_selector
from qmail_core.errors import StoreUnavailable
from qmail_core.model import Address, Coin, ListEntry, ListKind, UserProfile
from qmail_core.raida.directory import fold

from .client import NOW, Peer, World, frame_of, opened

VECTORS = Path(__file__).parents[1] / "vectors" / "drd"
ALICE = UserProfile(fee=1_000_000_000, symbol1=5, symbol2=17, first_name="Alice", last_name="Smith")
WHITE, BLACK = ListKind.WHITE, ListKind.BLACK


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def alice(world: World) -> Peer:
    return world.peer(world.ones[0])


def vector(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def ask_as_printed(peer: Peer, command: int, body: str) -> packet.Reply:
    """Send a published body, challenge and trailer included, in a frame of type 0."""
    payload = bytes.fromhex(body)[16:-2]
    batch = packet.Batch(c.GROUP_DIRECTORY, command, [peer.index], [NO_KEY], [payload], [b""])
    (sent,) = packet.pack(batch, bytes(8) + bytes.fromhex(body)[:12])
    assert bytes(sent.frame)[c.HEADER_SIZE :].hex() == body
    outcome = peer.node.handle(frame_of(sent), peer.now)
    if outcome.changed:
        peer.node.state.commit()
    return opened(sent, outcome)


def test_the_published_requests(world: World, alice: Peer) -> None:
    owner = Address(0, 42)
    alice.node.state.set_ans([(build_selector(owner), bytes(range(0xA0, 0xB0)))])
    posts, get = vector("04-post-user.json"), vector("03-get-user.json")
    alice.now = 1_700_000_000
    assert ask_as_printed(alice, 140, posts["minimal_empty_names"]["bytes_hex"]).status == 250
    alice.now = 1_785_312_000
    assert ask_as_printed(alice, 140, posts["named_example"]["bytes_hex"]).status == 250
    reply = ask_as_printed(alice, 141, get["request"]["bytes_hex"])
    assert (reply.status, bytes(reply.payload).hex()) == (250, get["response_user_record"]["bytes_hex"])
    batch, listed = vector("05-list-set-remove.json"), vector("06-list-get.json")
    assert ask_as_printed(alice, 144, batch["list_set"]["bytes_hex"]).status == 250
    mine = alice.drd(146, drd.build_owned(Owned(owner, bytes(range(0xA0, 0xB0)))))
    assert bytes(mine.payload).hex() == listed["response_two_entries"]["bytes_hex"]
    assert ask_as_printed(alice, 145, batch["list_remove"]["bytes_hex"]).status == 250
    mine = alice.drd(146, drd.build_owned(Owned(owner, bytes(range(0xA0, 0xB0)))))
    assert (mine.status, bytes(mine.payload).hex()) == (250, listed["response_empty"]["bytes_hex"])


def test_records_live_and_die(alice: Peer) -> None:
    assert alice.drd(141, drd.build_get_user(alice.coin.address)).status == 193
    assert alice.drd(143, drd.build_owned(alice.owner)).status == 193
    assert alice.publish(UserProfile()) == 250
    alice.now = NOW + 100
    assert alice.publish(ALICE) == 250
    record = drd.parse_user_record(alice.drd(141, drd.build_get_user(alice.coin.address)).payload)
    assert (record.profile, record.created_at, record.updated_at) == (ALICE, NOW, NOW + 100)
    assert alice.drd(143, drd.build_owned(alice.owner)).status == 250
    assert alice.drd(141, drd.build_get_user(alice.coin.address)).status == 193
    assert alice.publish(ALICE) == 250  # a new life has a new beginning
    record = drd.parse_user_record(alice.drd(141, drd.build_get_user(alice.coin.address)).payload)
    assert record.created_at == NOW + 100


# ------------------------------------------------------------------------------------------------------------------
# statuses

ENTRY = ListEntry(Address(0, 7), WHITE)


def requests(owner: Owned) -> dict[int, bytes]:
    """A valid payload for each command."""
    return {
        140: drd.build_post_user(owner, ALICE),
        141: drd.build_get_user(owner.address),
        142: drd.build_search_users(Search("Al", "Sm")),
        143: drd.build_owned(owner),
        144: drd.build_list_set(owner, [ENTRY, ENTRY]),
        145: drd.build_list_remove(owner, [ENTRY.address, ENTRY.address]),
        146: drd.build_owned(owner),
    }


OWNERS = [140, 143, 144, 145, 146]


@pytest.mark.parametrize("command", OWNERS)
def test_owners_prove_themselves(alice: Peer, command: int) -> None:
    stranger, forger = Owned(Address(0, 999), bytes(16)), Owned(alice.coin.address, b"w" * 16)
    assert alice.drd(command, requests(stranger)[command]).status == 40
    assert alice.drd(command, requests(forger)[command]).status == 200
    assert not alice.node.state.dirty()


@pytest.mark.parametrize("command", range(140, 147))
def test_every_truncation_is_refused(alice: Peer, command: int) -> None:
    assert alice.publish(ALICE) == 250
    whole = requests(alice.owner)[command]
    for end in range(len(whole)):
        expected = 16
        size = {144: 6, 145: 5}.get(command)
        if size is not None and end >= 21:
            expected = 39 if (end - 21) % size else 250
        assert alice.drd(command, whole[:end]).status == expected, end
    assert alice.drd(command, whole + b"\0").status == (39 if command in (144, 145) else 16)


def test_an_empty_body(alice: Peer) -> None:
    frame = frame_of(packet.pack(packet.Batch(16, 141, [1], [NO_KEY], [b""], [b""]), bytes(20))[0])
    outcome = alice.node.handle(frame[:22] + b"\0\0" + frame[24:32], NOW)
    assert outcome.reply is not None
    assert outcome.reply[2] == 36


@pytest.mark.parametrize(
    ("command", "rest"),
    [
        (140, drd.build_post_user(Owned(Address(0, 1), bytes(16)), UserProfile(fee=-1))[21:]),
        (140, bytes(11) + b"\x40" + b"x" * 64 + b"\0"),
        (140, bytes(11) + b"\x01\xff\0"),
        (144, bytes(5) + b"\2"),
        (144, b"".join(b"\0" + n.to_bytes(4, "big") + b"\0" for n in range(1001))),
    ],
    ids=["negative fee", "long name", "name not UTF-8", "unknown list", "more than 1000"],
)
def test_values_out_of_range(alice: Peer, command: int, rest: bytes) -> None:
    proof = drd.build_owned(alice.owner)
    assert alice.drd(command, proof + rest).status == 198
    assert alice.drd(146, proof).payload == b"\0\0"


@pytest.mark.parametrize(
    ("payload", "status"),
    [(b"\0\0", 198), (b"\4\0\1a", 198), (b"\1\0\0", 16), (b"\1\0\1a", 250), (b"\3\0\0\0", 250), (b"\1\0\1\xff", 198)],
)
def test_searches_must_ask_for_something(alice: Peer, payload: bytes, status: int) -> None:
    assert alice.drd(142, payload).status == status


def test_a_medium_that_fails(alice: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise StoreUnavailable("disk")

    monkeypatch.setattr(alice.node.state, "user", fail)
    assert alice.drd(141, drd.build_get_user(alice.coin.address)).status == 194
    monkeypatch.setattr(alice.node.state, "user", lambda *_: 1 / 0)
    assert alice.drd(141, drd.build_get_user(alice.coin.address)).status == 252


# ------------------------------------------------------------------------------------------------------------------
# searching


def find(peer: Peer, first: str | None, last: str | None = None, limit: int = 0) -> list[str]:
    reply = peer.drd(142, drd.build_search_users(Search(first, last, limit)))
    assert reply.status == 250
    found = drd.parse_search_answer(reply.payload)
    return [f"{record.profile.first_name} {record.profile.last_name}" for record in found]


def people(world: World, *names: str) -> None:
    for coin, name in zip(world.ones, names, strict=False):
        first, _, last = name.partition(" ")
        assert world.peer(coin).publish(UserProfile(first_name=first, last_name=last)) == 250


def test_prefixes_without_regard_to_case(world: World, alice: Peer) -> None:
    people(world, "Alice Smith", "ALAN Jones", "Bob Smithers", "Émile Straße")
    assert find(alice, "al") == ["ALAN Jones", "Alice Smith"]
    assert find(alice, None, "SMITH") == ["Alice Smith", "Bob Smithers"]
    assert find(alice, "AL", "smi") == ["Alice Smith"]
    assert find(alice, "e\u0301M") == find(alice, None, "STRASS") == ["Émile Straße"]
    assert find(alice, "alice smith") == []
    assert fold("STRASSE") == fold("straße")


def test_limits(world: World) -> None:
    many = World(count=1)
    coins = many.cluster.mint([Address(2, serial) for serial in range(1, 61)], lambda n: bytes(n - 1) + b"x")
    for coin in coins:
        assert Peer(many.cluster.nodes[0], coin).publish(UserProfile(first_name="a")) == 250
    peer = Peer(many.cluster.nodes[0], coins[0])
    assert [len(find(peer, "a", limit=limit)) for limit in (0, 1, 50, 51, 255)] == [50, 1, 50, 50, 50]


# ------------------------------------------------------------------------------------------------------------------
# lists


def listed(peer: Peer) -> list[tuple[int, int, int]]:
    entries = drd.parse_list_answer(peer.drd(146, drd.build_owned(peer.owner)).payload)
    return [(entry.address.denomination, entry.address.serial, entry.kind) for entry in entries]


def test_lists_are_sorted_and_setting_moves(alice: Peer) -> None:
    entries = [(1, 5, BLACK), (0, 9, WHITE), (-1, 7, BLACK), (0, 3, WHITE)]
    assert alice.put_on_list(*(ListEntry(Address(dn, sn), kind) for dn, sn, kind in entries)) == 250
    assert listed(alice) == sorted(entries)
    assert alice.put_on_list(ListEntry(Address(0, 9), BLACK)) == 250
    assert listed(alice) == [(-1, 7, 1), (0, 3, 0), (0, 9, 1), (1, 5, 1)]
    assert alice.drd(145, drd.build_list_remove(alice.owner, [Address(0, 3), Address(4, 4)])).status == 250
    assert listed(alice) == [(-1, 7, 1), (0, 9, 1), (1, 5, 1)]


def test_a_batch_is_written_whole_or_not_at_all(alice: Peer) -> None:
    assert alice.put_on_list(ListEntry(Address(0, 1), WHITE), ListEntry(Address(0, 2), 7)) == 198
    assert listed(alice) == []


def test_a_thousand_senders_fit(alice: Peer) -> None:
    assert alice.put_on_list(*(ListEntry(Address(0, sn), WHITE) for sn in range(1000))) == 250
    assert alice.put_on_list(ListEntry(Address(0, 5), BLACK), ListEntry(Address(0, 5), WHITE)) == 250
    assert alice.put_on_list(ListEntry(Address(1, 5), BLACK)) == 198
    assert len(listed(alice)) == 1000


def test_nodes_keep_copies_of_their_own(world: World, alice: Peer) -> None:
    assert alice.publish(ALICE) == 250
    other = world.peer(Coin(alice.coin.address, alice.coin.ans), index=0)
    assert other.drd(141, drd.build_get_user(alice.coin.address)).status == 193
