"""Some nodes together, as one operator runs them; no sockets. Nodes share nothing: each has its own state."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from qmail_core.codec.mail import build_selector
from qmail_core.model import Address, Coin
from qmail_core.raida.coins import fresh_ans
from qmail_core.raida.node import Node, Outcome, Policy
from qmail_core.raida.state import MemoryState


class Cluster:
    """Nodes in index order."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)

    @classmethod
    def in_memory(cls, count: int = 25, *, policy: Policy | None = None, entropy: Callable[[int], bytes]) -> Cluster:
        """A cluster that forgets everything with the process."""
        return cls([Node(index, MemoryState(), policy=policy, entropy=entropy, nodes=count) for index in range(count)])

    def handle(self, index: int, frame: bytearray, now: float) -> Outcome:
        """Hand a frame to one node. The caller commits, see `Outcome.changed`."""
        return self.nodes[index].handle(frame, now)

    def mint(self, addresses: Sequence[Address], entropy: Callable[[int], bytes]) -> list[Coin]:
        """Create coins with fresh secrets, recorded at every node; the caller commits.

        A coin a node already knows gets a new secret there, so that an interrupted mint can be repeated.
        """
        coins = self.draw(addresses, entropy)
        self.record(coins)
        return coins

    def draw(self, addresses: Sequence[Address], entropy: Callable[[int], bytes]) -> list[Coin]:
        """Coins with fresh secrets that no node knows yet."""
        columns = [fresh_ans(entropy, len(addresses)) for _ in self.nodes]
        return [Coin(address, b"".join(row)) for address, *row in zip(addresses, *columns, strict=True)]

    def record(self, coins: Sequence[Coin]) -> None:
        """Make every node know its part of these coins; the caller commits."""
        selectors = [build_selector(coin.address) for coin in coins]
        for position, node in enumerate(self.nodes):
            node.state.set_ans((selector, coin.an(position)) for selector, coin in zip(selectors, coins, strict=True))

    def knows(self, address: Address) -> bool:
        """Whether any node has a coin of this address."""
        selector = build_selector(address)
        return any(node.state.an(selector) is not None for node in self.nodes)

    def agrees(self, coin: Coin) -> bool:
        """Whether no node knows this coin with another secret."""
        selector = build_selector(coin.address)
        known = (node.state.an(selector) for node in self.nodes)
        return all(an is None or hmac.compare_digest(an, coin.an(i)) for i, an in enumerate(known))

    def lose(self, index: int, guid: bytes) -> None:
        """Drop a mail's stripes at one node: for tests and demonstrations. The caller commits."""
        self.nodes[index].state.drop(guid)

    def commit(self) -> None:
        """Make the changes of every node durable, node by node."""
        for node in self.nodes:
            if node.state.dirty():
                node.state.commit()
