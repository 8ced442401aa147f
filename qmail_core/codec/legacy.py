"""The older mail commands 60 to 64 (early 2026), read and answered by a node that is told to. QMail wire C.10.

Fields have other places and widths than in 70 to 74; the values are those of `codec/mail.py`. Stored is the newer
form, so that both kinds of clients see the same mails. What the older form cannot say is lost on the way out: file
lists, striping profiles, any but the first locker.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec.mail import TellRecipient, Upload, build_selector, read_selector
from qmail_core.codec.mail import parse_record as parse_record
from qmail_core.codec.packet import Refused
from qmail_core.errors import RemoteProtocolError
from qmail_core.model import StripeLocation, Tell

FIRST_PORT = 50_000  # A.1: port of RAIDA 0, by convention; an old location names no RAIDA
UNKNOWN_RAIDA = 0xFF
PAGE_BYTES = {0: 65_536, 1: 1024, 2: 8192, 3: 65_536}  # by bytes-per-page code (C.5); an answer ends at 64 KiB
FOOTER = b"\x50\x10"  # a locker code follows (C.10)


def _code(raw: bytes | memoryview) -> bytes:
    """A locker code of 8 bytes as the newer form has it, 16."""
    return bytes(raw).ljust(c.LOCKER_CODE_SIZE, b"\0")


def parse_upload(payload: memoryview) -> Upload:
    """Read a command 60 payload, identity included: GUID, locker 8, type and duration at 74, length at 80."""
    if len(payload) < 68:
        raise RemoteProtocolError("upload shorter than its head")
    size = int.from_bytes(payload[64:68], "big")
    if len(payload) != 68 + size:
        raise RemoteProtocolError("upload length does not match its data")
    return Upload(bytes(payload[32:48]), _code(payload[48:56]), payload[58], payload[59], 0, payload[68:])


class OldTell(Struct, frozen=True):
    """A parsed command 61."""

    tell: Tell
    recipients: tuple[TellRecipient, ...]
    fee_locker: bytes
    record: bytes  # in the newer form, as a beacon stores it


def parse_tell(payload: memoryview) -> OldTell:
    """Read a command 61 payload: routing header of 40 bytes, address entries, locations.

    raises   RemoteProtocolError if the length does not match the counts or they are out of range
    """
    if len(payload) < 72:
        raise RemoteProtocolError("tell shorter than its head")
    recipients, servers = payload[61], payload[62]
    if not 1 <= recipients <= c.MAX_RECIPIENTS or not 1 <= servers <= 32:
        raise RemoteProtocolError("tell counts are out of range")
    places = 72 + recipients * c.ADDRESS_ENTRY_SIZE
    if len(payload) != places + servers * c.LOCATION_SIZE:
        raise RemoteProtocolError("tell length does not match its counts")
    fee_locker = _code(payload[63:71])
    record = _record(payload, fee_locker, payload[places:])
    entries = [payload[at : at + c.ADDRESS_ENTRY_SIZE] for at in range(72, places, c.ADDRESS_ENTRY_SIZE)]
    return OldTell(
        parse_record(memoryview(record))[0],
        tuple(TellRecipient(read_selector(entry[3:8]), entry[0], bytes(entry[8:24])) for entry in entries),
        fee_locker,
        record,
    )


def _record(payload: memoryview, locker: bytes, places: memoryview) -> bytes:
    """The newer record with manifest version 0, which knows of nothing but a body. Source C.6.4."""
    guid, size, timestamp = payload[32:48], payload[48:52], payload[56:60]
    head = b"".join((guid, payload[8:15], b"\0", timestamp, payload[60:61], payload[62:63], locker, size, b"\2"))
    return head.ljust(c.TELL_HEADER_SIZE, b"\0") + b"".join(
        _new_location(places[at : at + c.LOCATION_SIZE]) for at in range(0, len(places), c.LOCATION_SIZE)
    )


def _new_location(old: memoryview) -> bytes:
    """Index, type, locker 8, IP 16, port 2, reserved 4 -> C.6.5. The locker stays behind."""
    raida = int.from_bytes(old[26:28], "big") - FIRST_PORT
    known = raida if 0 <= raida < 32 else UNKNOWN_RAIDA
    return b"".join((old[:2], bytes((known,)), bytes(17), b"\xff\xff", old[22:28], bytes(4)))


def _old_location(server: StripeLocation) -> bytes:
    ip = ipaddress.IPv4Address(server.host).packed
    return b"".join((bytes((server.stripe, server.parity)), bytes(20), ip, server.port.to_bytes(2, "big"), bytes(4)))


class Download(Struct, frozen=True):
    """A parsed command 64."""

    guid: bytes
    file_type: int
    size_code: int
    page: int

    @property
    def page_bytes(self) -> int:
        """Bytes of one page as this client counts them."""
        return PAGE_BYTES[self.size_code]


def parse_download(payload: memoryview) -> Download:
    """Read a command 64 payload: GUID, type, version, bytes-per-page code, page; nothing behind."""
    if len(payload) != 52:
        raise RemoteProtocolError("download request has a wrong length")
    if payload[50] not in PAGE_BYTES:
        raise Refused(c.STATUS_INVALID_PARAMETER)
    return Download(bytes(payload[32:48]), payload[48], payload[50], payload[51])


def build_page(wanted: Download, data: bytes) -> bytes:
    """The answer to 64: type, version, bytes-per-page code, page, length u32, reserved; data."""
    head = bytes((wanted.file_type, 1, wanted.size_code, wanted.page))
    return b"".join((head, len(data).to_bytes(4, "big"), b"\0", data))


def build_tells(records: Sequence[bytes], remaining: int) -> bytes:
    """The answer to 62 and 63, from records in the newer form.

    remaining   tells that wait besides
    """
    head = bytes((len(records),)) + min(remaining, 0xFFFF).to_bytes(2, "big") + bytes(5)
    return head + b"".join(map(_old_record, records))


def _old_record(record: bytes) -> bytes:
    """40-byte header, locations, footer with the locker code."""
    tell, _ = parse_record(memoryview(record))
    return b"".join(
        (
            bytes(4),
            c.COIN_ID,
            build_selector(tell.sender),
            tell.timestamp.to_bytes(4, "big"),
            bytes((tell.tell_type,)),
            tell.guid,
            tell.total_size.to_bytes(4, "big"),
            len(tell.servers).to_bytes(4, "big"),
            *map(_old_location, tell.servers),
            FOOTER,
            tell.locker_code,
        )
    )
