"""Handlers of group 16 (DRD): user records and lists of senders. Mirrors codec/directory.py; QMail wire E.1.

Every node keeps a copy of its own and tells no other. Whatever changes something proves the mailbox by its
authenticity number; a list batch is looked at whole before anything of it is written.
"""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Callable
from typing import TypeVar

from qmail_core.codec import consts as c
from qmail_core.codec import directory as codec
from qmail_core.codec.mail import build_selector, read_selector
from qmail_core.codec.packet import Refused, Request
from qmail_core.model import ListEntry, ListKind, UserRecord
from qmail_core.raida.context import Answer, Command, Context

_KINDS = frozenset(ListKind)
_OWNED = 21  # mailbox and authenticity number, which begin every request of an owner
_LEAST_SEARCH = 4  # flags, limit, and one name of one byte: 22 in all

T = TypeVar("T")


def fold(name: str) -> bytes:
    """A name as it is compared: without regard to case, and to how accents are encoded."""
    return unicodedata.normalize("NFC", name).casefold().encode()


def post_user(context: Context, request: Request, now: float) -> Answer:
    """Command 140: publish or change a record; `created_at` stays what it was."""
    owner, profile = _read(codec.parse_post_user, request)
    mailbox = _authenticate(context, owner)
    if profile.fee < 0:
        raise Refused(c.STATUS_INVALID_PARAMETER)
    old = context.state.user(mailbox)
    created = codec.parse_user_record(old).created_at if old is not None else int(now)
    record = codec.build_user_record(UserRecord(owner.address, profile, created, int(now)))
    context.state.put_user(mailbox, record, fold(profile.first_name), fold(profile.last_name))
    return Answer(c.STATUS_SUCCESS)


def get_user(context: Context, request: Request, now: float) -> Answer:
    """Command 141: the record of a mailbox, for whoever asks."""
    record = context.state.user(build_selector(_read(codec.parse_get_user, request)))
    if record is None:
        raise Refused(c.STATUS_NO_ENTRY)
    return Answer(c.STATUS_SUCCESS, record)


def search_users(context: Context, request: Request, now: float) -> Answer:
    """Command 142: records by the beginnings of their names."""
    if not request.payload[0] & (codec.SEARCH_FIRST | codec.SEARCH_LAST):
        raise Refused(c.STATUS_INVALID_PARAMETER)
    if len(request.payload) < _LEAST_SEARCH:
        raise Refused(c.STATUS_PACKET_LENGTH)
    search = _read(codec.parse_search_users, request)
    first, last = (None if name is None else fold(name) for name in (search.first, search.last))
    limit = search.limit if 0 < search.limit <= codec.MAX_RESULTS else codec.MAX_RESULTS
    return Answer(c.STATUS_SUCCESS, codec.build_search_answer(context.state.find_users(first, last, limit)))


def delete_user(context: Context, request: Request, now: float) -> Answer:
    """Command 143: forget a record; the mailbox's lists stay."""
    mailbox = _authenticate(context, _read(codec.parse_owned, request))
    if context.state.user(mailbox) is None:
        raise Refused(c.STATUS_NO_ENTRY)
    context.state.remove_user(mailbox)
    return Answer(c.STATUS_SUCCESS)


def list_set(context: Context, request: Request, now: float) -> Answer:
    """Command 144: put senders on a list, or move them to the other."""
    owner, entries = _read(codec.parse_list_set, request)
    mailbox = _authenticate(context, owner)
    wanted = {build_selector(entry.address): entry.kind for entry in entries}
    if not all(entry.kind in _KINDS for entry in entries):
        raise Refused(c.STATUS_INVALID_PARAMETER)
    known = {sender for sender, _ in context.state.list_entries(mailbox)}
    if len(known | wanted.keys()) > codec.MAX_LIST:
        raise Refused(c.STATUS_INVALID_PARAMETER)
    context.state.set_listed(mailbox, wanted.items())
    return Answer(c.STATUS_SUCCESS)


def list_remove(context: Context, request: Request, now: float) -> Answer:
    """Command 145: take senders off the lists; those on none are none."""
    owner, addresses = _read(codec.parse_list_remove, request)
    mailbox = _authenticate(context, owner)
    context.state.set_listed(mailbox, ((build_selector(address), None) for address in addresses))
    return Answer(c.STATUS_SUCCESS)


def list_get(context: Context, request: Request, now: float) -> Answer:
    """Command 146: every listed sender."""
    mailbox = _authenticate(context, _read(codec.parse_owned, request))
    rows = context.state.list_entries(mailbox)
    return Answer(c.STATUS_SUCCESS, codec.build_list_answer(ListEntry(read_selector(s), kind) for s, kind in rows))


def _read(parse: Callable[[memoryview], T], request: Request) -> T:
    """A payload, or the refusal of one whose values are wrong; a wrong layout is the dispatcher's."""
    try:
        return parse(request.payload)
    except codec.BadValue:
        raise Refused(c.STATUS_INVALID_PARAMETER) from None


def _authenticate(context: Context, owner: codec.Owned) -> bytes:
    """The mailbox whose authenticity number the body carries."""
    mailbox = build_selector(owner.address)
    known = context.state.an(mailbox)
    if known is None:
        raise Refused(c.STATUS_SN_NOT_HELD)
    if not hmac.compare_digest(known, owner.an):
        raise Refused(c.STATUS_INVALID_AN)
    return mailbox


DIRECTORY = {
    c.CMD_POST_USER: Command(post_user),
    c.CMD_GET_USER: Command(get_user),
    c.CMD_SEARCH_USERS: Command(search_users, 2),
    c.CMD_DELETE_USER: Command(delete_user),
    c.CMD_LIST_SET: Command(list_set, _OWNED, c.STATUS_NOT_DIVISIBLE),
    c.CMD_LIST_REMOVE: Command(list_remove, _OWNED, c.STATUS_NOT_DIVISIBLE),
    c.CMD_LIST_GET: Command(list_get),
}
