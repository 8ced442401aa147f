"""raida.keys: who may preload and who gets a share; secrets stay out of logs."""

from __future__ import annotations

import logging

import pytest

from qmail_core.codec import cipher
from qmail_core.codec import consts as c
from qmail_core.codec import keys as rke
from qmail_core.codec.keys import MasterKey, ShareRequest
from qmail_core.model import Address
from qmail_core.raida.keys import share_of
from qmail_core.raida.node import Policy

from .client import Peer, World

SECRET = bytes(range(100, 132))
SERVER = b"CS01".ljust(16, b"\0")
PRELOAD = rke.build_preload_master_key(b"CS01", [MasterKey(1, SECRET), MasterKey(2, SECRET[::-1])])


@pytest.fixture
def world() -> World:
    return World(policy=Policy(key_servers=frozenset({Address(0, 1)})))


def send(peer: Peer, command: int, payload: bytes) -> tuple[int, bytes]:
    reply = peer.ask(c.GROUP_KEYS, command, payload, key=peer.key)
    return reply.status, bytes(reply.payload)


def wanted(client: Address, **change: object) -> ShareRequest:
    fields = {"server_id": SERVER, "kid": 1, "client": client, "timestamp": 1_785_312_000} | change
    return ShareRequest(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("enc", [c.ENC_COIN, c.ENC_COIN256])
def test_a_share_for_the_client_that_asks(world: World, enc: int) -> None:
    server, client = world.peer(world.ones[0], enc=enc), world.peer(world.ones[1], enc=enc)
    request = wanted(client.coin.address)
    assert send(client, 2, rke.build_get_key_share(request)) == (193, b"")
    assert send(server, 1, PRELOAD) == (250, b"")
    status, answer = send(client, 2, rke.build_get_key_share(request))
    assert (status, rke.parse_key_share(answer)) == (250, share_of(SECRET, request))
    other = wanted(client.coin.address, kid=2)
    assert send(client, 2, rke.build_get_key_share(other)) == (250, bytes((share_of(SECRET[::-1], other),)))


def test_shares_differ_by_everything_that_is_named() -> None:
    base = wanted(Address(0, 2))
    requests = [
        base,
        wanted(Address(0, 3)),
        wanted(base.client, kid=2),
        wanted(base.client, timestamp=1),
        wanted(base.client, server_id=bytes(16)),
    ]
    columns = [tuple(share_of(bytes((n,)) * 32, request) for n in range(8)) for request in requests]
    assert len(set(columns)) == len(requests)


def test_only_named_coins_preload(world: World) -> None:
    assert send(world.peer(world.ones[1]), 1, PRELOAD) == (38, b"")
    nobody = World()
    assert send(nobody.peer(nobody.ones[0]), 1, PRELOAD) == (38, b"")


def test_nothing_in_the_clear_and_nothing_by_locker(world: World) -> None:
    peer = world.peer(world.ones[0])
    assert peer.put(world.ones[2:3], b"LOCKER".ljust(16, b"\0")) == 241
    key = cipher.locker_key(b"LOCKER", 1)
    locker = cipher.Key(c.ENC_LOCKER, key, key[:5])
    share = rke.build_get_key_share(wanted(peer.coin.address))
    for command, payload in ((1, PRELOAD), (2, share)):
        assert peer.ask(c.GROUP_KEYS, command, payload).status == 34
        assert peer.ask(c.GROUP_KEYS, command, payload, key=locker).status == 34


def test_shares_are_for_the_speaker_only(world: World) -> None:
    assert send(world.peer(world.ones[0]), 1, PRELOAD) == (250, b"")
    thief = world.peer(world.ones[1])
    assert send(thief, 2, rke.build_get_key_share(wanted(Address(0, 3)))) == (198, b"")


def test_every_truncation_is_refused(world: World) -> None:
    peer = world.peer(world.ones[0])
    for command, whole in ((1, PRELOAD), (2, rke.build_get_key_share(wanted(peer.coin.address)))):
        for end in range(len(whole)):
            assert send(peer, command, whole[:end])[0] == 16
        assert send(peer, command, whole + b"\0")[0] == 16


@pytest.mark.parametrize("name", [b"", b"x" * 17])
def test_names_no_share_request_could_give(world: World, name: bytes) -> None:
    assert send(world.peer(world.ones[0]), 1, rke.build_preload_master_key(name, [])) == (198, b"")


def test_secrets_never_reach_the_log(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = world.peer(world.ones[0])

    def fail(*args: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(peer.node.state, "set_master_key", fail)
    with caplog.at_level(logging.DEBUG):
        assert send(peer, 1, PRELOAD) == (252, b"")
    assert "broken" in caplog.text
    assert not any(text in caplog.text for text in (SECRET.hex(), repr(SECRET), repr(PRELOAD)))
