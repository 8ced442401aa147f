"""A whole network inside the caller's process: for tests, examples, and programs that want to see mail work first.

    async with Cluster() as cluster:
        alice, bob = await cluster.engine("alice"), await cluster.engine("bob")
        await alice.send(alice.draft(["bob"], "Hello", "A mail over 25 nodes"))
        for mail in await bob.receive():
            print(mail.message.subject, mail.stripes_downloaded)

Nothing leaves the process and nothing outlives it: nodes and stores are in memory, files in a temporary folder.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable

import msgspec

from qmail_core.config import EngineConfig, beacons_for, striping_for
from qmail_core.engine.engine import Engine
from qmail_core.model import Address, Coin, Striping
from qmail_core.raida.cluster import Cluster as RaidaCluster
from qmail_core.raida.node import Policy
from qmail_core.store.sqlite import SqliteStore
from qmail_core.transport.loopback import LoopbackHost, LoopbackTransport
from qmail_core.transport.smtp import relay_of
from qmail_core.transport.web import poster_of

_FIRST_SERIAL = 4242  # of the first engine's mailbox


class Cluster:
    """Nodes in memory, and engines that speak to them.

    nodes     how many, 2 to 255; a mail uses at most 32 of them
    striping  default: `sealed` with a fifth of its nodes as parity (20+5 for 25 nodes)
    policy    what the nodes charge and allow
    clock     Unix time for nodes and engines
    """

    def __init__(
        self,
        nodes: int = 25,
        *,
        striping: Striping | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.striping = striping or striping_for(nodes)
        self.raida = RaidaCluster.in_memory(nodes, policy=policy, entropy=entropy)
        self._host = LoopbackHost(self.raida.nodes, clock, entropy=entropy)
        self.down = self._host.down  # nodes that are switched off; add and remove at will
        self.delay = self._host.delay  # seconds a request takes to reach a node, by index
        self._clock = clock
        self._entropy = entropy
        self._folder = tempfile.TemporaryDirectory(prefix="qmail-")
        self._names: dict[str, Address] = {}
        self._engines: list[Engine] = []
        self._serial = _FIRST_SERIAL
        self._coins = 1_000_000

    def mint(self, addresses: list[Address]) -> list[Coin]:
        """Create coins all nodes know."""
        coins = self.raida.mint(addresses, self._entropy)
        self.raida.commit()
        return coins

    async def engine(
        self, name: str, *, address: Address | None = None, balance: int = 500, **config: object
    ) -> Engine:
        """Start an engine with a mailbox of its own and `balance` CloudCoins; every engine knows the others by name.

        config   fields of EngineConfig to set
        """
        if address is None:
            address, self._serial = Address(1, self._serial), self._serial + 1
        (coin,) = self.mint([address])
        data = tempfile.mkdtemp(dir=self._folder.name)
        beacons = beacons_for(len(self.raida.nodes))
        settings = EngineConfig(data=data, striping=self.striping, beacons=beacons, pool_upload=0, pool_inbox=0)
        settings = msgspec.structs.replace(settings, **config)
        engine = Engine(
            settings,
            coin,
            LoopbackTransport(self._host),
            SqliteStore(None),
            clock=self._clock,
            entropy=self._entropy,
            relay=relay_of(settings),
            poster=poster_of(settings),
        )
        await engine.start()
        await engine.deposit(self._fund(balance))
        self._engines.append(engine)
        self._names[name] = address
        for known in list(self._engines):  # more may start meanwhile, which then do the same
            for text, where in list(self._names.items()):
                await known.add_contact(text, where)
        return engine

    def _fund(self, balance: int) -> list[Coin]:
        addresses = [Address(0, self._coins + i) for i in range(balance)]
        self._coins += balance
        return self.mint(addresses) if addresses else []

    async def close(self) -> None:
        """Stop all engines and forget everything."""
        for engine in self._engines:
            await engine.close()
        await self._host.close()
        self._folder.cleanup()

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
