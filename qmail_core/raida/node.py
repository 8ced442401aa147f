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
from qmail_core.raida import change, coins, directory, healing, keys, legacy, lockers, mail, objects, status
from qmail_core.raida.context import Answer, Command, Context, Inquiry, Policy
from qmail_core.raida.pages import Pages
from qmail_core.raida.replay import Recent
from qmail_core.raida.state import NodeState
from qmail_core.raida.tickets import Tickets

__all__ = ["Ask", "Node", "Outcome", "Policy", "Wait"]

log = logging.getLogger("qmail.raida")

DATAGRAM_FLOOR = 17  # QMail wire A.1: shorter datagrams are ignored
DATAGRAM_FACTOR = 3  # bytes answered over UDP for each byte of a request anybody could have sent
INTEGRITY_VOTE = 7  # first byte of a datagram between servers

# One line per group: its commands, from the module that mirrors its codec.
COMMANDS: dict[int, dict[int, Command]] = {
    c.GROUP_STATUS: status.STATUS,
    c.GROUP_AUTH: coins.AUTH,
    c.GROUP_HEALING: healing.HEALING,
    c.GROUP_MAIL: mail.MAIL | objects.OBJECTS,
    c.GROUP_LOCKER: lockers.LOCKERS,
    c.GROUP_CHANGE: change.CHANGE,
    c.GROUP_KEYS: keys.KEYS,
    c.GROUP_DIRECTORY: directory.DIRECTORY,
}

_REPEATABLE = frozenset({c.GROUP_STATUS, c.GROUP_MAIL})  # in the clear: nothing to protect, and early clients of mail
_EMPTY = memoryview(b"")


class Wait(Struct, frozen=True, gc=False):
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


class Outcome(Struct, frozen=True, kw_only=True, gc=False):
    """What became of a frame. Exactly one of `reply`, `wait` and `ask` is set.

    None of them is for an Ask nobody waits for, and for a datagram that is ignored.
    """

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

    entropy    returns n bytes from a CSPRNG
    nodes      how many the network has
    timer      seconds, for the execution time in answers; the default reports none
    admin_key  16 bytes that open the statistics (command 2); empty: nobody may see them
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
        admin_key: bytes = b"",
    ) -> None:
        self.index = index
        self.state = state
        policy = policy or Policy()
        tickets = Tickets(policy.ticket_lifetime, policy.ticket_slots)
        self._context = Context(index, state, policy, entropy, nodes, tickets, Pages(policy.session_time), admin_key)
        self._numbers = self._context.numbers
        self._keys = _Keys(state)
        self._timer = timer
        old = legacy.LEGACY if self.policy.legacy_commands else {}
        if old:
            log.warning("node %d answers the older mail commands, which may come in the clear", index)
        self._commands = COMMANDS | {c.GROUP_MAIL: COMMANDS[c.GROUP_MAIL] | old}
        self._recent = Recent(self.policy.replay_window, self.policy.replay_room)
        self._remembers = self.policy.replay_window > 0
        self._go_on = self.policy.keystream == "continue"

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
        header = self._read(frame)
        return header if isinstance(header, Outcome) else self._act(frame, header, now)

    def handle_datagram(self, frame: bytearray, now: float) -> Outcome:
        """Act on one datagram: the rules of `handle`, and a bound for the answer. Never raises. QMail wire A.1."""
        if len(frame) < DATAGRAM_FLOOR or frame[0] == INTEGRITY_VOTE:
            return Outcome()
        header = self._read(frame)
        if isinstance(header, Outcome):
            return header
        if header.group == c.GROUP_MAIL and header.command in c.TCP_COMMANDS:
            return self._refuse(header, c.STATUS_TCP_REQUIRED)
        limit, size = self.policy.datagram_limit, len(frame)
        outcome = self._act(frame, header, now)
        if header.enc == c.ENC_NONE:
            limit = min(limit, DATAGRAM_FACTOR * size)
        if outcome.reply is None or outcome.request is None or len(outcome.reply) <= limit:
            return outcome
        self.state.undo()
        return Outcome(
            reply=self._reply(outcome.request, Answer(c.STATUS_PACKET_LENGTH), 0), changed=self.state.dirty()
        )

    def refuse(self, head: bytearray | memoryview) -> bytearray | None:
        """The answer to a whole header that is refused whatever body follows, or None. QMail wire A.11."""
        outcome = self._read(head)
        return outcome.reply if isinstance(outcome, Outcome) else None

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

    def sweep(self, now: float, limit: int = objects.SWEPT_AT_ONCE) -> int:
        """Clear away some of what time has ended: at most `limit` of pages, tells, transfers, tombstones; how many.

        The host calls this between requests and commits. If it is `limit` or more there may be more to do.
        """
        state, ttl = self.state, self.policy.tell_ttl
        state.mark()
        try:
            tells = state.sweep_tells(now - ttl, limit) if ttl else 0
            return state.sweep_pages(now, limit) + tells + objects.sweep(self._context, now, limit)
        except StoreUnavailable as error:
            log.error("node %d: sweep: %s", self.index, error)
            state.undo()
            return 0

    # ------------------------------------------------------------------ steps of a request
    def _read(self, frame: bytearray | memoryview) -> Header | Outcome:
        """The header, or the answer to one that is refused. QMail wire A.2, A.3.1."""
        self._numbers["requests"] += 1
        size = len(frame)
        if size < c.HEADER_SIZE or (frame[16] not in c.SHORT_HEADERS and size < c.HEADER256_SIZE):
            header = packet.read_header(bytearray(frame).ljust(c.HEADER256_SIZE, b"\0"))
            return self._refuse(header, c.STATUS_PACKET_LENGTH, echo=False)
        header = packet.read_header(frame)
        try:
            packet.check_header(frame, header, self.index, self._commands)
        except Refused as refused:
            # A.11: only a type that is not served is answered in the header of that type
            return self._refuse(header, refused.status, echo=refused.status == c.STATUS_ENCRYPTION_UNSUPPORTED)
        return header

    def _refuse(self, header: Header, status: int, *, echo: bool = True, close: bool = True) -> Outcome:
        self._numbers["refused"] += 1
        return Outcome(reply=packet.build_refusal(header, status, echo=echo), close=close)

    def _act(self, frame: bytearray, header: Header, now: float) -> Outcome:
        try:
            request = self._open(frame, header, now)
        except Refused as refused:
            close = refused.status in (c.STATUS_PACKET_LENGTH, c.STATUS_NO_TRAILER)
            return self._refuse(header, refused.status, close=close)
        return self._run(self._commands[header.group][header.command], request, now)

    def _open(self, frame: bytearray, header: Header, now: float) -> Request:
        if len(frame) != header.size + header.body_size:
            raise Refused(c.STATUS_PACKET_LENGTH)
        clear = header.group == c.GROUP_MAIL and header.enc == c.ENC_NONE
        if clear and header.command not in c.OLD_COMMANDS:
            raise Refused(c.STATUS_INVALID_ENCRYPTION)
        if not header.body_size:
            # B.1: an echo without body is answered, unsigned; everything else needs one
            bare = (header.group, header.command, header.enc) == (c.GROUP_STATUS, c.CMD_ECHO, c.ENC_NONE)
            raise Refused(c.STATUS_SUCCESS if bare else c.STATUS_EMPTY_BODY)
        try:
            request = packet.open_request(frame, header, self._keys)
        except StoreUnavailable as error:
            raise self._unavailable(header, error) from error
        if self._remembers and not self._is_first(request, now):
            self._numbers["replayed"] += 1
            raise Refused(c.STATUS_INVALID_CRC)
        return request

    def _is_first(self, request: Request, now: float) -> bool:
        """Whether this frame was not here before. A clear one has no key to go by: only what it says counts."""
        header = request.header
        if header.enc == c.ENC_NONE:
            if header.group in _REPEATABLE:
                return True
            said = bytes((header.group, header.command)) + request.challenge + request.payload
            return self._recent.first(said[:2], said, now)
        # only what decrypts: whoever changes the rest of a long nonce still sends the same frame
        return self._recent.first(header.selector, header.nonce[: packet.IV_SIZE] + request.challenge, now)

    def _unavailable(self, header: Header, error: StoreUnavailable) -> Refused:
        log.error("node %d: command %d: %s", self.index, header.command, error)
        return Refused(c.STATUS_FILESYSTEM)

    def _run(self, command: Command, request: Request, now: float) -> Outcome:
        started = self._timer()
        answer = self._decide(command, request, now)
        request.payload = _EMPTY  # done with; keeping it would keep the whole frame
        changed = self.state.dirty()
        if answer.park is not None:
            return Outcome(wait=Wait(answer.park, now + self.policy.poll_limit, request), changed=changed)
        if answer.inquiry is not None:
            return Outcome(ask=Ask(answer.inquiry, request), changed=changed, request=request)
        reply = self._reply(request, answer, int((self._timer() - started) * 1e6))
        return Outcome(reply=reply, woken=answer.woken, changed=changed, request=request)

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
        iv = b"" if request.header.enc in c.SHORT_HEADERS else self._context.entropy(packet.IV_SIZE)
        return packet.build_reply(request, answer.status, answer.payload, max(micros, 0), iv, go_on=self._go_on)
