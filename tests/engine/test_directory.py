"""The directory over a whole network: nodes that are away, that lag, that lie; and what it changes for a send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from qmail_core import Address, Cluster, Engine, ListKind, NodeError, QuorumError, TellError, UsageError
from qmail_core.codec.directory import UNITS_PER_COIN, build_user_record
from qmail_core.codec.mail import build_selector
from qmail_core.model import ListEntry, UserProfile, UserRecord
from qmail_core.store.base import LockerKind
from tests.conftest import skip
from tests.engine import check_books, couple, lockers, now, play

ALICE = UserProfile(fee=5 * UNITS_PER_COIN // 2, symbol1=5, symbol2=17, first_name="Alice", last_name="Smith")


async def publish_alice(alice: Engine) -> None:
    await alice.publish_user("Alice", "Smith", symbols=(5, 17), inbox_fee="2.5")


def forge(cluster: Cluster, nodes: Iterable[int], who: Address, profile: UserProfile) -> None:
    """Nodes that say something else, and would show it in searches."""
    for node in nodes:
        record = build_user_record(UserRecord(who, profile, 1, 1))
        cluster.raida.nodes[node].state.put_user(build_selector(who), record, b"alice", b"smith")
        cluster.raida.nodes[node].state.commit()


def holders(cluster: Cluster, who: Address) -> set[int]:
    return {node.index for node in cluster.raida.nodes if node.state.user(build_selector(who)) is not None}


async def profile_of(engine: Engine, who: Address) -> UserProfile | None:
    record = await engine.get_user(who)
    return None if record is None else record.profile


def test_what_one_publishes_another_finds() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        assert await bob.get_user(alice.address) is None
        published = await alice.publish_user("Alice", "Smith", symbols=(5, 17), inbox_fee="2.5")
        assert (published.accepted, published.behind) == (tuple(range(25)), ())
        found = await bob.get_user(alice.address)
        assert found is not None
        assert (found.address, found.profile, found.created_at) == (alice.address, ALICE, bob._ctx.now())
        assert list(await bob.search_users("ali")) == list(await bob.search_users(last="SM", limit=1)) == [found]
        assert list(await bob.search_users("ali", "jones")) == []
        await asyncio.sleep(100)
        await alice.publish_user("Alice", "Jones")
        changed = await bob.get_user(alice.address)
        assert changed is not None
        assert (changed.created_at, changed.updated_at - changed.created_at) == (found.created_at, 100)
        assert changed.profile.fee == 10 * UNITS_PER_COIN
        assert (await alice.delete_user()).behind == (await alice.delete_user()).behind == ()
        assert await bob.get_user(alice.address) is None
        assert list(await bob.search_users("ali")) == []

    play(story)


def test_lists_belong_to_their_owner() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.list_set(ListKind.BLACK, bob.address, Address(0, 7))
        await alice.list_set(ListKind.WHITE, bob.address)
        entries = [ListEntry(Address(0, 7), ListKind.BLACK), ListEntry(bob.address, ListKind.WHITE)]
        assert list(await alice.list_get()) == entries
        assert list(await bob.list_get()) == []
        await alice.list_remove(Address(0, 7), Address(0, 8))
        assert list(await alice.list_get()) == entries[1:]

    play(story)


def test_twelve_nodes_may_be_dead_and_are_told_later() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.down.update(range(12))
        published = await alice.publish_user("Alice", "Smith", symbols=(5, 17), inbox_fee="2.5")
        assert (published.accepted, published.behind) == (tuple(range(12, 25)), tuple(range(12)))
        await alice.list_set(ListKind.BLACK, Address(0, 7), Address(0, 8))
        await alice.list_remove(Address(0, 8))
        assert await profile_of(bob, alice.address) == ALICE
        assert [record.profile for record in await bob.search_users("Alice")] == [ALICE]
        assert [entry.address for entry in await alice.list_get()] == [Address(0, 7)]
        # they come back without the record: a miss is no proof
        cluster.down.clear()
        assert holders(cluster, alice.address) == set(range(12, 25))
        assert await profile_of(bob, alice.address) == ALICE
        await asyncio.sleep(30)
        assert holders(cluster, alice.address) == set(range(25))
        for node in cluster.raida.nodes:
            assert node.state.list_entries(build_selector(alice.address)) == [(b"\0\0\0\0\x07", ListKind.BLACK)]

    play(story)


def test_a_node_that_missed_several_changes_gets_the_last() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.publish_user("Alice")
        cluster.down.update({3, 4})
        await alice.publish_user("Alicia")
        assert (await alice.delete_user()).behind == (3, 4)
        cluster.down.clear()
        cluster.down.add(4)
        await asyncio.sleep(30)
        assert holders(cluster, alice.address) == {4}
        cluster.down.clear()
        await alice.publish_user("Alice", "Smith")  # overtakes what node 4 was owed
        await asyncio.sleep(3600)
        assert holders(cluster, alice.address) == set(range(25))
        found = await profile_of(bob, alice.address)
        assert found is not None
        assert found.last_name == "Smith"

    play(story)


def test_the_majority_is_believed() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await publish_alice(alice)
        lie = UserProfile(fee=0, first_name="Alice", last_name="Mallory")
        forge(cluster, range(12), alice.address, lie)
        assert await profile_of(bob, alice.address) == ALICE
        assert [record.profile for record in await bob.search_users("Alice")] == [ALICE]
        # somebody who never published is not made up by a few
        forge(cluster, range(12), bob.address, lie)
        assert await bob.get_user(bob.address) is None
        assert len(await bob.search_users("Alice")) == 1
        for node in range(12):
            state = cluster.raida.nodes[node].state
            state.set_listed(build_selector(alice.address), [(build_selector(bob.address), ListKind.BLACK)])
        assert list(await alice.list_get()) == []

    play(story)


def test_the_times_of_liars_do_not_matter() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await publish_alice(alice)
        forge(cluster, range(6), alice.address, ALICE)
        found = await bob.get_user(alice.address)
        assert found is not None
        assert found.updated_at == bob._ctx.now()

    play(story)


def test_liars_and_dead_nodes_together() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await publish_alice(alice)
        cluster.down.update(range(10))
        forge(cluster, range(10, 13), alice.address, UserProfile())
        assert await profile_of(bob, alice.address) == ALICE
        forge(cluster, range(13, 18), alice.address, UserProfile(fee=1))
        with pytest.raises(QuorumError, match="disagree"):
            await bob.get_user(alice.address)

    play(story)


def test_a_record_of_another_mailbox_is_no_answer() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await publish_alice(alice)
        for node in cluster.raida.nodes[:13]:
            record = build_user_record(UserRecord(bob.address, ALICE, 1, 1))
            node.state.put_user(build_selector(alice.address), record, b"", b"")
        with pytest.raises(QuorumError, match="only 12 of 25 nodes answered"):
            await bob.get_user(alice.address)

    play(story)


Call = Callable[[Engine], object]
CALLS: list[Call] = [
    lambda engine: engine.get_user(Address(1, 1)),
    lambda engine: engine.search_users("a"),
    lambda engine: engine.list_get(),
    lambda engine: engine.publish_user("Alice"),
    lambda engine: engine.delete_user(),
    lambda engine: engine.list_set(ListKind.BLACK, Address(1, 1)),
    lambda engine: engine.list_remove(Address(1, 1)),
]


@pytest.mark.parametrize("call", CALLS)
def test_without_a_quorum_nothing_is_said_or_promised(call: Call) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        cluster.down.update(range(13))
        with pytest.raises(QuorumError, match="only 12 of 25 nodes") as caught:
            await call(alice)  # type: ignore[misc]
        assert set(caught.value.failures) == set(range(13))

    play(story)


def test_what_most_nodes_refuse_has_their_reason() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        await alice.list_set(ListKind.WHITE, *(Address(0, serial) for serial in range(1000)))
        with pytest.raises(NodeError, match="parameter invalid") as caught:
            await alice.list_set(ListKind.WHITE, Address(1, 1))
        assert caught.value.status == 198
        assert len(await alice.list_get()) == 1000

    play(story)


REFUSED: list[Call] = [
    lambda engine: engine.publish_user("x" * 64),
    lambda engine: engine.publish_user(symbols=(256, 0)),
    lambda engine: engine.publish_user(inbox_fee="-1"),
    lambda engine: engine.publish_user(inbox_fee="0.000000001"),
    lambda engine: engine.search_users(),
    lambda engine: engine.search_users("", ""),
    lambda engine: engine.search_users("a", limit=51),
    lambda engine: engine.search_users("x" * 64),
    lambda engine: engine.list_set(ListKind.BLACK),
    lambda engine: engine.list_remove(),
    lambda engine: engine.get_user(Address(1, 1 << 32)),
]


@pytest.mark.parametrize("call", REFUSED)
def test_values_that_make_no_sense(call: Call) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        with pytest.raises(UsageError):
            await call(alice)  # type: ignore[misc]

    play(story, nodes=5)


def test_nodes_that_hang_delay_no_answer_that_is_certain() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.delay.update(dict.fromkeys(range(12), 1000.0))
        await publish_alice(alice)
        assert now() <= 0.6
        begun = now()
        assert await profile_of(bob, alice.address) == ALICE
        assert now() == begun
        await bob.search_users("Alice")
        assert now() - begun <= 1.0

    play(story)


# ------------------------------------------------------------------------------------------------------------------
# what a send makes of it


@pytest.mark.parametrize(("fee", "cost"), [("0", 0), ("2.5", 3), ("10", 10), ("23", 23)])
def test_a_send_pays_what_the_recipient_asks(fee: str, cost: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await bob.publish_user("Bob", inbox_fee=fee)
        result = await alice.send(alice.draft(["bob"], "s", "b"))
        assert result.inbox_cost == cost
        paid = [locker.value for locker in lockers(alice) if locker.kind == LockerKind.INBOX]
        assert paid == [cost] * bool(cost)
        assert result.receipt.upload.inbox_fee_acquired == bool(cost)
        assert len(await bob.receive()) == 1
        check_books(cluster, alice)

    play(story)


def test_recipients_have_fees_of_their_own() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        carol, dave = await cluster.engine("carol"), await cluster.engine("dave")
        await bob.publish_user("Bob", inbox_fee=3)
        await carol.publish_user("Carol", inbox_fee=0)
        result = await alice.send(alice.draft(["carol", "bob", "dave"], "s", "b"))
        assert result.inbox_cost == 13
        assert [len(await engine.receive()) for engine in (bob, carol, dave)] == [1, 1, 1]
        check_books(cluster, alice)

    play(story)


def test_a_fee_beyond_the_limit_is_not_paid() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster, max_inbox_fee=20)
        await bob.publish_user("Bob", inbox_fee=21)
        tell = (await alice.send(alice.draft(["bob"], "s", "b"))).receipt.tell
        assert tell.recipients[0].status == "retry_queued"  # the beacon may ask for less one day
        assert [locker.value for locker in lockers(alice) if locker.kind == LockerKind.INBOX] == [10]
        check_books(cluster, alice)

    play(story)


def test_a_rejected_class_pays_nothing_and_the_white_list_lets_it_in() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await bob.publish_user("Bob", class_rejection=2)
        with pytest.raises(TellError):
            await alice.send(alice.draft(["bob"], "s", "b"))
        await bob.list_set(ListKind.WHITE, alice.address)
        assert (await alice.send(alice.draft(["bob"], "s", "b"))).inbox_cost == 0
        assert len(await bob.receive()) == 1
        await bob.list_set(ListKind.BLACK, alice.address)
        with pytest.raises(TellError):
            await alice.send(alice.draft(["bob"], "s", "b"))
        assert not [locker for locker in lockers(alice) if locker.kind == LockerKind.INBOX]
        check_books(cluster, alice)

    play(story)


def test_an_answer_is_remembered_for_a_while() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await bob.publish_user("Bob", inbox_fee=0)
        assert await alice._directory.fees([bob.address, bob.address]) == [0, 0]
        await bob.publish_user("Bob", inbox_fee=7)
        assert await alice._directory.fees([bob.address]) == [0]
        skip(61)
        assert await alice._directory.fees([bob.address]) == [7]
        await bob.publish_user("Bob", inbox_fee=8)
        skip(61)
        cluster.down.update(range(13))
        assert await alice._directory.fees([bob.address]) == [7]  # old news are better than none
        cluster.down.clear()
        await alice.get_user(bob.address)  # whoever looks, learns for the sends too
        assert await alice._directory.fees([bob.address]) == [8]

    play(story)


def test_a_silent_directory_stalls_no_mail() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await bob.publish_user("Bob", inbox_fee=7)
        many = [Address(2, serial) for serial in range(1, 50)]
        cluster.delay.update(dict.fromkeys(range(13), 1000.0))
        assert await alice._directory.fees([bob.address, *many]) == [10] * 50
        assert now() <= 1.0
        begun = now()
        assert await alice._directory.fees([bob.address, *many]) == [10] * 50
        assert now() == begun
        cluster.delay.clear()
        skip(31)
        assert await alice._directory.fees([bob.address]) == [7]

    play(story)


def test_two_sends_at_once_both_wait_for_the_answer() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await bob.publish_user("Bob", inbox_fee=7)
        cluster.delay.update(dict.fromkeys(range(25), 0.1))
        found = await asyncio.gather(*(alice._directory.fees([bob.address]) for _ in range(3)))
        assert found == [[7], [7], [7]]

    play(story)


def test_only_so_many_mailboxes_are_remembered() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        directory = alice._directory
        for serial in range(1100):
            directory._remember(Address(1, serial), 1, 60.0)
        assert len(directory._known) == 1000
        assert Address(1, 99) not in directory._known

    play(story, nodes=5)


def test_a_bug_in_a_look_up_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        monkeypatch.setattr(alice._directory, "get", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await alice._directory.fees([Address(1, 1)])

    play(story, nodes=5)
