"""Some nodes together, as one operator runs them; no sockets. Nodes share nothing: each has its own state."""

from __future__ import annotations

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
        columns = [fresh_ans(entropy, len(addresses)) for _ in self.nodes]
        selectors = [build_selector(address) for address in addresses]
        for node, ans in zip(self.nodes, columns, strict=True):
            node.state.set_ans(zip(selectors, ans, strict=True))
        return [Coin(address, b"".join(row)) for address, *row in zip(addresses, *columns, strict=True)]

    def lose(self, index: int, guid: bytes) -> None:
        """Drop a mail's stripes at one node: for tests and demonstrations. The caller commits."""
        self.nodes[index].state.drop(guid)

    def commit(self) -> None:
        """Make the changes of every node durable, node by node."""
        for node in self.nodes:
            if node.state.dirty():
                node.state.commit()
