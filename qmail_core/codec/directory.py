"""DRD bodies (group 16): user records with inbox fees, and white and black lists.

A payload here is what follows the challenge, without the trailer. Parsers check its layout and raise
RemoteProtocolError, `BadValue` where the layout is right but a name cannot be one; whether a number makes sense (fee,
list type, limit) is for the node to judge, which has a status byte for each. Big-endian. QMail wire E.1.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core.errors import LocalProtocolError, RemoteProtocolError, UsageError
from qmail_core.model import AN_SIZE, Address, ListEntry, UserProfile, UserRecord

UNITS_PER_COIN = 100_000_000  # fees count 1e-8 CC
MAX_FEE = (1 << 63) - 1
MAX_NAME = 63  # bytes of UTF-8
MAX_LIST = 1000
MAX_RESULTS = 50

SEARCH_FIRST = 1  # flag bits of search_users
SEARCH_LAST = 2

_PQ = struct.Struct(">bI")
_PROFILE = struct.Struct(">qBBb")  # fee, symbols, class rejection
_TIMES = struct.Struct(">QQ")
_ENTRY = struct.Struct(">bIB")
_U16 = struct.Struct(">H")
_AMOUNT = re.compile(r"([0-9]{1,11})(?:\.([0-9]{1,8}))?")


class BadValue(RemoteProtocolError):
    """The layout is right, a value in it is not."""


class Owned(Struct, frozen=True):
    """A request of an owner: the mailbox and the proof for one node; printed without the proof."""

    address: Address
    an: bytes  # 16 bytes

    def __repr__(self) -> str:
        return f"Owned({self.address})"


class Search(Struct, frozen=True):
    """A search for name prefixes; None means the name does not matter."""

    first: str | None = None
    last: str | None = None
    limit: int = 0  # 0 or more than 50 means 50


def fee_from_text(text: str) -> int:
    """Read an amount of CloudCoins exactly, without floating point.

    text     "10", "10.5", at most 8 decimals
    returns  units of 1e-8 CC
    raises   UsageError if it is negative, malformed or does not fit 63 bits
    source   DRD vector 01
    """
    text = text.strip()
    if text.startswith("-"):
        raise UsageError("fee is negative")
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise UsageError("fee is not a decimal number with at most 8 decimals")
    fee = int(found[1]) * UNITS_PER_COIN + int((found[2] or "").ljust(8, "0"))
    if fee > MAX_FEE:
        raise UsageError("fee is too large")
    return fee


def accepts(class_rejection: int, sender_denomination: int) -> bool:
    """Whether a mailbox takes mail from senders of a denomination; both signed. Source DRD vector 07."""
    return class_rejection == 0 or sender_denomination >= class_rejection


# ------------------------------------------------------------------------------------------------------------------
# Requests


def build_get_user(address: Address) -> bytes:
    """Write command 141. Source E.1."""
    return _pq(address)


def parse_get_user(payload: Buffer) -> Address:
    """Read command 141."""
    payload = bytes(payload)
    _exactly(payload, _PQ.size)
    return _read_pq(payload, 0)


def build_post_user(owner: Owned, profile: UserProfile) -> bytes:
    """Write command 140.

    returns  the payload, 34..160 bytes
    raises   LocalProtocolError if a name is over 63 bytes or a number out of range
    source   E.1
    """
    return _owned(owner) + _profile(profile) + _names(profile)


def parse_post_user(payload: Buffer) -> tuple[Owned, UserProfile]:
    """Read command 140."""
    payload = bytes(payload)
    owner, offset = _read_owned(payload)
    numbers = _unpack(_PROFILE, payload, offset)
    first, last, end = _read_names(payload, offset + _PROFILE.size)
    _exactly(payload, end)
    return owner, _read_profile(numbers, first, last)


def build_search_users(search: Search) -> bytes:
    """Write command 142; LocalProtocolError if no name is asked for or one is over 63 bytes. Source E.1."""
    wanted = (search.first, search.last)
    flags = sum(bit for bit, name in zip((SEARCH_FIRST, SEARCH_LAST), wanted, strict=True) if name is not None)
    if not flags or not 0 <= search.limit <= 255:
        raise LocalProtocolError("search without a name, or limit out of range")
    return bytes((flags, search.limit)) + b"".join(_name(name) for name in wanted if name is not None)


def parse_search_users(payload: Buffer) -> Search:
    """Read command 142; flags without any name bit give a Search of nothing, which the node refuses."""
    payload = bytes(payload)
    flags, limit = _take(payload, 0, 2)
    offset = 2
    names: list[str | None] = []
    for bit in (SEARCH_FIRST, SEARCH_LAST):
        name = None
        if flags & bit:
            name, offset = _read_name(payload, offset)
        names.append(name)
    _exactly(payload, offset)
    return Search(names[0], names[1], limit)


def build_owned(owner: Owned) -> bytes:
    """Write command 143 delete_user or 146 list_get, which are alike. Source E.1."""
    return _owned(owner)


def parse_owned(payload: Buffer) -> Owned:
    """Read command 143 or 146."""
    payload = bytes(payload)
    owner, end = _read_owned(payload)
    _exactly(payload, end)
    return owner


def build_list_set(owner: Owned, entries: Iterable[ListEntry]) -> bytes:
    """Write command 144: add senders to the lists or move them between. Source E.1."""
    return _owned(owner) + b"".join(map(_entry, entries))


def parse_list_set(payload: Buffer) -> tuple[Owned, tuple[ListEntry, ...]]:
    """Read command 144; the entry region must be a multiple of 6 bytes."""
    payload = bytes(payload)
    owner, offset = _read_owned(payload)
    return owner, _read_entries(payload[offset:])


def build_list_remove(owner: Owned, addresses: Iterable[Address]) -> bytes:
    """Write command 145. Source E.1."""
    return _owned(owner) + b"".join(map(_pq, addresses))


def parse_list_remove(payload: Buffer) -> tuple[Owned, tuple[Address, ...]]:
    """Read command 145; the entry region must be a multiple of 5 bytes."""
    payload = bytes(payload)
    owner, offset = _read_owned(payload)
    if (len(payload) - offset) % _PQ.size:
        raise RemoteProtocolError("list entries are not a multiple of 5 bytes")
    return owner, tuple(_read_pq(payload, at) for at in range(offset, len(payload), _PQ.size))


# ------------------------------------------------------------------------------------------------------------------
# Answers: payloads, without challenge and trailer


def build_user_record(record: UserRecord) -> bytes:
    """Write the answer of command 141, 34 bytes and the names. Source E.1."""
    times = _pack(_TIMES, record.created_at, record.updated_at)
    return b"".join((_pq(record.address), _profile(record.profile), times, _names(record.profile)))


def parse_user_record(payload: Buffer) -> UserRecord:
    """Read the answer of command 141."""
    payload = bytes(payload)
    record, end = _read_record(payload, 0)
    _exactly(payload, end)
    return record


def build_search_answer(records: Sequence[bytes]) -> bytes:
    """Write the answer of command 142: a count byte and records as `build_user_record` makes them. Source E.1."""
    if len(records) > MAX_RESULTS:
        raise LocalProtocolError(f"{len(records)} search results, at most {MAX_RESULTS}")
    return bytes((len(records),)) + b"".join(records)


def parse_search_answer(payload: Buffer) -> tuple[UserRecord, ...]:
    """Read the answer of command 142."""
    payload = bytes(payload)
    (count,) = _take(payload, 0, 1)
    offset = 1
    records = []
    for _ in range(count):
        record, offset = _read_record(payload, offset)
        records.append(record)
    _exactly(payload, offset)
    return tuple(records)


def build_list_answer(entries: Iterable[ListEntry]) -> bytes:
    """Write the answer of command 146, sorted as the wire demands: by denomination, then serial. Source E.1."""
    parts = [_entry(entry) for entry in sorted(entries, key=lambda entry: entry.address)]
    if len(parts) > MAX_LIST:
        raise LocalProtocolError(f"{len(parts)} list entries, at most {MAX_LIST}")
    return _U16.pack(len(parts)) + b"".join(parts)


def parse_list_answer(payload: Buffer) -> tuple[ListEntry, ...]:
    """Read the answer of command 146."""
    payload = bytes(payload)
    (count,) = _unpack(_U16, payload, 0)
    _exactly(payload, _U16.size + count * _ENTRY.size)
    return _read_entries(payload[_U16.size :])


# ------------------------------------------------------------------------------------------------------------------
# Pieces


def _take(payload: bytes, offset: int, size: int) -> bytes:
    piece = payload[offset : offset + size]
    if len(piece) != size:
        raise RemoteProtocolError(f"payload ends at {len(payload)}, {size} bytes expected at offset {offset}")
    return piece


def _exactly(payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise RemoteProtocolError(f"payload of {len(payload)} bytes instead of {size}")


def _pack(layout: struct.Struct, *values: int) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise LocalProtocolError(f"directory value out of range: {error}") from error


def _unpack(layout: struct.Struct, payload: bytes, offset: int) -> tuple[int, ...]:
    return layout.unpack(_take(payload, offset, layout.size))


def _pq(address: Address) -> bytes:
    return _pack(_PQ, address.denomination, address.serial)


def _read_pq(payload: bytes, offset: int) -> Address:
    return Address(*_unpack(_PQ, payload, offset))


def _owned(owner: Owned) -> bytes:
    if len(owner.an) != AN_SIZE:
        raise LocalProtocolError("authenticity number is not 16 bytes")
    return _pq(owner.address) + owner.an


def _read_owned(payload: bytes) -> tuple[Owned, int]:
    an = _take(payload, _PQ.size, AN_SIZE)
    return Owned(_read_pq(payload, 0), an), _PQ.size + AN_SIZE


def _entry(entry: ListEntry) -> bytes:
    return _pack(_ENTRY, entry.address.denomination, entry.address.serial, entry.kind)


def _read_entries(region: bytes) -> tuple[ListEntry, ...]:
    if len(region) % _ENTRY.size:
        raise RemoteProtocolError("list entries are not a multiple of 6 bytes")
    return tuple(ListEntry(Address(dn, sn), kind) for dn, sn, kind in _ENTRY.iter_unpack(region))


def _name(text: str) -> bytes:
    raw = text.encode("utf-8", "replace")
    if len(raw) > MAX_NAME:
        raise LocalProtocolError(f"name of {len(raw)} bytes, at most {MAX_NAME}")
    return bytes((len(raw),)) + raw


def _names(profile: UserProfile) -> bytes:
    return _name(profile.first_name) + _name(profile.last_name)


def _read_name(payload: bytes, offset: int) -> tuple[str, int]:
    (size,) = _take(payload, offset, 1)
    if size > MAX_NAME:
        raise BadValue(f"name of {size} bytes, at most {MAX_NAME}")
    raw = _take(payload, offset + 1, size)
    try:
        return raw.decode(), offset + 1 + size
    except UnicodeDecodeError as error:
        raise BadValue("name is not UTF-8") from error


def _read_names(payload: bytes, offset: int) -> tuple[str, str, int]:
    first, offset = _read_name(payload, offset)
    last, offset = _read_name(payload, offset)
    return first, last, offset


def _profile(profile: UserProfile) -> bytes:
    return _pack(_PROFILE, profile.fee, profile.symbol1, profile.symbol2, profile.class_rejection)


def _read_profile(numbers: tuple[int, ...], first: str, last: str) -> UserProfile:
    fee, symbol1, symbol2, rejection = numbers
    return UserProfile(
        fee=fee, symbol1=symbol1, symbol2=symbol2, class_rejection=rejection, first_name=first, last_name=last
    )


def _read_record(payload: bytes, offset: int) -> tuple[UserRecord, int]:
    address = _read_pq(payload, offset)
    numbers = _unpack(_PROFILE, payload, offset + _PQ.size)
    offset += _PQ.size + _PROFILE.size
    created_at, updated_at = _unpack(_TIMES, payload, offset)
    first, last, end = _read_names(payload, offset + _TIMES.size)
    return UserRecord(address, _read_profile(numbers, first, last), created_at, updated_at), end
