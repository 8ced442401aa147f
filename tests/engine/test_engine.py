"""Whole lives of an engine: crashes at every point, failures at random, and books that balance in the end."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typing_extensions import Buffer

from qmail_core import Address, AddressError, Cluster, Engine, EngineConfig, NotFound, QMailError, Source, UsageError
from qmail_core.codec.cipher import locker_key
from qmail_core.engine.repair import Repairer
from qmail_core.engine.wallet import Wallet
from qmail_core.errors import ConfigError, StoreUnavailable
from qmail_core.model import Coin, Durability, Folder, Receipt
from qmail_core.store.base import LockerKind, LockerState
from qmail_core.store.sqlite import SqliteStore
from qmail_core.transport.base import Cancel, Done
from qmail_core.transport.loopback import LoopbackTransport
from tests.conftest import skip, virtual
from tests.engine import check_books, clock, couple, lockers, play

PURSE = 300
_LANES = 12  # the steps of one life are shared out over so many tests, every second of which is run


class Crash(Exception):
    """The process has died at this point; nothing after it happens."""


class Fault:
    """Counts what an engine does to the outside, and ends it at the n-th step."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.steps = 0
        self.dead = False

    def step(self) -> None:
        self.steps += 1
        self.dead = self.dead or self.steps == self.at
        if self.dead:
            raise Crash


class FaultyTransport(LoopbackTransport):
    """Dies instead of sending; what was sent before still arrives."""

    def __init__(self, cluster: Cluster, fault: Fault) -> None:
        super().__init__(cluster._host)
        self._fault = fault

    def send(self, node: int, frame: Buffer, enc: int, done: Done) -> Cancel:
        self._fault.step()
        return super().send(node, frame, enc, done)


class Machine:
    """One user's disk, and the processes that run on it one after the other."""

    def __init__(self, cluster: Cluster, coin: Coin, folder: Path) -> None:
        self.cluster = cluster
        self.coin = coin
        self.path = folder / "store.sqlite"
        self.config = EngineConfig(
            data=str(folder), striping=cluster.striping, beacons=(0, 4), pool_upload=0, pool_inbox=0
        )
        self.engine: Engine
        self._seed = 0

    async def start(self, fault: Fault) -> None:
        store = SqliteStore(str(self.path))
        # these processes die, the machine does not: what SQLite has written is safe without waiting for the disk
        store._database._writer.execute("PRAGMA synchronous=OFF")
        write = store._database.write

        async def faulty(change: Callable[[sqlite3.Connection], Any]) -> Any:
            fault.step()  # before it is on disk
            result = await write(change)
            fault.step()  # after it
            return result

        store._database.write = faulty  # type: ignore[method-assign]
        self._seed += 1
        draw = random.Random(self._seed).randbytes

        def entropy(size: int) -> bytes:
            fault.step()
            return draw(size)

        transport = FaultyTransport(self.cluster, fault)
        self.engine = Engine(self.config, self.coin, transport, store, clock=clock, entropy=entropy)
        await self.engine.start()

    async def kill(self) -> None:
        """End the process without any of its goodbyes."""
        engine = self.engine
        left = [*engine._tasks._running.values()]
        if engine._background is not None:
            left.append(engine._background)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await engine._transport.close()
        await engine._store.close()


class World:
    """Alice on a machine that crashes, Bob and Carol on ones that do not."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.accepted: dict[bytes, set[str]] = {}

    async def open(self) -> None:
        cluster = self.cluster
        self.bob = await cluster.engine("bob", balance=0, address=Address(1, 2))
        self.carol = await cluster.engine("carol", balance=0, address=Address(1, 3))
        (coin,) = cluster.mint([Address(1, 1)])
        self.alice = Machine(cluster, coin, self.folder)
        await self.alice.start(Fault())
        await self.alice.engine.deposit(cluster._fund(PURSE))
        for name, other in (("bob", self.bob), ("carol", self.carol)):
            await self.alice.engine.add_contact(name, other.address)
        await self.alice.kill()

    async def send(self) -> None:
        """Two mails at once; either may die with the process."""
        await asyncio.gather(self._one(["bob"], "one", 100_000), self._one(["bob", "carol"], "two", None))

    async def _one(self, to: list[str], subject: str, size: int | None) -> None:
        alice = self.alice.engine
        files = [] if size is None else [Source(name="x", data=bytes(size))]
        try:
            draft = alice.draft(to, subject, "body", attachments=files)
            started = await alice.start_upload(draft, tell=True)
        except Crash:
            return
        self.accepted[started.guid] = set(to)
        await alice.wait(started.task_id)

    async def settle(self) -> None:
        """Let the queues run dry."""
        alice = self.alice.engine
        for _ in range(40):
            await asyncio.sleep(5)
            open_rows = alice._store.sends.open_sends() or lockers(alice, state=LockerState.FUNDING)
            if not open_rows and not lockers(alice, state=LockerState.LIMBO):
                break
            skip(60)
        skip(4000)
        await asyncio.sleep(5)

    async def check(self) -> None:
        """Every accepted mail has arrived exactly once, and nothing was lost or spent twice."""
        alice = self.alice.engine
        arrived: dict[str, list[bytes]] = {}
        for name, engine in (("bob", self.bob), ("carol", self.carol)):
            got = await engine.receive()
            arrived[name] = [mail.message.guid for mail in got]
            assert len(set(arrived[name])) == len(arrived[name])
            assert {mail.message.body for mail in got} <= {"body"}
            assert engine.messages(Folder.INBOX).total == len(got)
        for guid, names in self.accepted.items():
            receipt = alice.receipt(guid)
            assert (receipt.upload.status, receipt.tell.status) == ("success", "success")
            assert receipt.upload.survives_loss_of == 1
            assert all(guid in arrived[name] for name in names)
        sent = [message.guid for message in alice.messages(Folder.SENT).messages]
        assert sorted(sent) == sorted({guid for guids in arrived.values() for guid in guids})
        check_receipts(alice)
        check_books(self.cluster, alice, PURSE)
        check_payments(self.cluster, alice)
        await self.alice.kill()
        db = sqlite3.connect(self.alice.path)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.close()


def check_receipts(alice: Engine) -> None:
    """The copies for people are whole."""
    for path in Path(alice.config.data, "Wallets", "Mail", "Receipts").iterdir():
        assert path.suffix == ".json"
        msgspec.json.decode(path.read_bytes(), type=Receipt)


def check_payments(cluster: Cluster, alice: Engine) -> None:
    """Whatever a node was paid with was a locker for this mail, this unit and this node, and is counted as spent."""
    for node in cluster.raida.nodes:
        known = {locker_key(locker.code.encode(), node.index): locker for locker in lockers(alice)}
        seen = set()
        for (guid, unit), (key, _) in node.state._payments.items():  # type: ignore[attr-defined]
            assert key not in seen
            seen.add(key)
            locker = known[key]
            assert (locker.kind, locker.guid, locker.node) == (LockerKind.UPLOAD, guid, node.index)
            assert locker.unit == max(0, unit - 9)
            assert locker.state == LockerState.CONSUMED


def crashes(folder: Path, *points: int, before: Callable[[Cluster], None] | None = None) -> int:
    """Send, crash at the given steps of each process in turn, start again; how many steps the first one took."""
    steps = 0

    async def whole() -> None:
        nonlocal steps
        async with Cluster(5, clock=clock, entropy=random.Random(8).randbytes) as cluster:
            world = World(cluster, folder)
            await world.open()
            if before is not None:
                before(cluster)
            for number, point in enumerate(points):
                fault = Fault(point)
                try:
                    await world.alice.start(fault)
                    if number == 0:
                        await world.send()
                    else:
                        await asyncio.sleep(1)
                except Crash:
                    pass
                steps = steps or fault.steps
                await world.alice.kill()
            cluster.down.clear()
            cluster.delay.clear()
            await world.alice.start(Fault())
            await world.settle()
            await world.check()

    virtual(whole())
    return steps


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """New folders, one for each life."""
    numbers = iter(range(1_000_000))

    def make() -> Path:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return folder

    return make


@pytest.mark.parametrize("lane", range(0, _LANES, 2))
def test_a_crash_at_any_step_loses_nothing(lane: int, fresh: Callable[[], Path]) -> None:
    total = crashes(fresh(), 1_000_000)
    assert total > 100
    for point in range(1 + lane, total + 1, _LANES):
        crashes(fresh(), point)


@pytest.mark.parametrize("lane", range(1, _LANES, 6))
def test_a_crash_with_a_server_down_loses_nothing(lane: int, fresh: Callable[[], Path]) -> None:
    total = crashes(fresh(), 1_000_000, before=lambda cluster: cluster.down.add(2))
    for point in range(1 + lane, total + 1, _LANES):
        crashes(fresh(), point, before=lambda cluster: cluster.down.add(2))


def test_crashes_during_recovery_lose_nothing(fresh: Callable[[], Path]) -> None:
    rng = random.Random(9)
    for _ in range(25):
        crashes(fresh(), rng.randint(10, 130), rng.randint(1, 60), rng.randint(1, 60))


def test_crashes_while_the_network_is_slow_lose_nothing(fresh: Callable[[], Path]) -> None:
    def slow(cluster: Cluster) -> None:
        cluster.delay.update({node: 0.05 * node for node in range(5)})

    rng = random.Random(10)
    for _ in range(20):
        crashes(fresh(), rng.randint(10, 130), rng.randint(1, 60), before=slow)


@pytest.mark.parametrize("seed", range(6))
def test_no_locker_serves_two_mails_whatever_fails(seed: int) -> None:
    """Sends and retries under random failures of servers; when all is over, every coin is accounted for."""

    async def story(cluster: Cluster) -> None:
        rng = random.Random(seed)
        alice, bob = await cluster.engine("alice", balance=600), await cluster.engine("bob", balance=0)
        told = set()
        for number in range(14):
            cluster.down.clear()
            cluster.delay.clear()
            cluster.down.update(rng.sample(range(8), rng.choice((0, 0, 1, 1, 2, 4))))
            cluster.delay.update({node: rng.choice((0.0, 0.01, 3.0, 40.0)) for node in rng.sample(range(8), 2)})
            files = [Source(name="x", data=bytes(10))] if number % 3 == 0 else []
            try:
                sent = await alice.send(alice.draft(["bob"], f"{number}", "b", attachments=files))
                told.add(bytes.fromhex(sent.receipt.file_guid))
            except QMailError:
                await asyncio.sleep(rng.choice((0.0, 1.0, 30.0)))
        cluster.down.clear()
        cluster.delay.clear()
        for _ in range(15):
            skip(3700)
            await asyncio.sleep(5)
        assert not lockers(alice, state=LockerState.LIMBO)
        assert not lockers(alice, state=LockerState.FUNDING)
        got = [mail.message.guid for mail in await bob.receive()]
        assert len(set(got)) == len(got)
        assert told <= set(got)
        check_books(cluster, alice, 600)
        check_payments(cluster, alice)

    play(story, nodes=8)


# ------------------------------------------------------------------------------------------------------------------
# The facade


def test_contacts_and_addresses_are_resolved() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        assert alice.resolve("BOB") == alice.resolve(bob.address_text) == bob.address
        assert alice.resolve(str(bob.address.serial)) == bob.address
        assert alice.resolve(f"Robert@Org#{bob.address.serial}") == bob.address
        assert alice.resolve(f"Robert#{bob.address.serial:020}") == bob.address
        # other scripts' digits are no number, and what no serial number is long enough for is not looked for
        foreign = "".join(chr(0x660 + int(digit)) for digit in str(bob.address.serial))
        for none in (foreign, f"Robert#{foreign}", "Robert#" + "9" * 20, "Robert#4294967296", "#" + "9" * 400):
            with pytest.raises(AddressError):
                alice.resolve(none)
        assert alice.render(bob.address) == bob.address_text
        with pytest.raises(AddressError):
            alice.resolve("nobody")
        with pytest.raises(AddressError):
            alice.draft(["bob", "nobody"], "s", "b")

    play(story, nodes=5)


def test_wallets_are_named_by_name_or_path() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        for text in ("Default", "C:\\Wallets\\Default", "/x/Default/"):
            assert alice.wallet_name(text) == "Default"
        assert list(alice.wallets()) == ["Default", "Mail"]
        for text in ("", "Mail", "..", "x/..", "a\0"):
            with pytest.raises(UsageError):
                alice.wallet_name(text)
        with pytest.raises(NotFound):
            alice.wallet_name("Savings")

    play(story, nodes=5)


def test_the_pool_makes_lockers_in_advance() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", pool_upload=10, pool_inbox=3)
        pool = await alice.fill_pool()
        assert (pool.upload_available, pool.inbox_fee_available, pool.wallet_balance) == (10, 3, 460)
        assert not pool.low_balance
        await alice.send(alice.draft(["alice"], "s", "b"))
        await asyncio.sleep(3)
        assert alice.pool_status().upload_available == 10
        check_books(cluster, alice)
        poor = await cluster.engine("poor", balance=25, pool_upload=10, pool_inbox=3)
        pool = await poor.fill_pool()
        assert (pool.upload_available, pool.inbox_fee_available, pool.wallet_balance) == (5, 2, 0)
        assert (await cluster.engine("poorest", balance=3)).pool_status().low_balance

    play(story, nodes=5)


def test_an_engine_starts_and_stops_cleanly_in_the_middle_of_work(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        (coin,) = cluster.mint([Address(1, 77)])
        machine = Machine(cluster, coin, tmp_path)
        await machine.start(Fault())
        await machine.engine.deposit(cluster._fund(100))
        await machine.engine.add_contact("self", coin.address)
        cluster.delay.update(dict.fromkeys(range(5), 0.1))
        started = await machine.engine.start_upload(machine.engine.draft(["self"], "s", "b"), tell=True)
        await asyncio.sleep(0.15)
        await machine.engine.close()
        with pytest.raises(StoreUnavailable):
            machine.engine.receipt(started.guid)
        cluster.delay.clear()
        async with Engine(
            machine.config,
            coin,
            LoopbackTransport(cluster._host),
            SqliteStore(str(machine.path)),
            clock=clock,
            entropy=os.urandom,
        ) as again:
            assert (await again.wait(started.task_id)).status == "success"
            assert [mail.message.guid for mail in await again.receive()] == [started.guid]
            await asyncio.sleep(30)
            check_books(cluster, again, 100)

    play(story, nodes=5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"striping": {"profile": 2, "k": 5, "m": 1}},
        {"striping": {"profile": 2, "k": 0, "m": 1}},
        {"striping": {"profile": 0, "k": 3, "m": 2}},
        {"encryption": 2},
        {"beacons": (0, 5)},
    ],
    ids=str,
)
def test_settings_that_fit_no_network_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        (coin,) = cluster.mint([Address(1, 77)])
        config = msgspec.convert({"data": str(tmp_path), "beacons": (0, 1), **wrong}, EngineConfig)
        store = SqliteStore(None)
        with pytest.raises(ConfigError):
            Engine(config, coin, LoopbackTransport(cluster._host), store)
        await store.close()

    play(story, nodes=5)


def test_a_background_chore_that_hangs_does_not_hold_up_the_others_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        ended = []

        async def hang(*_: object) -> None:
            try:
                await asyncio.sleep(1e9)
            finally:
                ended.append(True)

        monkeypatch.setattr(Wallet, "recover", hang)
        monkeypatch.setattr(Repairer, "repair_due", hang)
        alice, bob = await couple(cluster)
        cluster.down |= set(alice.config.beacons)
        sent = await alice.start_upload(alice.draft(["bob"], "s", "b", durability=Durability.FAST), tell=True)
        await alice.wait(sent.task_id)
        cluster.down.clear()
        await asyncio.sleep(70)
        assert [mail.message.guid for mail in await bob.receive()] == [sent.guid]
        await alice.close()
        assert len(ended) == 2
        await bob.close()
        assert len(ended) == 4
        cluster._engines.clear()

    play(story)


def test_a_background_chore_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        done = []

        async def fail() -> None:
            raise KeyError("bug")

        async def refuse() -> None:
            raise QMailError("no")

        async def work() -> int:
            done.append(True)
            return 0

        monkeypatch.setattr(alice._wallet, "recover", fail)
        monkeypatch.setattr(alice._outgoing, "retry_due", refuse)
        monkeypatch.setattr(alice._repairer, "repair_due", work)
        await alice.close()
        alice._store = SqliteStore(None)
        task: Awaitable[None] = alice._work()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 5)
        assert len(done) >= 2
        await alice._store.close()

    play(story, nodes=5)
