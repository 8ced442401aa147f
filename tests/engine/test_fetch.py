"""Getting mail back: from any k honest servers, in good time, never a wrong byte, and the liars are named."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qmail_core import Cluster, Engine, ErasureError, QMailError, QuorumError, Source
from qmail_core.codec import mail
from qmail_core.model import Folder, Profile, StripeLocation, Striping
from tests.engine import content, couple, now, play

Lie = Callable[[bytes], bytes]


async def sent(alice: Engine, bob: Engine, **fields: Any) -> bytes:
    """A mail that waits for Bob."""
    await alice.send(alice.draft(["bob"], "s", "b" * 3000, **fields))
    return (await bob.peek()).notifications[-1].tell.guid


@pytest.mark.parametrize("nodes", [25, 8, 5])
def test_as_many_servers_may_be_lost_as_there_is_parity(nodes: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        rng = random.Random(7)
        for _ in range(8):
            guid = await sent(alice, bob)
            gone = set(rng.sample(range(nodes), cluster.striping.m))
            cluster.down |= gone
            got = await bob.download(guid)
            assert got.message.body == "b" * 3000
            assert (got.stripes_downloaded, got.stripes_recovered) == (nodes - len(gone), len(gone))
            assert got.liars == ()
            cluster.down.clear()

    play(story, nodes=nodes)


def test_one_lost_too_many_is_a_named_error_and_a_later_try_succeeds() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        data = os.urandom(5_000_000)
        guid = await sent(alice, bob, attachments=[Source(name="x", data=data)])
        cluster.down |= {1, 2, 3, 4, 5, 6}
        for _ in range(2):
            with pytest.raises(QuorumError) as lost:
                await bob.download(guid)
            assert set(lost.value.failures) == {1, 2, 3, 4, 5, 6}
            assert lost.value.message.endswith("failed servers: 1, 2, 3, 4, 5, 6")
            assert bob.messages(Folder.INBOX).total == 0
        assert [item.tell.guid for item in (await bob.peek()).notifications] == [guid]
        cluster.down.clear()
        got = await bob.download(guid)
        cluster.down |= {1, 2, 3, 4, 5, 6}
        with pytest.raises(QuorumError) as lost:
            await content(bob, got.message.id, got.attachments[0].id)
        assert set(lost.value.failures) == {1, 2, 3, 4, 5, 6}
        assert _files(bob) == []
        cluster.down.remove(6)
        assert await content(bob, got.message.id, got.attachments[0].id) == data
        assert len(_files(bob)) == 1

    play(story)


def _files(engine: Engine) -> list[Path]:
    return [path for path in Path(engine.config.data, "Attachments").rglob("*") if path.is_file()]


def _flip(at: int) -> Lie:
    def lie(data: bytes) -> bytes:
        wrong = bytearray(data)
        wrong[at % len(wrong)] ^= 1
        return bytes(wrong)

    return lie


LIES: dict[str, Lie] = {
    "first bit": _flip(0),
    "header index": _flip(8),
    "root": _flip(30),
    "path": _flip(100),
    "last byte": _flip(-1),
    "truncated": lambda data: data[:-1],
    "halved": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "extended": lambda data: data + b"\0",
    "zeros": lambda data: bytes(len(data)),
    "noise": lambda data: random.Random(len(data)).randbytes(len(data)),
    "reversed": lambda data: data[::-1],
    "twice": lambda data: data + data,
    "longer object": lambda data: data[:16] + b"\xff" + data[17:],
    "k of 1": lambda data: data[:6] + b"\1" + data[7:],
    "interop": lambda data: data[:5] + b"\0" + data[6:],
    "no magic": lambda data: b"XXXX" + data[4:],
    "header alone": lambda data: data[:64],
    "header twice": lambda data: data[:64] + data,
    "shifted": lambda data: data[1:] + b"\0",
}


@pytest.mark.parametrize("name", LIES)
def test_liars_are_outvoted_and_named(name: str) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        data = os.urandom(70_000)
        guid = await sent(alice, bob, attachments=[Source(name="x", data=data)])
        for node in (0, 7, 13, 21, 24):
            cluster.raida.nodes[node].tamper = LIES[name]
        got = await bob.download(guid)
        assert got.message.body == "b" * 3000
        assert got.liars == (0, 7, 13, 21, 24)
        assert (got.stripes_downloaded, got.stripes_recovered) == (20, 5)
        assert await content(bob, got.message.id, got.attachments[0].id) == data

    play(story)


def test_liars_that_agree_with_each_other_are_outvoted() -> None:
    """They serve stripes of another mail, of the same mail sent before, and of another index."""

    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        old = await sent(alice, bob)
        guid = await sent(alice, bob)
        for node in cluster.raida.nodes[:3]:
            other = {kind: node.state.page(old, kind, 0) for kind in (0, 1)}
            right = {kind: node.state.page(guid, kind, 0) for kind in (0, 1)}
            node.tamper = _instead({right[kind]: other[kind] for kind in (0, 1)})
        for node in cluster.raida.nodes[3:5]:
            twin = cluster.raida.nodes[(node.index + 7) % 25]
            node.tamper = _instead({node.state.page(guid, k, 0): twin.state.page(guid, k, 0) for k in (0, 1)})
        got = await bob.download(guid)
        assert got.message.guid == guid
        assert got.liars == (0, 1, 2, 3, 4)

    play(story)


def _instead(pages: dict[bytes | None, bytes | None]) -> Lie:
    def lie(data: bytes) -> bytes:
        found = pages[data]
        assert found is not None
        return found

    return lie


def test_one_liar_too_many_gives_an_error_and_no_mail() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        guid = await sent(alice, bob)
        for node in range(6):
            cluster.raida.nodes[node].tamper = _flip(200)
        with pytest.raises(QuorumError) as lost:
            await bob.download(guid)
        assert set(lost.value.failures) == set(range(6))
        assert all(isinstance(error, ErasureError) for error in lost.value.failures.values())
        assert bob.messages(Folder.INBOX).total == 0
        cluster.raida.nodes[0].tamper = None
        assert (await bob.download(guid)).liars == (1, 2, 3, 4, 5)

    play(story)


def test_liars_on_later_pages_of_a_large_attachment_change_nothing() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        data = os.urandom(9_000_000)
        guid = await sent(alice, bob, attachments=[Source(name="x", data=data)])
        got = await bob.download(guid)
        for node in (2, 3, 5, 8, 13):
            honest = cluster.raida.nodes[node].state.page(guid, 10, 0) or b""
            cluster.raida.nodes[node].tamper = _but(honest, _flip(50_000))
        assert await content(bob, got.message.id, got.attachments[0].id) == data

    play(story)


def _but(honest: bytes, lie: Lie) -> Lie:
    return lambda data: data if data == honest else lie(data)


@pytest.mark.parametrize("damage", [_flip(10), lambda data: data[:-1], lambda data: b""], ids=["flip", "cut", "empty"])
def test_a_wrong_stripe_of_the_interop_profile_is_found_by_the_checksum(damage: Lie) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster, encryption=1)
        guid = await sent(alice, bob)
        cluster.raida.nodes[3].tamper = damage
        got = await bob.download(guid)
        assert got.message.body == "b" * 3000
        assert got.liars == (3,)
        guid = await sent(alice, bob)
        cluster.raida.nodes[4].tamper = damage
        with pytest.raises(QMailError):
            await bob.download(guid)
        assert bob.messages(Folder.INBOX).total == 1

    play(story, striping=Striping(Profile.INTEROP, 24, 1))


@pytest.mark.parametrize("slow", [(4,), (0, 6, 12, 18, 24)])
@pytest.mark.parametrize("size", [0, 25_000_000])
def test_slow_servers_stall_no_download(slow: tuple[int, ...], size: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        data = os.urandom(size)
        guid = await sent(alice, bob, attachments=[Source(name="x", data=data)])
        cluster.delay.update(dict.fromkeys(slow, 100.0))
        begun = now()
        got = await bob.download(guid)
        assert (got.stripes_downloaded, got.stripes_recovered) == (25 - len(slow), len(slow))
        assert await content(bob, got.message.id, got.attachments[0].id) == data
        assert now() - begun <= 1.0

    play(story)


@pytest.mark.parametrize("beyond", [{0, 1, 2, 3}, {22, 23, 24}])
def test_servers_that_hang_when_asked_later_are_timed_out(beyond: set[int]) -> None:
    """The first to be asked fail at once, those asked instead never answer: an error in good time, not a hang."""

    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        guid = await sent(alice, bob, attachments=[Source(name="x", data=os.urandom(9_000_000))])
        got = await bob.download(guid)
        order = bob._ctx.fanout.health.order(range(25))
        cluster.down |= set(order[:4])
        cluster.delay.update(dict.fromkeys(order[22:], 10_000.0))
        with pytest.raises(QuorumError):
            await content(bob, got.message.id, got.attachments[0].id)
        assert now() < 100

    play(story)


async def with_tell(bob: Engine, guid: bytes, **changes: Any) -> bytes:
    """Replace a tell that waits by a changed one; its mail's new GUID."""
    tell = mail.parse_record(memoryview(bob._store.mail.tell(guid).record))[0]
    other = bytes(reversed(guid))
    record = mail.build_record(msgspec.structs.replace(tell, guid=other, **changes))
    await bob._store.mail.add_tells([(other, record)], int(bob._ctx.clock()))
    return other


@pytest.mark.parametrize(
    "changes",
    [
        {"striping": Striping(Profile.SEALED, 0, 5)},
        {"striping": Striping(Profile.SEALED, 20, 0)},
        {"striping": Striping(Profile.SEALED, 255, 255)},
        {"striping": Striping(Profile.RS, 1, 1)},
        {"striping": Striping(Profile.INTEROP, 2, 1), "servers": (StripeLocation(0, True, 0),)},
        {"striping": Striping(Profile.INTEROP, 2, 1), "servers": (StripeLocation(255, True, 0),)},
        {"servers": (StripeLocation(0, False, 200), StripeLocation(1, True, 255))},
        {"servers": tuple(StripeLocation(0, False, node) for node in range(25))},
        {"files": ()},
    ],
    ids=str,
)
def test_a_tell_that_makes_no_sense_is_an_error_of_its_mail_alone(changes: dict[str, Any]) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        guid = await sent(alice, bob)
        wrong = await with_tell(bob, guid, **changes)
        with pytest.raises(QMailError):
            await bob.download(wrong)
        assert now() < 15
        assert (await bob.download(guid)).message.guid == guid

    play(story)


def test_servers_that_do_not_exist_are_left_out() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        guid = await sent(alice, bob)
        tell = mail.parse_record(memoryview(bob._store.mail.tell(guid).record))[0]
        listed = (*tell.servers[1:], StripeLocation(0, False, 99))
        record = mail.build_record(msgspec.structs.replace(tell, servers=listed))
        await bob._store._database.write(lambda db: db.execute("UPDATE tell SET record=?", (record,)))  # type: ignore[attr-defined]
        assert (await bob.download(guid)).stripes_downloaded == 24

    play(story)


def test_a_mail_can_be_fetched_without_its_tell() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        files = [Source(name="x", data=b"x"), Source(name="y", data=os.urandom(100_000))]
        draft = alice.draft(["bob"], "s", "b", attachments=files)
        started = await alice.start_upload(draft, tell=False)
        await alice.wait(started.task_id)
        got = await bob.download(started.guid, sender_sn=alice.address.serial)
        assert (got.message.sender, [row.size for row in got.attachments]) == (alice.address, [1, 100_000])
        assert [await content(bob, got.message.id, row.id) for row in got.attachments] == [f.data for f in files]

    play(story)


def test_downloads_at_the_same_time_yield_one_message() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        guid = await sent(alice, bob, attachments=[Source(name="x", data=b"x")])
        found = await asyncio.gather(*(bob.download(guid) for _ in range(5)))
        assert {got.message.id for got in found} == {guid}
        assert sum(not got.already_downloaded for got in found) == 1
        assert bob.messages(Folder.INBOX).total == 1
        (row,) = found[0].attachments
        files = await asyncio.gather(*(bob.attachment(guid, row.id) for _ in range(5)))
        assert len({file.path for file in files}) == 1
        assert (await bob.download(guid)).already_downloaded

    play(story)
