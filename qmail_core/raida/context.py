"""What a handler works with and what it gives back; the settings of one node.

A handler is `run(context, request, now) -> Answer`. It reads and changes `context.state`, raises `Refused(status)` to
end a request without any change, and never commits: that is the host's part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct, field
from typing_extensions import Buffer

from qmail_core.codec import consts as c
from qmail_core.codec.cipher import Key
from qmail_core.codec.packet import Reply, Request
from qmail_core.model import Address
from qmail_core.raida.pages import Pages
from qmail_core.raida.state import NodeState
from qmail_core.raida.tickets import Tickets


class Policy(Struct, frozen=True, kw_only=True):
    """What a node charges and how patient it is."""

    storage_fee: int = 1  # whole CC per server for an e-mail, and again for each attachment
    inbox_fee: int = 10  # whole CC for a mailbox without a record in the directory
    poll_limit: float = 600.0  # seconds a ping is parked
    redeliver_after: float = 60.0  # seconds before a served tell is served again
    redeliver_times: int = 3  # servings in all, then the record is deleted
    max_pending_tells: int = 10_000  # records kept per mailbox
    free_receipts: bool = True  # read receipts pay no fee, and may take a quarter of those places
    key_servers: frozenset[Address] = frozenset()  # coins that may preload master keys (RKE)
    max_object: int = 1 << 32  # bytes of one object (Object Transfer)
    object_quota: int = 1 << 36  # bytes of all objects of one coin, open transfers included
    object_capacity: int = 1 << 40  # bytes of all objects here
    max_transfers: int = 64  # open at a time, per coin
    max_parallel: int = 16  # ranges of one transfer at a time; told, not enforced
    object_chunk: int = c.MAX_RANGE  # bytes of one range at most
    transfer_lifetime: int = 86_400  # seconds an unfinished transfer is kept
    object_retention: int = 91 * 86_400  # seconds an object is kept when its sender leaves it open
    max_retention: int = 3650 * 86_400  # seconds an object is kept at most
    keep_transfers: int = 7 * 86_400  # seconds the id of an ended transfer is remembered
    legacy_commands: bool = False  # answer the older mail commands 60 to 64, which may come in the clear
    redeem: Literal["local", "network"] = "local"  # where a locker that paid is emptied: here, or at all nodes
    redeem_retry: float = 600.0  # seconds until a node that could not be reached is asked again
    ticket_lifetime: float = 60.0  # seconds a ticket is good for
    ticket_slots: int = 10_000  # tickets given out at a time
    session_time: float = 16.0  # seconds serial numbers are kept for a session, QMail wire B.6
    tell_ttl: float = 30 * 86_400.0  # seconds a tell and the memory of its key are kept; 0 keeps them for ever
    keystream: Literal["restart", "continue"] = "restart"  # of answers, types 1 and 2 (QMail wire A.6)
    datagram_limit: int = 1024  # bytes of an answer over UDP
    replay_window: float = 600.0  # seconds a frame is remembered, so that it is not acted on twice; 0 turns that off
    replay_room: int = 32_768  # frames remembered at most
    version: bytes = b"Q261121F"  # eight ASCII bytes, QMail wire B.1; codec.status.build_version


class Context(Struct):
    """One node, as its handlers see it."""

    index: int
    state: NodeState
    policy: Policy
    entropy: Callable[[int], bytes]
    nodes: int  # in the whole network
    tickets: Tickets
    pages: Pages
    admin_key: bytes = b""  # 16 bytes; empty: nobody may see statistics
    asked: set[tuple[bytes, int]] = field(default_factory=set)  # claims under way: payment, node
    tamper: Callable[[bytes], bytes] | None = None
    numbers: dict[str, int] = field(default_factory=lambda: {"requests": 0, "refused": 0, "replayed": 0})
    counted: tuple[float, bytes] | None = None  # the last answer of a count, and when it was made

    def __repr__(self) -> str:
        return f"Context(node {self.index})"


class Inquiry(Struct, frozen=True):
    """What a handler wants to know of other nodes before it decides. It never names its own node.

    `then` gets the answers that came, by node, and decides; it runs as a request of its own.
    """

    group: int
    command: int
    questions: Mapping[int, bytes]  # payload by node
    then: Callable[[Context, Mapping[int, Reply], float], Answer]
    keys: Mapping[int, Key] | None = None  # by node; None is type 0


class Answer(Struct, frozen=True, gc=False):
    """What a handler decided."""

    status: int
    payload: Buffer = b""
    woken: tuple[bytes, ...] = ()  # mailboxes that got a tell
    park: bytes | None = None  # mailbox to wait for instead of answering now
    inquiry: Inquiry | None = None  # ask other nodes instead of answering now


class Command(Struct, frozen=True):
    """One row of the dispatch table."""

    run: Callable[[Context, Request, float], Answer]
    least: int = 0  # payload bytes below which the length is wrong, whatever the content
    malformed: int = 16  # status for a payload the codec cannot read
