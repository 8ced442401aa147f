"""Answers of those who are away: to people who wrote to them, once in four days, never to machines (RFC 3834)."""

from __future__ import annotations

import re

from qmail_core.codec import mime
from qmail_core.codec.cbdf import cut_text
from qmail_core.codec.mime import Compose, Parsed, Person
from qmail_core.engine.context import Context
from qmail_core.store.post import Autoreply

SILENCE = 4 * 86_400  # seconds
_MACHINES = re.compile(
    r"(?:no[-_.]?reply|do[-_.]?not[-_.]?reply|mailer-daemon|postmaster|bounces?|listserv|majordomo|owner-.*"
    r"|.*-(?:request|owner|bounces?)|root|daemon)(?:[+=].*)?@.*"
)
_LISTS = ("list-id", "list-unsubscribe", "list-post", "list-help", "x-auto-response-suppress", "x-loop")
_AUTO = "Auto:"
_BULK = ("bulk", "list", "junk")


class Autoreplies:
    """The automatic answers of the users of one store."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._store = ctx.store.post

    def get(self, user: int) -> Autoreply:
        """What is set; one that is off if nothing is."""
        return self._store.autoreply(user) or Autoreply()

    async def set(self, user: int, item: Autoreply) -> None:
        """Set the answer; everybody may have it once more."""
        await self._store.put_autoreply(user, item)

    async def remove(self, user: int) -> None:
        """Answer no more."""
        await self._store.put_autoreply(user, None)

    async def answer(
        self, user: int, parsed: Parsed, sender: str, own: list[str], writer: Person
    ) -> tuple[str, bytes] | None:
        """To whom something must be said, and what; None: nothing.

        sender  of the envelope, empty if there is none
        own     addresses of the user
        """
        item = self._now(user)
        if item is None:
            return None
        to = mime.normalise_address(sender)
        if not to or to in own or not is_personal(parsed, to, own):
            return None
        if not await self._store.may_answer(user, to, self._ctx.now(), SILENCE):
            return None
        return to, self._letter(item, parsed, to, Person(item.name or writer.name, writer.address))

    async def answer_plain(self, user: int, to: str, subject: str) -> tuple[str, str] | None:
        """Subject and text for somebody whose mail has neither envelope nor header; None: nothing is said."""
        item = self._now(user)
        # nothing but the subject tells of a mail that is an answer itself
        if item is None or subject.startswith(_AUTO):
            return None
        if not await self._store.may_answer(user, to, self._ctx.now(), SILENCE):
            return None
        return cut_text(self._subject(item, subject)), item.text or mime.html_to_text(item.html)

    def _now(self, user: int) -> Autoreply | None:
        """The answer that is on at this moment."""
        item, now = self._store.autoreply(user), self._ctx.now()
        if item is None or not item.status or now < (item.start or 0) or (item.end is not None and now >= item.end):
            return None
        return item

    def _subject(self, item: Autoreply, subject: str) -> str:
        return item.subject or f"{_AUTO} Re: {mime.normal_subject(subject)}".strip()

    def _letter(self, item: Autoreply, parsed: Parsed, to: str, writer: Person) -> bytes:
        known = mime.writable_ids((parsed.message_id,))
        return mime.compose(
            Compose(
                seed=self._ctx.entropy(32),
                date=self._ctx.now(),
                message_id=f"<{self._ctx.new_oid().hex()}@{self._ctx.config.domain}>",
                from_=(writer,),
                to=(Person("", to),),
                subject=self._subject(item, parsed.subject),
                text=item.text,
                html=item.html,
                in_reply_to=known,
                references=(*mime.writable_ids(parsed.references[-20:]), *known),
                headers=(("Auto-Submitted", "auto-replied"), ("X-Auto-Response-Suppress", "All")),
            )
        )


def is_personal(parsed: Parsed, sender: str, own: list[str]) -> bool:
    """Whether a person wrote this to this user: neither a list nor a machine, and not as one of many in Bcc."""
    headers = dict(reversed(parsed.headers))
    if any(name in headers for name in _LISTS) or headers.get("precedence", "").strip().lower() in _BULK:
        return False
    if headers.get("auto-submitted", "no").partition(";")[0].strip().lower() != "no":
        return False
    if headers.get("return-path", "").strip() == "<>" or _MACHINES.fullmatch(sender):
        return False
    named = {plain(mime.normalise_address(person.address)) for person in (*parsed.to, *parsed.cc)}
    return not named.isdisjoint(own)


def plain(address: str) -> str:
    """An address without its label (`user+label@`)."""
    local, at, domain = address.rpartition("@")
    base, plus, _ = local.partition("+")
    return f"{base if plus and base else local}{at}{domain}"
