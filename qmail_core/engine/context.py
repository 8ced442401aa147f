"""What every story of one engine shares: settings, randomness, clock, fanout, store, and the identity it speaks as."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from typing_extensions import Buffer

from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.codec.cipher import Key, coin_key
from qmail_core.codec.packet import Batch, Reply
from qmail_core.config import EngineConfig
from qmail_core.engine.ids import ObjectIds
from qmail_core.errors import QMailError
from qmail_core.model import Address, Coin, StripeLocation
from qmail_core.store.base import MailStore
from qmail_core.transport.base import Transport
from qmail_core.transport.fanout import Fanout

T = TypeVar("T")
INLINE_BYTES = 256 * 1024  # work on less than this is quicker done than handed to a thread


class Context:
    """Shared by the stories of one engine; holds no story of its own."""

    def __init__(
        self,
        config: EngineConfig,
        coin: Coin,
        transport: Transport,
        store: MailStore,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.config = config
        self.coin = coin
        self.store = store
        self.clock = clock
        self.entropy = entropy
        self.transport = transport
        self.fanout = Fanout(transport, entropy, introduce=True)
        self.nodes = transport.nodes()
        self.new_oid = ObjectIds(clock, entropy)
        self._keys: dict[int, Key] = {}
        self._identities: dict[int, bytes] = {}

    @property
    def address(self) -> Address:
        """The identity this engine speaks as."""
        return self.coin.address

    def adopt(self, coin: Coin) -> None:
        """Speak as the same identity with new numbers."""
        self.coin = coin
        self._keys.clear()
        self._identities.clear()

    def speaking_as(self, coin: Coin) -> Context:
        """The same with the keys of another coin, for requests that say nothing of an identity."""
        return Context(self.config, coin, self.transport, self.store, self.clock, self.entropy)

    @property
    def quorum(self) -> int:
        """More than half of the nodes: what a change of coins needs (13 of 25)."""
        return self.nodes // 2 + 1

    def beacons(self, who: Address) -> tuple[int, int]:
        """Where a recipient's tells go: the contact's own beacons, else the network's."""
        contact = self.store.contacts.by_address(who)
        if contact is None or max(contact.beacon, contact.second) >= self.nodes:
            return self.config.beacons
        return contact.beacon, contact.second

    def node_at(self, server: StripeLocation) -> int | None:
        """The node a tell's location means: by its index, or for one of an early client by its address (C.6.5)."""
        if server.raida < self.nodes:
            return server.raida
        place = (server.host, server.port)
        return next((node for node in range(self.nodes) if self.transport.location(node) == place), None)

    def now(self) -> int:
        """Unix seconds."""
        return int(self.clock())

    def past(self, moment: int, seconds: int) -> bool:
        """Whether so long has passed since a moment in the store; one still to come is of a clock that was set back."""
        return not 0 <= self.now() - moment < seconds

    def key(self, node: int) -> Key:
        """The wire key shared with one node."""
        found = self._keys.get(node)
        if found is None:
            found = self._keys[node] = coin_key(self.config.encryption, self.coin, node)
        return found

    def identity(self, node: int) -> bytes:
        """The preamble's identity bytes for one node."""
        found = self._identities.get(node)
        if found is None:
            found = self._identities[node] = mail.build_identity(self.coin, node)
        return found

    def mail_batch(
        self, command: int, nodes: Sequence[int], heads: Sequence[bytes], tails: Sequence[Buffer] = (), page: int = 0
    ) -> Batch:
        """Requests of group 6: the identity bytes are put before each head."""
        return Batch(
            c.GROUP_MAIL,
            command,
            list(nodes),
            [self.key(node) for node in nodes],
            [self.identity(node) + head for node, head in zip(nodes, heads, strict=True)],
            list(tails) or [b""] * len(nodes),
            page,
        )

    def batch(self, group: int, command: int, nodes: Sequence[int], bodies: Sequence[Buffer]) -> Batch:
        """Requests of any other group."""
        keys = [self.key(node) for node in nodes]
        return Batch(group, command, list(nodes), keys, [b""] * len(nodes), list(bodies))

    async def poll(
        self, group: int, command: int, bodies: Mapping[int, bytes], judge: Callable[[Reply], T]
    ) -> tuple[dict[int, T], dict[int, QMailError]]:
        """Ask nodes the same thing and wait for all of them: what the judge made of each answer, and failures."""
        batch = self.batch(group, command, list(bodies), list(bodies.values()))
        run = self.fanout.run(batch if bodies else None, timeout=self.config.timeouts.small, judge=judge)
        await run.finish()
        return cast("dict[int, T]", run.good), run.failed

    @staticmethod
    async def offload(size: int, work: Callable[..., T], *args: object) -> T:
        """Run a pure transform inline when it is small, else in a thread (the kernels release the GIL)."""
        if size <= INLINE_BYTES:
            return work(*args)
        return await asyncio.get_running_loop().run_in_executor(None, work, *args)

    @staticmethod
    async def offload_each(work: Callable[[int], object], count: int) -> None:
        """Run a pure transform for 0 .. count - 1, on as many threads as there are cores."""
        loop = asyncio.get_running_loop()
        left = deque(range(count))

        def some() -> None:
            while True:
                try:
                    number = left.popleft()
                except IndexError:
                    return
                work(number)

        try:
            await asyncio.gather(*(loop.run_in_executor(None, some) for _ in range(min(count, os.cpu_count() or 1))))
        finally:
            left.clear()  # after an error or a cancellation the other threads stop at the next number


def drop(future: asyncio.Future[Any]) -> None:
    """Let go of work begun ahead that nobody will wait for any more; if it has failed or will, that is no news."""
    future.cancel()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
