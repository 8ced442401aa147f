"""One node: a frame and the time in, an Outcome out. No sockets, no clock, no sleep.

Rules: header checks run in the documented order; a request either takes effect whole or changes nothing; whatever goes
wrong becomes a status byte. The host commits the state before a reply leaves, and waits on the node's behalf.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec import packet
from qmail_core.codec.packet import Header, Refused, Reply, Request
from qmail_core.errors import RemoteProtocolError, StoreUnavailable
from qmail_core.raida import change, coins, directory, healing, keys, legacy, lockers, mail, objects
from qmail_core.raida.context import Answer, Command, Context, Inquiry, Policy
from qmail_core.raida.pages import Pages
from qmail_core.raida.state import NodeState
from qmail_core.raida.tickets import Tickets

__all__ = ["Ask", "Node", "Outcome", "Policy", "Wait"]

log = logging.getLogger("qmail.raida")

REPLY_NONCE = 22  # QMail wire A.5.2


def echo(context: Context, request: Request, now: float) -> Answer:
    """Command 0. Extra bytes are tolerated. QMail wire B.1."""
    return Answer(c.STATUS_SUCCESS)


def version(context: Context, request: Request, now: float) -> Answer:
    """Command 1. QMail wire B.1."""
    return Answer(c.STATUS_SUCCESS, context.policy.version)


COMMANDS: dict[int, dict[int, Command]] = {
    c.GROUP_STATUS: {c.CMD_ECHO: Command(echo), c.CMD_VERSION: Command(version)},
    c.GROUP_AUTH: coins.AUTH,
    c.GROUP_HEALING: healing.HEALING,
    c.GROUP_MAIL: mail.MAIL | objects.OBJECTS,
    c.GROUP_LOCKER: lockers.LOCKERS,
    c.GROUP_CHANGE: change.CHANGE,
    c.GROUP_KEYS: keys.KEYS,
    c.GROUP_DIRECTORY: directory.DIRECTORY,
}


class Wait(Struct, frozen=True):
    """A ping nobody could answer yet."""

    mailbox: bytes
    until: float  # by the clock that `now` comes from
    request: Request


class Ask(Struct, frozen=True):
    """Questions to other nodes, for the host to put; it hands the answers to `Node.answered`.

    A host MUST bound how long it waits and how many it puts at once; nodes that did not answer are left out. Without
    `request` nobody waits for what comes of it.
    """

    inquiry: Inquiry
    request: Request | None = None


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a frame. Exactly one of `reply`, `wait` and `ask` is set; none for an Ask nobody waits for."""

    reply: bytearray | None = None
    wait: Wait | None = None
    ask: Ask | None = None
    woken: tuple[bytes, ...] = ()  # mailboxes that got a tell
    changed: bool = False  # the host MUST call state.commit() before the reply leaves
    close: bool = False  # the peer and the node may disagree where the next frame starts
    request: Request | None = None  # what `Node.fail` needs to answer differently


_NOBODY = Request(packet.read_header(memoryview(bytes(c.HEADER256_SIZE))), b"", b"", memoryview(b""))


class _Keys:
    """The keyring of a node."""

    def __init__(self, state: NodeState) -> None:
        self.coin_an = state.an
        self.locker_an = state.locker_by_prefix


class Node:
    """The server side of the protocol for one RAIDA index.

    entropy  returns n bytes from a CSPRNG
    nodes    how many the network has
    timer    seconds, for the execution time in answers; the default reports none
    """

    def __init__(
        self,
        index: int,
        state: NodeState,
        *,
        policy: Policy | None = None,
        entropy: Callable[[int], bytes],
        timer: Callable[[], float] = float,
        nodes: int = 25,
    ) -> None:
        self.index = index
        self.state = state
        policy = policy or Policy()
        tickets = Tickets(policy.ticket_lifetime, policy.ticket_slots)
        self._context = Context(index, state, policy, entropy, nodes, tickets, Pages(policy.session_time))
        self._keys = _Keys(state)
        self._timer = timer
        old = legacy.LEGACY if self.policy.legacy_commands else {}
        if old:
            log.warning("node %d answers the older mail commands, which may come in the clear", index)
        self._commands = COMMANDS | {c.GROUP_MAIL: COMMANDS[c.GROUP_MAIL] | old}

    @property
    def policy(self) -> Policy:
        """What this node charges and allows."""
        return self._context.policy

    @property
    def tamper(self) -> Callable[[bytes], bytes] | None:
        """When set, page data passes through it before it is sealed into an answer: a node that lies."""
        return self._context.tamper

    @tamper.setter
    def tamper(self, change: Callable[[bytes], bytes] | None) -> None:
        self._context.tamper = change

    def handle(self, frame: bytearray, now: float) -> Outcome:
        """Act on one whole request frame; decrypts it in place. Never raises."""
        view = memoryview(frame)
        if len(view) < c.HEADER_SIZE or (view[16] > 3 and len(view) < c.HEADER256_SIZE):
            short = packet.read_header(memoryview(bytes(frame).ljust(c.HEADER256_SIZE, b"\0")))
            return Outcome(reply=packet.build_refusal(short, c.STATUS_PACKET_LENGTH, echo=False), close=True)
        header = packet.read_header(view)
        try:
            packet.check_header(view, header, self.index, self._commands)
        except Refused as refused:
            return Outcome(reply=packet.build_refusal(header, refused.status, echo=False), close=True)
        try:
            request = self._open(view, header)
        except Refused as refused:
            close = refused.status in (c.STATUS_PACKET_LENGTH, c.STATUS_NO_TRAILER)
            return Outcome(reply=packet.build_refusal(header, refused.status, echo=True), close=close)
        command = self._commands[header.group][header.command]
        return self._run(command, request, now)

    def resume(self, wait: Wait, now: float) -> Outcome:
        """Answer a parked ping if there is something to serve now; else the same wait again."""
        poll = legacy.poll if wait.request.header.command in c.OLD_COMMANDS else mail.poll
        command = Command(lambda context, request, at: poll(context, wait.mailbox, at))
        outcome = self._run(command, wait.request, now)
        return outcome if outcome.wait is None else Outcome(wait=wait, changed=outcome.changed)

    def expire(self, wait: Wait, now: float) -> Outcome:
        """Answer a parked ping whose time is over. QMail wire C.7."""
        old = wait.request.header.command in c.OLD_COMMANDS
        status = c.STATUS_OLD_NO_MAIL if old else c.STATUS_POLL_TIMEOUT
        return Outcome(reply=self._reply(wait.request, Answer(status), 0))

    def sweep(self, now: float) -> bool:
        """Clear away some of what time has ended; the host commits if it is told that anything changed."""
        self.state.mark()
        try:
            return objects.sweep(self._context, now) > 0
        except StoreUnavailable as error:
            log.error("node %d: sweep: %s", self.index, error)
            self.state.undo()
            return False

    def answered(self, ask: Ask, replies: Mapping[int, Reply], now: float) -> Outcome:
        """Decide what an Ask was put for, with the answers that came. Never raises."""
        command = Command(lambda context, request, at: ask.inquiry.then(context, replies, at))
        if ask.request is not None:
            return self._run(command, ask.request, now)
        self._decide(command, _NOBODY, now)
        return Outcome(changed=self.state.dirty())

    def errands(self, now: float) -> list[Ask]:
        """Questions of the node's own, put when nobody waits. The host looks after each commit and now and then."""
        if self.policy.redeem != "network":
            return []
        try:
            return [Ask(inquiry) for inquiry in lockers.due_claims(self._context, now)]
        except StoreUnavailable as error:
            log.error("node %d: claims: %s", self.index, error)
            return []

    def forget_errands(self) -> None:
        """What was under way got lost with its host; it is due again."""
        self._context.asked.clear()

    def fail(self, outcome: Outcome, status: int) -> Outcome:
        """The same request answered with a bare status instead: its effects could not be kept."""
        if outcome.request is None:
            return outcome
        return Outcome(reply=self._reply(outcome.request, Answer(status), 0), close=outcome.close)

    def _open(self, view: memoryview, header: Header) -> Request:
        if len(view) != header.size + header.body_size:
            raise Refused(c.STATUS_PACKET_LENGTH)
        clear = header.group == c.GROUP_MAIL and header.enc == c.ENC_NONE
        if clear and header.command not in c.OLD_COMMANDS:
            raise Refused(c.STATUS_INVALID_ENCRYPTION)
        if not header.body_size:
            # B.1: an echo without body is answered, unsigned; everything else needs one
            bare = (header.group, header.command, header.enc) == (c.GROUP_STATUS, c.CMD_ECHO, c.ENC_NONE)
            raise Refused(c.STATUS_SUCCESS if bare else c.STATUS_EMPTY_BODY)
        try:
            return packet.open_request(view, header, self._keys)
        except StoreUnavailable as error:
            raise self._unavailable(header, error) from error

    def _unavailable(self, header: Header, error: StoreUnavailable) -> Refused:
        log.error("node %d: command %d: %s", self.index, header.command, error)
        return Refused(c.STATUS_FILESYSTEM)

    def _run(self, command: Command, request: Request, now: float) -> Outcome:
        started = self._timer()
        answer = self._decide(command, request, now)
        state = self.state
        # the payload is done with; keeping it would keep the whole frame
        kept = Request(request.header, request.an, request.challenge, memoryview(b""))
        if answer.park is not None:
            return Outcome(wait=Wait(answer.park, now + self.policy.poll_limit, kept), changed=state.dirty())
        if answer.inquiry is not None:
            return Outcome(ask=Ask(answer.inquiry, kept), changed=state.dirty(), request=kept)
        reply = self._reply(request, answer, int((self._timer() - started) * 1e6))
        return Outcome(reply=reply, woken=answer.woken, changed=state.dirty(), request=kept)

    def _decide(self, command: Command, request: Request, now: float) -> Answer:
        """Run a handler so that it takes effect whole or not at all."""
        try:
            self.state.mark()
            if len(request.payload) < command.least:
                raise Refused(c.STATUS_PACKET_LENGTH)
            return command.run(self._context, request, now)
        except Refused as refused:
            status = refused.status
        except RemoteProtocolError:
            status = command.malformed
        except StoreUnavailable as error:
            status = self._unavailable(request.header, error).status
        except Exception:
            log.exception("node %d: command %d failed", self.index, request.header.command)
            status = c.STATUS_INTERNAL
        self.state.undo()
        return Answer(status)

    def _reply(self, request: Request, answer: Answer, micros: int) -> bytearray:
        nonce = self._context.entropy(REPLY_NONCE) if request.header.enc == c.ENC_COIN256 else b""
        return packet.build_reply(request, answer.status, answer.payload, max(micros, 0), nonce)
