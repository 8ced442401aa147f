"""Filters: what a user wants done with mail of some kind. Every part of a query must hold; every filter is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from qmail_core.codec import mime
from qmail_core.codec.mime import Parsed, Person
from qmail_core.engine.context import Context
from qmail_core.errors import FilterNotFound, InputInvalid, NotFound
from qmail_core.store.post import Filter

MAX_FILTERS = 400  # of one user
MAX_FORWARDS = 20  # of one filter
UNKNOWN = "This filter does not exist"


class Verdict(Struct):
    """What all filters together want."""

    seen: bool = False
    flag: bool = False
    delete: bool = False
    spam: bool = False
    mailbox: bytes | None = None  # object id
    forward: list[str] = []


class Filters:
    """The filters of the users of one store."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._store = ctx.store.post

    def listed(self, user: int) -> Sequence[Filter]:
        """In the order they were made."""
        return self._store.filters(user)

    def get(self, user: int, oid: bytes) -> Filter:
        """FilterNotFound if the user has none of this id."""
        found = next((item for item in self._store.filters(user) if item.oid == oid), None)
        if found is None:
            raise FilterNotFound(UNKNOWN)
        return found

    async def add(self, user: int, item: Filter) -> Filter:
        """Make a filter; InputInvalid if it says nothing, or there are too many."""
        if len(self._store.filters(user)) >= MAX_FILTERS:
            raise InputInvalid({"name": f'"name" there are {MAX_FILTERS} filters already'})
        made = msgspec.structs.replace(item, oid=self._ctx.new_oid(), created_at=self._ctx.now())
        await self._put(user, made)
        return made

    async def change(self, user: int, item: Filter) -> None:
        """Replace a filter; FilterNotFound, InputInvalid."""
        self.get(user, item.oid)
        await self._put(user, item)

    async def _put(self, user: int, item: Filter) -> None:
        problems = {}
        if not item.query:
            problems["query"] = '"query" must hold at least one condition'
        if not item.action:
            problems["action"] = '"action" must hold at least one action'
        if len(item.action.get("forward", ())) > MAX_FORWARDS:
            problems["forward"] = f'"forward" must contain less than or equal to {MAX_FORWARDS} items'
        mailbox = item.action.get("mailbox")
        if mailbox is not None:
            try:
                self._ctx.store.mailboxes.mailbox(user, bytes.fromhex(mailbox))
            except NotFound:
                problems["mailbox"] = '"mailbox" is no mailbox of this user'
        if problems:
            raise InputInvalid(problems)
        await self._store.put_filter(user, item)

    async def remove(self, user: int, oid: bytes) -> None:
        """FilterNotFound if the user has none of this id."""
        if not await self._store.remove_filter(user, oid):
            raise FilterNotFound(UNKNOWN)

    def judge(self, user: int, mail: Searched) -> Verdict:
        """What is to be done with a message."""
        verdict = Verdict()
        for item in self._store.filters(user):
            if item.disabled or not mail.matches(item.query):
                continue
            action = item.action
            for name in ("seen", "flag", "delete", "spam"):
                if action.get(name):
                    setattr(verdict, name, True)
            if verdict.mailbox is None and action.get("mailbox"):
                with contextlib.suppress(ValueError):
                    verdict.mailbox = bytes.fromhex(action["mailbox"])
            verdict.forward += [target for target in action.get("forward", ()) if target not in verdict.forward]
        return verdict


class Searched:
    """A message as queries look at it; texts are folded once for all filters."""

    def __init__(self, parsed: Parsed, size: int, *, attached: bool = False) -> None:
        text = parsed.text or "\n".join(map(mime.html_to_text, parsed.html))
        self._texts = {
            "from": _people(parsed.from_ or parsed.sender),
            "to": _people([*parsed.to, *parsed.cc]),
            "subject": _fold(parsed.subject),
            "text": _fold(text),
        }
        self._attached = attached or bool(parsed.attachments)
        self._size = size

    def matches(self, query: dict[str, Any]) -> bool:
        """Whether every condition holds; `size` below zero is "smaller than"."""
        for name, wanted in query.items():
            if name == "ha":
                held = self._attached == wanted
            elif name == "size":
                held = self._size > wanted if wanted >= 0 else self._size < -wanted
            else:
                held = _fold(str(wanted)) in self._texts.get(name, "")
            if not held:
                return False
        return True


def _people(people: Iterable[Person]) -> str:
    return _fold("\n".join([f"{person.name} <{person.address}>" for person in people]))


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())
