"""What a node says of itself: asked once, with the key of the first request it answered.

The answer to "version" has eight printable ASCII bytes, so it shows whether the node's keystream starts anew or goes
on (QMail wire A.6), which hardly any other answer does; and nodes of this project say in it how many requests a
connection may have under way (docs/protocol.md), which goes to the transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from qmail_core.codec import consts as c
from qmail_core.codec import packet, status
from qmail_core.codec.cipher import Key
from qmail_core.codec.packet import Batch, Reply, Sent
from qmail_core.errors import QMailError, TransportError
from qmail_core.transport.base import Transport

PATIENCE = 1.0  # seconds; who does not say by then is taken to be like any other

Go = Callable[[], None]
Said = tuple[int, bool]  # how many requests on one connection, whether the keystream goes on


class Introductions:
    """Who has been asked, and what came of it.

    unmet    nodes still to be asked
    going_on nodes whose keystream goes on, as far as that is known
    """

    def __init__(self, transport: Transport, entropy: Callable[[int], bytes], *, ask: bool) -> None:
        self.unmet: set[int] = set(range(transport.nodes())) if ask else set()
        self.going_on: set[int] = set()
        self._transport = transport
        self._entropy = entropy
        self._learn: Callable[[int, int], None] | None = getattr(transport, "learn", None)
        self._asking: dict[int, list[Go]] = {}

    def meet(self, reply: Reply, key: Key, go: Go) -> bool:
        """Put the question, with an answer of an unmet node at hand; False if that answer may be read at once.

        go  called when what the node says is known, or that it says nothing; only if the answer must wait for that
        """
        node, depends = reply.node, reply.sent is not None
        if not depends and self._learn is None:
            return False
        if node not in self._asking:
            self._asking[node] = []
            _ask(self._transport, self._entropy, node, key, partial(self._settle, node))
        if depends:
            self._asking[node].append(go)
        return depends

    def _settle(self, node: int, said: Said | None) -> None:
        self.unmet.discard(node)
        if said is not None:
            depth, goes_on = said
            self.read(node, goes_on=goes_on)
            if depth and self._learn is not None:
                self._learn(node, depth)
        for go in self._asking.pop(node):
            go()

    def read(self, node: int, *, goes_on: bool) -> None:
        """An answer made sense this way."""
        (self.going_on.add if goes_on else self.going_on.discard)(node)


def _ask(
    transport: Transport, entropy: Callable[[int], bytes], node: int, key: Key, done: Callable[[Said | None], None]
) -> None:
    """One exchange without a run: nobody counts it, and its failure is nobody's fault."""
    batch = Batch(c.GROUP_STATUS, c.CMD_VERSION, [node], [key], [b""], [b""])
    (sent,) = packet.pack(batch, entropy(batch.entropy_size()))

    def answered(answer: memoryview | TransportError) -> None:
        timer.cancel()
        done(None if isinstance(answer, TransportError) else _said(sent, answer))

    def give_up() -> None:
        cancel()
        done(None)

    cancel = transport.send(node, sent.frame, key.enc, answered)
    timer = asyncio.get_running_loop().call_later(PATIENCE, give_up)


def _said(sent: Sent, answer: memoryview) -> Said | None:
    try:
        reply = packet.open_reply(sent, answer)
        return packet.judged(reply, lambda one: status.parse_version(one.expect().payload))
    except QMailError:
        return None
