"""How nodes ask each other: the questions of a node, put over any transport, bounded in time and number.

A host of nodes uses this on their behalf. Questions need no answer: a node that is away is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from qmail_core.codec.cipher import NO_KEY, Key
from qmail_core.codec.packet import Batch, Reply
from qmail_core.transport.base import Transport
from qmail_core.transport.fanout import Fanout

Answered = Callable[[dict[int, Reply]], None]

_TIMEOUT = 5.0  # seconds: whoever waits for the node that asks waits longer
_AT_ONCE = 64  # inquiries


class InquiryLike(Protocol):
    """The same question to some nodes; see qmail_core.raida.context.Inquiry."""

    @property
    def group(self) -> int: ...
    @property
    def command(self) -> int: ...
    @property
    def questions(self) -> Mapping[int, bytes]: ...
    @property
    def keys(self) -> Mapping[int, Key] | None: ...


class Peers:
    """The way from any node of a host to all nodes of the network; `transport` is closed with it."""

    def __init__(
        self,
        transport: Transport,
        entropy: Callable[[int], bytes],
        *,
        timeout: float = _TIMEOUT,
        at_once: int = _AT_ONCE,
    ) -> None:
        self._fanout = Fanout(transport, entropy)
        self._timeout = timeout
        self._at_once = at_once
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        """Whether a new inquiry should be refused, or put off."""
        return len(self._under_way) >= self._at_once

    def ask(self, inquiry: InquiryLike, answered: Answered) -> None:
        """Put questions; `answered` gets what came within the time, never from inside this call."""
        task = asyncio.get_running_loop().create_task(self._put(inquiry, answered))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _put(self, inquiry: InquiryLike, answered: Answered) -> None:
        nodes = [node for node in inquiry.questions if node < self._fanout.transport.nodes()]
        keys = [NO_KEY if inquiry.keys is None else inquiry.keys[node] for node in nodes]
        bodies = [inquiry.questions[node] for node in nodes]
        batch = Batch(inquiry.group, inquiry.command, nodes, keys, [b""] * len(nodes), list(bodies))
        replies: dict[int, Reply] = {}

        def keep(reply: Reply) -> None:
            replies[reply.node] = reply

        run = self._fanout.run(batch, timeout=self._timeout, judge=keep)
        try:
            await run.finish()
        finally:
            run.cancel()
        answered(replies)

    async def close(self) -> None:
        """Drop what is under way; nobody is told."""
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._fanout.transport.close()
