"""A mail an early client stored and announced with commands 60 and 61, received by the engine."""

from __future__ import annotations

import pytest

from qmail_core import Cluster, Engine
from qmail_core.codec import message
from qmail_core.codec.cbdf import MailMeta
from qmail_core.model import StripeLocation
from qmail_core.raida.node import Policy
from tests.reference import legacy as old

from . import T0, content, play

GUID = bytes(range(16))
D = 4
FILES = ("one.txt", "two.bin")


def store_old_mail(cluster: Cluster, alice: Engine, bob: Engine, attachments: list[bytes]) -> None:
    """What an early client does, frame by frame."""
    fields = MailMeta(
        guid=GUID,
        subject="From long ago",
        sender=alice._ctx.address,
        to=(bob._ctx.address,),
        timestamp=int(T0),
        attachment_names=FILES[: len(attachments)],
    )
    meta, body = message.compose(fields, "Old but readable")
    files = {0: old.stripes(meta, D), 1: old.stripes(body, D)}
    files |= {10 + i: old.stripes(data, D, attachment=True) for i, data in enumerate(attachments)}
    for node in range(D + 1):
        for file_type, stripes in files.items():
            request = old.upload(who(alice, node), GUID, b"ABC-1234", file_type, 2, stripes[node])
            ask(cluster, node, 60, request)
    mailbox = bob._ctx.address
    entry = old.address_entry(mailbox.denomination, mailbox.serial, bytes(8))
    places = [old.location(i, int(i == D), (127, 0, 0, 1), 50_000 + i) for i in range(D + 1)]
    ask(cluster, 11, 61, old.tell(who(alice, 11), GUID, len(body), int(T0), bytes(8), [entry], places))


def who(engine: Engine, node: int) -> bytes:
    coin = engine._ctx.coin
    return old.preamble(coin.address.denomination, coin.address.serial, coin.an(node))


def ask(cluster: Cluster, node: int, command: int, body: bytes) -> None:
    outcome = cluster.raida.nodes[node].handle(old.frame(command, node, body), T0)
    assert outcome.reply is not None
    assert outcome.reply[2] == 250


@pytest.mark.parametrize("trouble", ["none", "down", "lie"])
def test_an_old_mail_with_attachments(trouble: str) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await cluster.engine("alice"), await cluster.engine("bob")
        attachments = [b"first\0\0", bytes(range(256)) * 200]
        store_old_mail(cluster, alice, bob, attachments)
        if trouble == "down":
            cluster.down |= {2}
        elif trouble == "lie":
            cluster.raida.nodes[2].tamper = lambda data: bytes([data[0] ^ 1]) + data[1:]
        (mail,) = await bob.receive()
        assert (mail.message.subject, mail.message.body) == ("From long ago", "Old but readable")
        assert mail.liars == ((2,) if trouble == "lie" else ())
        assert [(a.name, a.size) for a in mail.attachments] == list(zip(FILES, map(len, attachments), strict=True))
        for stored, data in zip(mail.attachments, attachments, strict=True):
            assert await content(bob, mail.message.id, stored.id) == data

    play(story, policy=Policy(legacy_commands=True, storage_fee=0, inbox_fee=0))


def test_a_location_without_index_is_found_by_its_address() -> None:
    async def story(cluster: Cluster) -> None:
        ctx = (await cluster.engine("alice"))._ctx
        assert ctx.node_at(StripeLocation(0, False, 255, "127.0.0.1", 50_007)) == 7
        assert ctx.node_at(StripeLocation(0, False, 255, "127.0.0.1", 49_000)) is None
        assert ctx.node_at(StripeLocation(0, False, 3, "192.0.2.1", 1)) == 3

    play(story)
