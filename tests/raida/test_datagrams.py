"""raida.node over UDP: what is ignored, what needs TCP, and how much is answered."""

from __future__ import annotations

import pytest

from qmail_core.codec import cipher, mail
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import NO_KEY
from qmail_core.raida.node import DATAGRAM_FACTOR, Policy

from .client import GUID, NOW, World, frame_of, opened, request, tell_from


@pytest.mark.parametrize("data", [b"", bytes(16), b"\1\0\1" + bytes(13), b"\7" + bytes(90)])
def test_short_datagrams_and_votes_of_servers_are_ignored(data: bytes) -> None:
    outcome = World().cluster.nodes[1].handle_datagram(bytearray(data), NOW)
    assert (outcome.reply, outcome.wait, outcome.changed) == (None, None, False)


@pytest.mark.parametrize("enc", [0, 1, 4])
def test_small_commands_work_as_over_tcp(enc: int) -> None:
    world = World()
    key = cipher.coin_key(enc, world.ones[0], 1) if enc else NO_KEY
    sent = request(1, 0, c.CMD_VERSION, bytes(8), key=key)
    reply = opened(sent, world.cluster.nodes[1].handle_datagram(frame_of(sent), NOW))
    assert (reply.status, bytes(reply.payload)) == (250, b"Q261121F")


def test_commands_that_need_tcp_say_so() -> None:
    world = World()
    peer = world.peer(world.ones[0])
    for command in (c.CMD_PING, c.CMD_UPLOAD_PAGE):
        sent = request(1, 6, command, peer.identity + bytes(60), key=peer.key)
        reply = opened(sent, peer.node.handle_datagram(frame_of(sent), NOW))
        assert reply.status == c.STATUS_TCP_REQUIRED


def test_an_answer_too_large_for_a_datagram_takes_no_effect() -> None:
    world = World(policy=Policy(inbox_fee=0, datagram_limit=300))
    sender, reader = world.peer(world.ones[0]), world.peer(world.ones[1])
    for number in range(3):
        recipient = mail.TellRecipient(reader.coin.address)
        assert sender.tell(tell_from(sender.coin, bytes([number]) * 16), recipient) == 250
    sent = request(1, 6, c.CMD_PEEK, reader.identity + mail.build_poll(0), key=reader.key)
    outcome = reader.node.handle_datagram(frame_of(sent), NOW)
    reply = opened(sent, outcome)
    assert (reply.status, reply.proven, outcome.changed) == (c.STATUS_PACKET_LENGTH, True, False)
    assert len(reader.peek()) == 3


def test_effects_of_others_in_the_same_turn_stay() -> None:
    world = World(policy=Policy(storage_fee=0, datagram_limit=40))
    peer = world.peer(world.ones[0])
    rest = mail.build_upload(GUID, bytes(16), 1, 2, 4) + b"kept"
    upload = request(1, 6, c.CMD_UPLOAD, peer.identity + rest, key=cipher.coin_key(1, peer.coin, 1))
    assert opened(upload, peer.node.handle(frame_of(upload), NOW)).status == 250
    sent = request(1, 0, c.CMD_VERSION, key=cipher.coin_key(1, peer.coin, 1))
    outcome = peer.node.handle_datagram(frame_of(sent), NOW)
    assert opened(sent, outcome).status == c.STATUS_PACKET_LENGTH
    assert outcome.changed
    peer.node.state.commit()
    assert bytes(mail.parse_page(peer.download().payload)) == b"kept"


def test_nobody_unknown_gets_much_more_than_was_sent() -> None:
    world = World()
    node = world.cluster.nodes[1]
    for body in range(0, 60, 3):
        sent = request(1, 0, c.CMD_COUNT, bytes(body))
        size = len(bytes(sent.frame))
        outcome = node.handle_datagram(frame_of(sent), NOW)
        assert outcome.reply is not None
        assert len(outcome.reply) <= DATAGRAM_FACTOR * size
    tight = World(policy=Policy(datagram_limit=100)).cluster.nodes[1]
    sent = request(1, 0, c.CMD_COUNT)
    assert opened(sent, tight.handle_datagram(frame_of(sent), NOW)).status == c.STATUS_PACKET_LENGTH


@pytest.mark.parametrize("keystream", ["restart", "continue"])
def test_both_keystreams_can_be_chosen(keystream: str) -> None:
    world = World(policy=Policy(keystream=keystream))  # type: ignore[arg-type]
    for coin_type in (c.ENC_COIN, c.ENC_COIN256):
        sent = request(1, 0, c.CMD_VERSION, b"odd", key=cipher.coin_key(coin_type, world.ones[0], 1))
        reply = opened(sent, world.cluster.nodes[1].handle(frame_of(sent), NOW))
        if keystream == "continue" and coin_type == c.ENC_COIN:
            reply = reply.reread() or reply
        assert bytes(reply.payload) == b"Q261121F"
