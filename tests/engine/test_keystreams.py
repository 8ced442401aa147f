"""What an engine does, it does with nodes of either keystream (QMail wire A.6), and with both in one network."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmail_core import Address, Cluster, Source
from qmail_core.codec import consts as c
from qmail_core.model import ListKind, Profile, Striping
from tests.engine import check_books, content, couple, play, read
from tests.engine.test_change import check_coins
from tests.engine.test_heal import lose
from tests.engine.test_outgoing import started

NODES = 7
LARGE = bytes(range(256)) * 12_000  # more than one page at each node

kinds = pytest.mark.parametrize("nodes", [range(NODES), range(0, NODES, 2)], ids=["all", "some"])


def going_on(cluster: Cluster, nodes: range) -> None:
    """Have these nodes continue the keystream of a request in its answer."""
    for node in nodes:
        cluster.raida.nodes[node]._go_on = True


@kinds
def test_mail_and_its_attachments_arrive(nodes: range) -> None:
    async def story(cluster: Cluster) -> None:
        going_on(cluster, nodes)
        alice, bob = await couple(cluster, encryption=c.ENC_COIN)
        attached = [Source("small", data=b"small"), Source("large", data=LARGE)]
        await alice.send(alice.draft(["bob"], "subject", "body", attachments=attached))
        (got,) = await bob.receive()
        assert got.message.subject == "subject"
        assert got.stripes_recovered == 0
        found = [await content(bob, got.message.id, row.id) for row in bob.attachments(got.message.id)]
        assert found == [b"small", LARGE]
        check_books(cluster, alice)

    play(story, NODES)


@kinds
def test_peek_finds_what_waits_and_what_does_not(nodes: range) -> None:
    async def story(cluster: Cluster) -> None:
        going_on(cluster, nodes)
        alice, bob = await couple(cluster, encryption=c.ENC_COIN)
        assert not (await bob.peek()).notifications
        guid, _ = await started(alice)
        assert [row.tell.guid for row in (await bob.peek()).notifications] == [guid]

    play(story, NODES)


@kinds
@pytest.mark.parametrize("profile", [Profile.SEALED, Profile.INTEROP])
def test_objects_go_there_and_back(nodes: range, profile: Profile, tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        going_on(cluster, nodes)
        alice = await cluster.engine("alice", encryption=c.ENC_COIN)
        (tmp_path / "in").write_bytes(LARGE)
        striping = Striping(profile, NODES - 1, 1)
        manifest = await alice.objects.put_object(tmp_path / "in", striping)
        assert manifest.failed == ()
        assert await alice.objects.get_object(manifest, tmp_path / "out") == ()
        assert read(tmp_path / "out") == LARGE

    play(story, NODES)


@kinds
def test_the_directory_is_written_and_read(nodes: range) -> None:
    async def story(cluster: Cluster) -> None:
        going_on(cluster, nodes)
        alice, bob = await couple(cluster, encryption=c.ENC_COIN)
        assert not (await alice.publish_user("Alice", "Lidell")).behind
        found = await bob.get_user(alice.address)
        assert found is not None
        assert found.profile.first_name == "Alice"
        assert [row.profile.last_name for row in await bob.search_users("Al")] == ["Lidell"]
        await bob.list_set(ListKind.WHITE, alice.address)
        assert [(row.kind, row.address) for row in await bob.list_get()] == [(ListKind.WHITE, alice.address)]

    play(story, NODES)


@kinds
def test_coins_are_changed_and_mended(nodes: range) -> None:
    async def story(cluster: Cluster) -> None:
        going_on(cluster, nodes)
        alice = await cluster.engine("alice", balance=0, encryption=c.ENC_COIN)
        (large,) = cluster.mint([Address(2, 5)])
        await alice.deposit([large])
        ten = await alice.break_coin(large.address)
        lose(cluster, alice._store.wallet.coins("Default")[3], range(1, 4))
        healed = await alice.heal()
        assert [(row.before, row.after) for row in healed.coins] == [("pfffppp", "ppppppp")]
        one = await alice.join_coins(ten)
        assert list(alice.coins()) == [one]
        check_coins(cluster, alice, 100)

    play(story, NODES)
