"""Payments that came with mail, and what mails have cost: reading, claiming, remembering what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from qmail_core.codec import mail
from qmail_core.engine.context import Context
from qmail_core.engine.purse import Purse
from qmail_core.errors import Conflict, NotFound, QMailError, UsageError
from qmail_core.model import Message, PaymentStatus, Powned, Receipt
from qmail_core.store.base import LockerKind, LockerState


class Payment(Struct, frozen=True):
    """The locker that came with a mail. Prints without its code."""

    email_id: bytes
    guid: bytes
    code: bytes  # 16 bytes, zero-padded; zeros: none
    status: PaymentStatus

    @property
    def attached(self) -> bool:
        """Whether there is one at all."""
        return any(self.code)

    @property
    def text(self) -> str:
        """The code as its owner would type it; empty if it is not text."""
        code = self.code.rstrip(b"\0")
        return code.decode() if code.isascii() else ""

    def __repr__(self) -> str:
        return f"Payment({self.guid.hex()}, {self.status.name})"


class Spent(Struct, frozen=True):
    """A locker a mail was paid with. Prints without its code."""

    code: str
    kind: LockerKind
    value: int
    consumed_at: int

    def __repr__(self) -> str:
        return f"Spent({self.kind.name}, {self.value} CC)"


class Payments:
    """The payments of one engine."""

    def __init__(self, ctx: Context, purse: Purse) -> None:
        self._ctx = ctx
        self._purse = purse
        self._claiming = asyncio.Lock()

    def get(self, email_id: bytes) -> Payment:
        """The payment that came with a message; NotFound if there is no such message."""
        return self.of(self._ctx.store.mail.message_of(email_id))

    def of(self, message: Message) -> Payment:
        """The payment that came with this message."""
        code, status = bytes(16), PaymentStatus.UNCLAIMED
        if not message.outgoing:
            try:
                kept = self._ctx.store.mail.tell(message.guid)
            except NotFound:  # downloaded without one
                return Payment(message.id, message.guid, code, status)
            code = mail.parse_record(memoryview(kept.record))[0].locker_code
            status = kept.payment
        return Payment(message.id, message.guid, code, status)

    async def claim(self, email_id: bytes, wallet: str) -> Powned | None:
        """Take a payment into a wallet, under numbers nobody else knows; None if that was done before.

        raises   NotFound, UsageError if there is none, Conflict if it was refunded; QMailError if nothing could be
                 taken yet, and then the payment counts as failed and may be claimed again
        """
        async with self._claiming:  # the second of two would find the locker empty, and call it a failure
            return await self._claim(self._attached(email_id), wallet)

    async def _claim(self, payment: Payment, wallet: str) -> Powned | None:
        if payment.status == PaymentStatus.CLAIMED:
            return None
        if payment.status == PaymentStatus.REFUNDED:
            raise Conflict("This payment was refunded")
        try:
            taken = await self._purse.receive(payment.text, wallet, payment.guid)  # notes success with the coins
            if not taken.accepted:
                raise QMailError("too few servers confirmed the coins")
        except QMailError:
            await self._ctx.store.mail.set_payment(payment.guid, PaymentStatus.FAILED)
            raise
        return taken

    async def refund(self, email_id: bytes) -> tuple[Payment, bool]:
        """Note that a payment went back to its sender; the payment, and whether that was noted before."""
        async with self._claiming:  # a claim that ends later must not be the last word
            payment = self._attached(email_id)
            if payment.status == PaymentStatus.REFUNDED:
                return payment, True
            await self._ctx.store.mail.set_payment(payment.guid, PaymentStatus.REFUNDED)
            return self.get(email_id), False

    def _attached(self, email_id: bytes) -> Payment:
        payment = self.get(email_id)
        if not payment.attached:
            raise UsageError("No payment attached to this email")
        return payment

    def sent(self, limit: int, offset: int) -> Sequence[tuple[Receipt, Sequence[Spent]]]:
        """What sent mails were paid with, newest first."""
        return [
            (receipt, self.spent(bytes.fromhex(receipt.file_guid)))
            for receipt in self._ctx.store.sends.receipts(None, limit, offset)
        ]

    def paid(self, wallet: str, limit: int, offset: int) -> Sequence[bytes]:
        """Mails and objects that were paid from a wallet, the latest payment first."""
        return self._ctx.store.wallet.paid(wallet, limit, offset)

    def spent(self, guid: bytes, wallet: str | None = None) -> Sequence[Spent]:
        """What a mail was paid with, from one wallet or from all."""
        lockers = self._ctx.store.wallet.lockers(guid=guid)
        return [
            Spent(locker.code, locker.kind, locker.value, locker.consumed_at)
            for locker in lockers
            if locker.state == LockerState.CONSUMED and wallet in (None, locker.wallet)
        ]
