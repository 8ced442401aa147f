"""Lockers in doubt: what a node may have taken is never free before the network said so, and nothing stays in doubt."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qmail_core import Cluster, Draft, Engine, Source
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import locker_key
from qmail_core.codec.mail import build_selector
from qmail_core.codec.packet import Refused
from qmail_core.engine.change import FRACKED
from qmail_core.engine.limbo import Pauses
from qmail_core.model import Started
from qmail_core.raida import mail
from qmail_core.raida.node import Policy
from qmail_core.store.base import Claim, LockerKind, LockerState
from tests.conftest import skip, virtual
from tests.engine import BALANCE, check_books, couple, lockers, now, play
from tests.engine.test_outgoing import row, started
from tests.engine.test_send import stored, until_stored


def states(engine: Engine, **where: Any) -> set[LockerState]:
    return {locker.state for locker in lockers(engine, **where)}


async def works(alice: Engine) -> None:
    """The next mails find no locker in the pool that somebody has taken."""
    for _ in range(3):
        guid, _ = await started(alice)
        assert alice.receipt(guid).upload.servers.ok == 25
        assert row(alice, guid).status == "sent"


class Stop:
    """Holds a method of an engine's part up for ever, as if the process died there."""

    def __init__(self, part: Any, name: str, **when: object) -> None:
        self.reached = asyncio.Event()
        self._part, self._name, self._real, self._when = part, name, getattr(part, name), when
        setattr(part, name, self._call)

    async def _call(self, *args: Any, **kwargs: Any) -> Any:
        if self._when.items() <= kwargs.items():
            self.reached.set()
            await asyncio.Event().wait()
        return await self._real(*args, **kwargs)

    async def die(self, alice: Engine) -> None:
        """Wait until it is called, and end what runs."""
        await self.reached.wait()
        await alice._tasks.close()
        setattr(self._part, self._name, self._real)


async def crashed_behind_the_upload(alice: Engine, draft: Draft) -> Started:
    """All servers have everything, and the process dies before that is written down."""
    begun = await alice.start_upload(draft, tell=True)
    await Stop(alice._sender, "_settle_lockers").die(alice)
    return begun


# ------------------------------------------------------------------------------------------------------------------
# sends that fail


def test_what_an_earlier_process_spent_is_not_free_when_its_send_fails_in_the_next(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        path = tmp_path / "a.txt"
        await asyncio.to_thread(path.write_bytes, b"hello")
        alice, _ = await couple(cluster, roots=(str(tmp_path),))
        draft = alice.draft(["bob"], "s", "b", attachments=[Source(name="a", path=str(path))])
        begun = await crashed_behind_the_upload(alice, draft)
        await asyncio.to_thread(path.write_bytes, b"hello, edited")
        alice._sender.resume()
        assert (await alice.wait(begun.task_id)).status == "failed"
        assert states(alice, guid=begun.guid) == {LockerState.LIMBO}
        check_books(cluster, alice)
        await asyncio.sleep(30)
        assert states(alice, guid=begun.guid) == {LockerState.CONSUMED}
        check_books(cluster, alice)
        await works(alice)

    play(story)


def test_a_mail_taken_back_right_after_a_restart_leaves_nothing_reserved() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        begun = await crashed_behind_the_upload(alice, alice.draft(["bob"], "s", "b"))
        alice._sender.resume()
        assert (await alice.cancel(begun.task_id)).status == "cancelled"
        await asyncio.sleep(30)
        assert states(alice, guid=begun.guid) == {LockerState.CONSUMED}
        assert not lockers(alice, state=LockerState.LIMBO)
        check_books(cluster, alice)

    play(story)


def test_a_locker_two_objects_share_is_spent_when_one_of_them_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    sick: set[int] = set()
    real = mail.store

    def store(context: Any, sender: bytes, wanted: Any, when: float) -> Any:
        if wanted.file_type == c.FILE_META and context.index in sick:
            raise Refused(c.STATUS_FILESYSTEM)
        return real(context, sender, wanted, when)

    monkeypatch.setattr(mail, "store", store)

    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        await alice.fill_pool()
        cluster.delay.update(dict.fromkeys(range(25), 0.01))
        sick.update(range(6))
        guid, state = await started(alice)
        assert state.status == "failed"
        await asyncio.sleep(30)
        assert states(alice, guid=guid) == {LockerState.CONSUMED}
        check_books(cluster, alice)
        sick.clear()
        await works(alice)

    play(story)


def test_nothing_of_a_failed_mail_comes_to_a_server_later(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        path = tmp_path / "b"
        await asyncio.to_thread(path.write_bytes, b"hello")
        alice, _ = await couple(cluster, roots=(str(tmp_path),), pool_upload=15)
        await alice.fill_pool()
        cluster.delay.update({0: 0.01, 4: 20.0})  # what comes to 4 comes long after the locker was looked into
        files = [Source(name="a", data=bytes(24_000_000)), Source(name="b", path=str(path))]
        begun = await alice.start_upload(alice.draft(["bob"], "s", "b", attachments=files), tell=True)
        await until_stored(cluster, begun.guid)
        await asyncio.to_thread(path.write_bytes, b"")
        assert (await alice.wait(begun.task_id)).status == "failed"
        del cluster.delay[4]
        await asyncio.sleep(60)
        assert not stored(cluster, begun.guid) & {4}
        check_books(cluster, alice)

    play(story, nodes=5)


def test_a_crash_while_a_send_is_given_up_frees_nothing_it_uses_again() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        await alice.fill_pool()
        assert alice._background is not None
        alice._background.cancel()
        cluster.delay.update(dict.fromkeys(range(6), 1e9))
        begun = await alice.start_upload(alice.draft(["bob"], "s", "b"), tell=True)
        await Stop(alice._mailbox, "returned").die(alice)
        assert states(alice, guid=begun.guid) == {LockerState.LIMBO}
        cluster.delay.clear()
        alice._sender.resume()
        skip(60)
        await asyncio.gather(alice._wallet.recover(), alice.wait(begun.task_id))
        skip(60)
        await alice._wallet.recover()
        assert states(alice, guid=begun.guid) == {LockerState.CONSUMED}
        check_books(cluster, alice)

    play(story)


# ------------------------------------------------------------------------------------------------------------------
# repairs, fees, objects


def test_a_repair_given_up_lets_go_of_its_lockers_and_a_later_one_gets_others() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        cluster.raida.nodes[3]._context.policy = Policy(storage_fee=2)  # refuses to take them
        guid, _ = await started(alice)
        assert [x.node for x in lockers(alice, guid=guid) if x.state == LockerState.RESERVED] == [3]
        while alice._store.sends.due_repairs(1 << 40):
            skip(3601)
            await alice._repairer.repair_due()
        assert not lockers(alice, state=LockerState.RESERVED)
        await asyncio.sleep(10)
        assert not lockers(alice, state=LockerState.LIMBO)
        assert 3 not in {locker.node for locker in lockers(alice, guid=guid)}
        cluster.raida.nodes[3]._context.policy = Policy()
        assert (await alice.repair(guid)).survives_loss_of == 5
        assert states(alice, guid=guid) == {LockerState.CONSUMED}
        check_books(cluster, alice)

    play(story)


def test_a_repair_on_request_goes_on_in_the_background() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        guid, _ = await started(alice)
        cluster.raida.lose(4, guid)
        cluster.raida.commit()
        cluster.down.add(4)
        assert (await alice.repair(guid)).survives_loss_of == 4
        cluster.down.clear()
        await asyncio.sleep(20)
        assert alice.receipt(guid).upload.survives_loss_of == 5
        assert alice._store.sends.due_repairs(1 << 40) == []

    play(story)


def test_a_repair_planned_before_its_upload_was_written_down_spends_nothing() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        cluster.down.add(3)
        begun = await alice.start_upload(alice.draft(["bob"], "s", "b"), tell=True)
        await Stop(alice._decisions, "uploaded").die(alice)
        skip(60)
        await alice._repairer.repair_due()
        assert {x.node for x in lockers(alice, guid=begun.guid, state=LockerState.RESERVED)} == {3, None}
        cluster.down.clear()
        alice._sender.resume()
        assert (await alice.wait(begun.task_id)).status == "success"
        await asyncio.sleep(30)
        assert not lockers(alice, state=LockerState.RESERVED)
        check_books(cluster, alice)

    play(story)


async def fee_in_doubt(cluster: Cluster, alice: Engine) -> bytes:
    """A mail whose tell was given up while its beacons were away."""
    await alice.fill_pool()
    cluster.down |= {11, 14}
    guid, _ = await started(alice)
    while alice._store.sends.due_tells(1 << 40):
        skip(3601)
        await alice._outgoing.retry_due()
    cluster.down.clear()
    (fee,) = lockers(alice, state=LockerState.LIMBO)
    assert fee.kind == LockerKind.INBOX
    return guid


def test_a_fee_shown_again_is_not_freed_by_what_beacons_said_before() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        guid = await fee_in_doubt(cluster, alice)
        assert alice._background is not None
        alice._background.cancel()
        skip(60)
        cluster.delay[14] = 3.0
        recovering = asyncio.create_task(alice._wallet.recover())
        await asyncio.sleep(1)  # beacon 11 has said that it lies there still
        begun = await alice.start_tell(guid)
        await alice.wait(begun.task_id)
        await recovering
        (fee,) = [x for x in lockers(alice, guid=guid) if x.kind == LockerKind.INBOX]
        assert fee.state == LockerState.CONSUMED
        check_books(cluster, alice)

    play(story)


def test_a_fee_the_beacon_of_another_time_took_is_spent() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster, pool_inbox=1)
        guid = await fee_in_doubt(cluster, alice)
        (fee,) = lockers(alice, state=LockerState.LIMBO)
        # a tell that was thought lost had come to the second of them
        state = cluster.raida.nodes[14].state
        state.earn((selector, bytes(16)) for selector in list(state.locker(locker_key(fee.code.encode(), 14))))
        state.commit()
        contact = alice._store.contacts.by_address(bob.address)
        assert contact is not None
        await alice._store.contacts.add(msgspec.structs.replace(contact, beacon=2, second=3), alice._ctx.now())
        await asyncio.sleep(20)
        assert fee.code not in {x.code for x in lockers(alice, state=LockerState.AVAILABLE)}
        assert [x.state for x in lockers(alice, guid=guid) if x.code == fee.code] == [LockerState.CONSUMED]

    play(story)


def test_a_server_that_was_paid_and_refuses_the_resumption_keeps_its_locker(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        path = tmp_path / "f"
        await asyncio.to_thread(path.write_bytes, bytes(3_000_000))
        stop = Stop(alice.objects.nodes, "put_many")
        putting = asyncio.create_task(alice.objects.put_object(path, object_id=bytes(16), upload_id=b"u" * 16))
        await stop.reached.wait()
        putting.cancel()
        await stop.die(alice)
        skip(2 * 86_400)  # the transfers are over by now, and four servers have no room any more
        for node in range(4):
            cluster.raida.nodes[node]._context.policy = Policy(object_capacity=0)
        assert (await alice.objects.resume(b"u" * 16)).failed == (0, 1, 2, 3)
        assert states(alice, guid=bytes(16)) == {LockerState.LIMBO, LockerState.CONSUMED}
        await asyncio.sleep(30)
        assert states(alice, guid=bytes(16)) == {LockerState.CONSUMED}
        check_books(cluster, alice)

    play(story)


def test_an_upload_taken_up_again_needs_no_more_than_it_has(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=5)
        path = tmp_path / "f"
        await asyncio.to_thread(path.write_bytes, bytes(3_000_000))
        stop = Stop(alice.objects.nodes, "put_many")
        putting = asyncio.create_task(alice.objects.put_object(path, upload_id=b"u" * 16))
        await stop.reached.wait()
        putting.cancel()
        await stop.die(alice)
        assert (await alice.objects.resume(b"u" * 16)).failed == ()
        check_books(cluster, alice, 5)

    play(story, nodes=5)


def test_what_a_send_is_thought_to_hold_may_be_gone() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=10)
        claims = [Claim(0, node) for node in range(5)]
        wallet = alice._wallet
        held, _ = await wallet.acquire(b"a" * 16, "Default", claims, {})
        await wallet.release(held.values())
        others, funded = await wallet.acquire(b"b" * 16, "Default", claims, {})
        assert not funded
        fresh, funded = await wallet.acquire(b"a" * 16, "Default", claims, {}, held.values())
        assert funded
        assert not {x.code for x in fresh.values()} & {x.code for x in others.values()}
        check_books(cluster, alice, 10)

    play(story, nodes=5)


# ------------------------------------------------------------------------------------------------------------------
# lockers too few nodes know


def count_requests(alice: Engine) -> list[int]:
    counted = [0]
    transport: Any = alice._ctx.fanout.transport
    real = transport.send

    def send(*args: Any) -> Any:
        counted[0] += 1
        return real(*args)

    transport.send = send
    return counted


def spoil(cluster: Cluster, alice: Engine, coins: int, nodes: int) -> None:
    """Some nodes do not know the first coins of the wallet."""
    selectors = [build_selector(coin.address) for coin in alice._store.wallet.coins("Default")[:coins]]
    for node in range(nodes):
        state = cluster.raida.nodes[node].state
        state.set_ans([(selector, bytes(16)) for selector in selectors])
        state.commit()


def pool(alice: Engine, size: int) -> None:
    alice._ctx.config = msgspec.structs.replace(alice._ctx.config, pool_upload=size, pool_inbox=0)


def test_coins_most_servers_do_not_know_leave_their_lockers_and_pay_nothing() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        spoil(cluster, alice, 2, 13)
        cluster.down.add(20)  # whose word would have made it certain at once
        pool(alice, 3)
        await alice.fill_pool()
        assert len(lockers(alice, state=LockerState.LIMBO)) == 2
        cluster.down.clear()
        pool(alice, 0)
        counted = count_requests(alice)
        await asyncio.sleep(600)
        assert not lockers(alice, state=LockerState.LIMBO)
        assert counted[0] <= 100
        store = alice._store.wallet
        assert (store.balance("Default"), store.balance(FRACKED)) == (BALANCE - 3, 2)
        for coin in store.coins(FRACKED):
            # with the numbers the other servers know, so that it can be mended
            for node in range(13, 25):
                held = cluster.raida.nodes[node].state.an(build_selector(coin.address))
                assert held == coin.ans[16 * node : 16 * node + 16]

    play(story)


def test_a_locker_filled_at_too_few_servers_is_asked_about_ever_more_rarely() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        pool(alice, 5)
        cluster.down |= set(range(13))
        await alice.fill_pool()
        pool(alice, 0)
        counted = count_requests(alice)
        await asyncio.sleep(3600)
        assert counted[0] <= 15 * 25 * 2
        cluster.down.clear()
        skip(3600)
        await asyncio.sleep(5)
        assert states(alice) == {LockerState.AVAILABLE}
        check_books(cluster, alice)

    play(story)


def test_a_pool_that_cannot_be_filled_is_tried_ever_more_rarely() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        spoil(cluster, alice, BALANCE, 25)
        pool(alice, 5)
        counted = count_requests(alice)
        await asyncio.sleep(3600)
        assert 25 <= counted[0] <= 15 * 25 * 2
        assert alice.balance() == BALANCE

    play(story)


def test_servers_that_hang_do_not_hold_up_lockers_of_others() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        cluster.down |= set(range(6))
        guid, _ = await started(alice)  # fails
        cluster.down.clear()
        cluster.delay[0] = 1e9
        await asyncio.sleep(9)
        assert {x.node for x in lockers(alice, state=LockerState.LIMBO)} == {0}
        cluster.delay.clear()
        await asyncio.sleep(60)
        assert not lockers(alice, state=LockerState.LIMBO)
        assert not [x for x in lockers(alice, guid=guid) if x.state != LockerState.CONSUMED]
        check_books(cluster, alice)

    play(story)


def test_many_lockers_are_asked_about_at_once() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        cluster.delay.update(dict.fromkeys(range(13), 1e9))
        pool(alice, 300)
        await alice.fill_pool()
        assert len(lockers(alice, state=LockerState.LIMBO)) == 300
        assert alice._background is not None
        alice._background.cancel()
        begun = now()
        counted = count_requests(alice)
        await alice._wallet.recover()
        assert now() - begun <= 30
        assert counted[0] <= 100
        cluster.delay.clear()
        skip(10)
        await alice._wallet.recover()
        assert states(alice) == {LockerState.AVAILABLE}
        check_books(cluster, alice)

    play(story)


def test_pauses_double_up_to_an_hour_and_begin_anew() -> None:
    async def story() -> None:
        pauses = Pauses()
        assert pauses.due("a")
        assert not pauses.due("b", 5.0)
        for pause in (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600):
            pauses.longer("a")
            skip(pause - 0.5)
            assert not pauses.due("a")
            skip(0.5)
            assert pauses.due("a")
        pauses.longer("a")
        mark = pauses.mark("b")
        pauses.keep(["b"])
        assert pauses.due("a")
        assert pauses.mark("b") is mark
        pauses.begin("b", 5.0)
        assert pauses.mark("b") is not mark
        pauses.over("b")
        assert pauses.due("b")

    virtual(story())
