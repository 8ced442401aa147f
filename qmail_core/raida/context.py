"""What a handler works with and what it gives back; the settings of one node.

A handler is `run(context, request, now) -> Answer`. It reads and changes `context.state`, raises `Refused(status)` to
end a request without any change, and never commits: that is the host's part.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core.codec.packet import Request
from qmail_core.model import Address
from qmail_core.raida.state import NodeState


class Policy(Struct, frozen=True, kw_only=True):
    """What a node charges and how patient it is."""

    storage_fee: int = 1  # whole CC per server for an e-mail, and again for each attachment
    inbox_fee: int = 10  # whole CC for a mailbox without a record in the directory
    poll_limit: float = 600.0  # seconds a ping is parked
    redeliver_after: float = 60.0  # seconds before a served tell is served again
    redeliver_times: int = 3  # servings in all, then the record is deleted
    max_pending_tells: int = 10_000  # records kept per mailbox
    key_servers: frozenset[Address] = frozenset()  # coins that may preload master keys (RKE)
    version: bytes = b"20261121"  # eight ASCII digits, QMail wire B.1


class Context(Struct):
    """One node, as its handlers see it."""

    index: int
    state: NodeState
    policy: Policy
    entropy: Callable[[int], bytes]
    tamper: Callable[[bytes], bytes] | None = None


class Answer(Struct, frozen=True):
    """What a handler decided."""

    status: int
    payload: Buffer = b""
    woken: tuple[bytes, ...] = ()  # mailboxes that got a tell
    park: bytes | None = None  # mailbox to wait for instead of answering now


class Command(Struct, frozen=True):
    """One row of the dispatch table."""

    run: Callable[[Context, Request, float], Answer]
    least: int = 0  # payload bytes below which the length is wrong, whatever the content
    malformed: int = 16  # status for a payload the codec cannot read
