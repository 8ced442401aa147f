"""What mailboxes ask of senders: fee, class, lists."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

from qmail_core.raida.state.medium import MemoryTables

ListWord = Literal["white", "black"]


class InboxRule(Protocol):
    """What a mailbox asks of senders (QMail wire E.1)."""

    @property
    def fee(self) -> int:
        """Inbox fee in 10^-8 CC; 0 or less is free."""

    @property
    def class_rejection(self) -> int:
        """Lowest sender denomination accepted, signed; 0 accepts all."""


class GateState(Protocol):
    """Inbox rules of a beacon."""

    def inbox_rule(self, mailbox: bytes) -> InboxRule | None:
        """The mailbox's rule, or None if it never set one."""

    def set_inbox_rule(self, mailbox: bytes, fee: int, class_rejection: int) -> None:
        """Set the mailbox's rule."""

    def list_entry(self, mailbox: bytes, sender: bytes) -> ListWord | None:
        """Which of the mailbox's lists the sender is on."""

    def set_list_entry(self, mailbox: bytes, sender: bytes, word: ListWord | None) -> None:
        """Move a sender to a list, or off both."""


class MemoryRule(Struct, frozen=True):
    """An InboxRule in memory."""

    fee: int
    class_rejection: int


class MemoryGate(MemoryTables):
    """GateState in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._rules: dict[bytes, MemoryRule] = {}
        self._lists: dict[tuple[bytes, bytes], ListWord] = {}

    def inbox_rule(self, mailbox: bytes) -> InboxRule | None:
        return self._rules.get(mailbox)

    def set_inbox_rule(self, mailbox: bytes, fee: int, class_rejection: int) -> None:
        self._put(self._rules, mailbox, MemoryRule(fee, class_rejection))

    def list_entry(self, mailbox: bytes, sender: bytes) -> ListWord | None:
        return self._lists.get((mailbox, sender))

    def set_list_entry(self, mailbox: bytes, sender: bytes, word: ListWord | None) -> None:
        self._put(self._lists, (mailbox, sender), word)
