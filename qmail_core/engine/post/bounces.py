"""Letters about mail that was not delivered: delivery status notifications (RFC 3464), put into the sender's inbox."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from qmail_core.codec import mime
from qmail_core.codec.mime import Attachment, Compose, Person
from qmail_core.codec.mime.date import format_date
from qmail_core.engine.context import Context
from qmail_core.engine.letters import Letters
from qmail_core.errors import NotFound, QMailError, StoreUnavailable
from qmail_core.model import Folder
from qmail_core.transport.outside import Refusal

log = logging.getLogger("qmail.bounces")

NETWORK = 0  # instead of a code of SMTP: the refusal is one of the RAIDA network
_ENHANCED = re.compile(r"([45]\.\d{1,3}\.\d{1,3})\b")
_NOBODY = "nobody can be told of mail that was not delivered: %s"
_EXPIRED = "4.4.7"  # tried for as long as mail is (RFC 3463 3.5)
_OUTSIDE = re.compile(r"[^!-*,-<>-\[\]-~]")  # of an xtext: blanks, `+`, `=`, the backslash and what is not ASCII


class Bounces:
    """Tells the users of one store."""

    def __init__(self, ctx: Context, letters: Letters) -> None:
        self._ctx = ctx
        self._letters = letters

    async def tell(self, user: int, failed: Mapping[str, Refusal], raw: bytes) -> None:
        """Tell a user whom a message did not reach, and why; what goes wrong with that is logged."""
        try:
            await self.write(user, failed, raw)
        except StoreUnavailable as error:
            log.warning(_NOBODY, error)

    async def write(self, user: int, failed: Mapping[str, Refusal], raw: bytes) -> None:
        """The same for those who can try again: StoreUnavailable is raised."""
        try:
            inbox = self._ctx.store.mailboxes.mailbox_for(user, Folder.INBOX)
            await self._letters.deliver(user, self._letter(user, failed, raw), inbox)
        except StoreUnavailable:
            raise
        except NotFound:
            return  # the user has gone meanwhile
        except QMailError as error:
            log.warning(_NOBODY, error)

    def _letter(self, user: int, failed: Mapping[str, Refusal], raw: bytes) -> bytes:
        domain, now = self._ctx.config.domain, self._ctx.now()
        lines = "".join([f"  {who}: {refusal.text}\n" for who, refusal in failed.items()])
        header = raw.replace(b"\r\n", b"\n").partition(b"\n\n")[0] + b"\n"
        account = next((row.address for row in self._ctx.store.accounts.addresses(user) if row.main), "")
        return mime.compose(
            Compose(
                seed=self._ctx.entropy(32),
                date=now,
                message_id=f"<{self._ctx.new_oid().hex()}@{domain}>",
                from_=(Person("Mail Delivery Subsystem", f"mailer-daemon@{domain}"),),
                # an address of the network or beyond ASCII cannot stand in a header
                to=(Person("", account),) if _writable(account) else (),
                subject="Undelivered mail returned to sender",
                text=f"Your message was not delivered to:\n\n{lines}\nIts header is attached.\n",
                in_reply_to=mime.writable_ids((mime.scan(header).message_id,)),
                attachments=(
                    Attachment("status.txt", status_of(domain, failed, now), "message/delivery-status"),
                    Attachment("header.txt", header.replace(b"\n", b"\r\n"), "text/rfc822-headers"),
                ),
                headers=(("Auto-Submitted", "auto-replied"), ("X-Failed-Recipients", ", ".join(failed))),
                report="delivery-status",
            )
        )


def status_of(domain: str, failed: Mapping[str, Refusal], now: int) -> bytes:
    """The part that programs read. Source RFC 3464 2, RFC 6533 3 for addresses outside ASCII."""
    blocks = [[f"Reporting-MTA: dns; {mime.domain_to_ascii(domain)}"]]
    for who, refusal in failed.items():
        network = refusal.code == NETWORK
        said = " ".join(refusal.text.split()).encode("ascii", "replace").decode()[:300]
        blocks.append(
            [
                f"Final-Recipient: {'x-qmail; ' + _xtext(who) if network else _typed(who)}",
                "Action: failed",
                f"Status: {_status(refusal)}",
                f"Diagnostic-Code: {f'x-qmail; {said}' if network else f'smtp; {refusal.code} {said}'}",
                f"Last-Attempt-Date: {format_date(now)}",
            ]
        )
    return "\r\n".join(["".join([f"{line}\r\n" for line in block]) for block in blocks]).encode("ascii")


def _writable(account: str) -> bool:
    return "@" in account.strip("@") and account.rpartition("@")[0].isascii()


def _typed(who: str) -> str:
    local, at, domain = who.rpartition("@")
    return f"rfc822; {local}{at}{mime.domain_to_ascii(domain)}" if local.isascii() else f"utf-8; {_xtext(who)}"


def _xtext(text: str) -> str:
    return _OUTSIDE.sub(lambda match: f"\\x{{{ord(match[0]):X}}}", text)


def _status(refusal: Refusal) -> str:
    said = _ENHANCED.match(refusal.text)
    if said is not None and (said[1][0] == "5") == refusal.permanent:
        return said[1]
    return "5.0.0" if refusal.permanent or refusal.code == NETWORK else _EXPIRED
