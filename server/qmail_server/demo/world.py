"""The demo's world: 25 nodes, Alice and Bob with funded wallets, the people the documented examples write to."""

from __future__ import annotations

import contextlib
from pathlib import Path

from qmail_core.config import EngineConfig
from qmail_core.engine.engine import Engine
from qmail_core.model import Address, Coin
from qmail_core.store.mailbox import HOME
from qmail_core.store.sqlite import SqliteStore
from qmail_server import wiring
from qmail_server.demo import samples
from qmail_server.folder import claimed

NODES = 25
NODE_PORTS = 1000  # node i listens on port base + this + i

ALICE = Address(1, 1_048_576)
BOB = Address(1, 55_077)
ALICE_TEXT = "alice"
BOB_TEXT = "@chariot.harbor.byte"
# mailboxes that exist so that mail to them is accepted; nobody reads it here
OTHERS = {
    "Sean#16777216": Address(1, 16_777_216),
    "Bob#9876543": Address(1, 9_876_543),
    "Alice#5555555": Address(1, 5_555_555),
}
PIN = "1234"  # of both
_ONES, _TENS = 2500, 50  # coins in each purse: 3000 CloudCoins
_FIRST_COIN = {"alice": 100_000, "bob": 200_000}


class World:
    """Everything the demo runs, in one folder."""

    def __init__(self, data: Path, port_base: int) -> None:
        self.data = data
        self.ports = (port_base, port_base + 1, port_base + 2)
        node_ports = {node: port_base + NODE_PORTS + node for node in range(NODES)}
        with contextlib.ExitStack() as claims:
            for name in ("alice", "bob"):
                claims.enter_context(claimed(data / name))
            self.network = wiring.Network(data / "raida", node_ports)
            self._stores = {name: wiring.open_store(data / name) for name in ("alice", "bob")}
            self._claims = claims.pop_all()
        self.alice: Engine
        self.bob: Engine

    async def start(self) -> None:
        """Create what is missing, then start nodes and engines."""
        await self._found()
        self.network.start()
        drives = samples.place(
            self.data / "alice" / "Wallets" / "Mail" / "Outgoing", self.data / "alice" / "files", ALICE
        )
        self.alice = self._engine("alice", drives)
        self.bob = self._engine("bob", ())
        for name, engine in (("Alice", self.alice), ("Bob", self.bob)):
            for text, address in {BOB_TEXT: BOB, ALICE_TEXT: ALICE, **OTHERS}.items():
                await engine.add_contact(text, address)
            await engine.fill_pool()
            await engine.start()
            if not engine.transfer.pins.is_set(HOME):
                await engine.transfer.pins.set(HOME, PIN)
            await engine.publish_user(name)

    async def _found(self) -> None:
        """Identities and money, once. An interrupted founding is simply repeated: every coin is minted again."""
        if all(wiring.identity_of(store) is not None for store in self._stores.values()):
            return
        people = {"alice": ALICE, "bob": BOB}
        addresses = [*people.values(), *OTHERS.values()]
        for name in people:
            first = _FIRST_COIN[name]
            addresses += [Address(0, first + i) for i in range(_ONES)]
            addresses += [Address(1, first + i) for i in range(_TENS)]
        minted = {coin.address: coin for coin in self.network.mint(addresses)}
        for name, who in people.items():
            await self._endow(self._stores[name], name, minted)
            await wiring.adopt_identity(self._stores[name], minted[who])

    async def _endow(self, store: SqliteStore, name: str, minted: dict[Address, Coin]) -> None:
        first = _FIRST_COIN[name]
        purse = [Address(0, first + i) for i in range(_ONES)] + [Address(1, first + i) for i in range(_TENS)]
        await store.wallet.add_coins("Default", [minted[address] for address in purse])

    def _engine(self, name: str, drives: tuple[tuple[str, str], ...]) -> Engine:
        config = EngineConfig(data=str(self.data / name), drives=drives)
        return wiring.open_engine(config, self._stores[name], self.network.places())

    def drain(self) -> None:
        """Let nobody wait for mail any more."""
        for name in ("alice", "bob"):
            engine: Engine | None = getattr(self, name, None)
            if engine is not None:
                engine.drain()

    async def stop(self) -> None:
        """Stop engines first, so that they do not see the nodes go."""
        for name in ("alice", "bob"):
            engine: Engine | None = getattr(self, name, None)
            await (engine.close() if engine is not None else self._stores[name].close())
        self.network.stop()
        self._claims.close()
