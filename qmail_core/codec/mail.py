"""Bodies of group 6: upload, tell, ping, peek, download. Bytes and values only.

A body built here is a (head, tail) pair as `packet.Batch` wants it: the head starts with the 32 identity bytes of the
preamble (the 16-byte challenge before them belongs to the packet), so offsets in comments, counted from the body's
start as the reference counts them, are 16 more than offsets in a head. QMail wire part C.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec.cipher import selector_of
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import Address, Coin, FileEntry, Profile, StripeLocation, Striping, Tell


def build_identity(coin: Coin, node: int) -> bytes:
    """The preamble after its challenge: who speaks, and the proof for this one node.

    returns  32 bytes: session 8, coin id 2, DN, SN, reserved, AN
    source   QMail wire C.1
    """
    return b"".join((bytes(8), c.COIN_ID, build_selector(coin.address), b"\0", coin.an(node)))


def build_selector(address: Address) -> bytes:
    """DN and SN of an address, 5 bytes."""
    return selector_of(address.denomination, address.serial)


def read_selector(raw: bytes | memoryview) -> Address:
    """The inverse of `build_selector`."""
    return Address(int.from_bytes(raw[:1], "big", signed=True), int.from_bytes(raw[1:5], "big"))


class Identity(Struct, frozen=True):
    """The identity a group 6 request claims; a node compares `an` with its own record."""

    address: Address
    an: bytes


def parse_identity(payload: memoryview) -> Identity:
    """Read the identity bytes of a payload; RemoteProtocolError if it is too short. Source C.1."""
    if len(payload) < c.IDENTITY_SIZE:
        raise RemoteProtocolError("request without preamble")
    return Identity(read_selector(payload[10:15]), bytes(payload[16:32]))


# ------------------------------------------------------------------------------------------------------------------
# 70 upload and 75 upload_large_page


class Upload(Struct, frozen=True):
    """One stripe, or one page of one, on its way to a node."""

    guid: bytes
    locker: bytes  # 16 bytes ASCII, zero-padded
    file_type: int
    duration: int  # duration code
    page: int
    data: memoryview


def build_upload(guid: bytes, locker: bytes, file_type: int, duration: int, size: int) -> bytes:
    """What follows the identity in command 70, up to the data. Source C.3."""
    return b"".join((guid, locker, bytes((file_type, duration)), size.to_bytes(4, "big")))


def build_upload_page(guid: bytes, locker: bytes, file_type: int, duration: int, page: int, size: int) -> bytes:
    """What follows the identity in command 75, up to the data. Source C.4."""
    if size > c.PAGE_SIZE:
        raise LocalProtocolError(f"a page holds {c.PAGE_SIZE} bytes, not {size}")
    return b"".join((guid, locker, bytes((file_type, duration)), page.to_bytes(2, "big"), size.to_bytes(4, "big")))


def parse_upload(payload: memoryview, *, paged: bool) -> Upload:
    """Read a command 70 or 75 payload (identity included); RemoteProtocolError on a wrong length. Source C.3, C.4."""
    head = 32 + 16 + 16 + 2 + (2 if paged else 0) + 4
    if len(payload) < head:
        raise RemoteProtocolError("upload shorter than its head")
    size = int.from_bytes(payload[head - 4 : head], "big")
    if len(payload) != head + size or (paged and size > c.PAGE_SIZE):
        raise RemoteProtocolError("upload length does not match its data")
    page = int.from_bytes(payload[66:68], "big") if paged else 0
    return Upload(bytes(payload[32:48]), bytes(payload[48:64]), payload[64], payload[65], page, payload[head:])


# ------------------------------------------------------------------------------------------------------------------
# 74 download


class Download(Struct, frozen=True):
    """A request for one page of one object."""

    guid: bytes
    locker: bytes
    file_type: int
    page: int


def build_download(guid: bytes, locker: bytes, file_type: int, page: int) -> bytes:
    """What follows the identity in command 74. Source C.5."""
    return b"".join((guid, locker, bytes((file_type, 0, 0)), page.to_bytes(2, "big")))


def parse_download(payload: memoryview) -> Download:
    """Read a command 74 payload of exactly 69 bytes after the challenge. Source C.5."""
    if len(payload) != 69:
        raise RemoteProtocolError("download request has a wrong length")
    page = int.from_bytes(payload[67:69], "big")
    return Download(bytes(payload[32:48]), bytes(payload[48:64]), payload[64], page)


def build_page(file_type: int, page: int, data: bytes) -> bytes:
    """The answer to 74: an 8-byte header and the data. Source C.5."""
    return bytes((file_type, 1, 0, page & 0xFF)) + len(data).to_bytes(4, "big") + data


def parse_page(payload: bytes | memoryview) -> memoryview:
    """The data of an answer to 74. Like deployed clients, only the length in its header is believed. Source C.5."""
    view = memoryview(payload)
    if len(view) < 8:
        raise RemoteProtocolError("download answer without header")
    size = int.from_bytes(view[4:8], "big")
    if size > c.PAGE_SIZE or size != len(view) - 8:
        raise RemoteProtocolError("download answer does not match its announced length")
    return view[8:]


# ------------------------------------------------------------------------------------------------------------------
# 71 tell


class TellRecipient(Struct, frozen=True):
    """One address entry of a tell."""

    address: Address
    kind: int = 0  # 0 To, 1 CC, 2 BCC
    locker: bytes = bytes(16)  # pays this recipient's inbox fee


class TellRequest(Struct, frozen=True):
    """A parsed command 71."""

    tell: Tell
    recipients: tuple[TellRecipient, ...]
    fee_locker: bytes
    record: bytes  # file header, locations and manifest, as a beacon stores them


def build_record(tell: Tell) -> bytes:
    """File header, server locations and manifest: what a beacon stores verbatim and hands out.

    source   QMail wire C.6.4 to C.6.6; bytes 57 to 59 announce profile, parity and data count (`docs/erasure.md`),
             zero for the `interop` profile, as every other client sends them
    """
    if not 1 <= len(tell.servers) <= 32:
        raise LocalProtocolError("a tell lists 1 to 32 servers")
    if len(tell.files) > c.MAX_FILES:
        raise LocalProtocolError(f"a tell lists at most {c.MAX_FILES} files")
    has_crc = all(entry.crc32 is not None for entry in tell.files)
    shape = tell.striping
    striping = bytes(3) if shape.profile == Profile.INTEROP else bytes((shape.profile, shape.m, shape.k))
    header = b"".join(
        (
            tell.guid,
            c.COIN_ID,
            build_selector(tell.sender),
            b"\0",
            tell.timestamp.to_bytes(4, "big"),
            bytes((tell.tell_type, len(tell.servers))),
            tell.locker_code,
            min(tell.total_size, 0xFFFFFFFF).to_bytes(4, "big"),
            bytes((2, 1, len(tell.files), c.MANIFEST_ENTRY_SIZE)),
            (len(tell.files) * c.MANIFEST_ENTRY_SIZE).to_bytes(2, "big"),
            bytes((1 | (c.MANIFEST_HAS_CRC if has_crc else 0),)),
            striping,
            bytes(4),
        )
    )
    return b"".join((header, *map(_build_location, tell.servers), *map(_build_entry, tell.files)))


def _build_location(server: StripeLocation) -> bytes:
    ip = ipaddress.IPv4Address(server.host).packed
    head = bytes((server.stripe, server.parity, server.raida))
    return b"".join((head, bytes(17), b"\xff\xff", ip, server.port.to_bytes(2, "big"), bytes(4)))


def _build_entry(entry: FileEntry) -> bytes:
    crc = (entry.crc32 or 0).to_bytes(4, "big")
    return bytes((entry.file_type, entry.flags, 0, 0)) + entry.size.to_bytes(8, "big") + crc


def build_tell(tell: Tell, recipients: Sequence[TellRecipient], fee_locker: bytes = bytes(16)) -> bytes:
    """What follows the identity in command 71.

    recipients  1 to 50 that share one beacon
    raises      LocalProtocolError if a count is out of range
    source      QMail wire C.6.1 to C.6.3
    """
    if not 1 <= len(recipients) <= c.MAX_RECIPIENTS:
        raise LocalProtocolError(f"a tell has 1 to {c.MAX_RECIPIENTS} recipients")
    routing = b"".join(
        (
            tell.guid,
            min(tell.total_size, 0xFFFFFFFF).to_bytes(4, "big"),
            bytes(4),
            tell.timestamp.to_bytes(4, "big"),
            bytes((tell.tell_type, len(recipients), len(tell.servers))),
            fee_locker,
            b"\0",
        )
    )
    entries = (
        b"".join((bytes((r.kind,)), c.COIN_ID, build_selector(r.address), r.locker, bytes(8))) for r in recipients
    )
    return b"".join((routing, *entries, build_record(tell)))


def parse_tell(payload: memoryview) -> TellRequest:
    """Read a command 71 payload (identity included).

    raises   RemoteProtocolError if lengths do not add up or the counts are out of range
    source   QMail wire C.6.1
    """
    if len(payload) < 80 + c.ADDRESS_ENTRY_SIZE + c.TELL_HEADER_SIZE:
        raise RemoteProtocolError("tell shorter than its head")
    count, servers = payload[61], payload[62]
    if not 1 <= count <= c.MAX_RECIPIENTS or not 1 <= servers <= 32:
        raise RemoteProtocolError("tell counts are out of range")
    start = 80 + count * c.ADDRESS_ENTRY_SIZE
    recipients = tuple(
        TellRecipient(read_selector(entry[3:8]), entry[0], bytes(entry[8:24]))
        for entry in _chunks(payload[80:start], c.ADDRESS_ENTRY_SIZE)
    )
    record = bytes(payload[start:])
    tell, size = parse_record(memoryview(record))
    if size != len(record) or len(tell.servers) != servers:
        raise RemoteProtocolError("tell length does not match its counts")
    return TellRequest(tell, recipients, bytes(payload[63:79]), record)


def _chunks(view: memoryview, size: int) -> Iterator[memoryview]:
    return (view[i : i + size] for i in range(0, len(view), size))


def parse_record(view: memoryview) -> tuple[Tell, int]:
    """Read one tell record.

    returns  the Tell and how many bytes it took
    raises   RemoteProtocolError if it is truncated or its manifest contradicts itself
    source   QMail wire C.6.4 to C.6.7, C.7; manifest versions 0, 1 and 2 are understood
    """
    if len(view) < c.TELL_HEADER_SIZE:
        raise RemoteProtocolError("tell record without header")
    servers_end = c.TELL_HEADER_SIZE + view[29] * c.LOCATION_SIZE
    version, count, entry_size = view[51], view[52], view[53]
    manifest_size = int.from_bytes(view[54:56], "big") if version else 0
    end = servers_end + manifest_size
    if len(view) < end:
        raise RemoteProtocolError("tell record is truncated")
    if version not in (0, 1, 2):
        raise RemoteProtocolError(f"manifest version {version} is unknown")
    if version and (entry_size != (16, 72)[version - 1] or manifest_size != count * entry_size or not count):
        raise RemoteProtocolError("manifest sizes contradict each other")
    servers = tuple(map(_parse_location, _chunks(view[c.TELL_HEADER_SIZE : servers_end], c.LOCATION_SIZE)))
    total = int.from_bytes(view[46:50], "big")
    has_crc = bool(view[56] & c.MANIFEST_HAS_CRC)
    if version == 1:
        files = tuple(_parse_entry(entry, has_crc) for entry in _chunks(view[servers_end:end], 16))
    elif version == 2:
        files = tuple(
            FileEntry(entry[0], entry[1], int.from_bytes(entry[28:36], "big"), None)
            for entry in _chunks(view[servers_end:end], 72)
        )
    else:
        files = (FileEntry(c.FILE_BODY, c.FLAG_BODY, total, None),)
        # version 0 may carry an 18-byte footer, 50 10 and a locker
        end += 18 if bytes(view[end : end + 2]) == b"\x50\x10" and len(view) >= end + 18 else 0
    tell = Tell(
        guid=bytes(view[:16]),
        sender=read_selector(view[18:23]),
        timestamp=int.from_bytes(view[24:28], "big"),
        tell_type=view[28],
        locker_code=bytes(view[30:46]),
        total_size=total,
        striping=_striping(view[57], view[58], view[59], servers),
        files=files,
        servers=servers,
    )
    return tell, end


def _striping(profile: int, m: int, k: int, servers: Sequence[StripeLocation]) -> Striping:
    if profile not in (Profile.INTEROP, Profile.RS, Profile.SEALED):
        raise RemoteProtocolError(f"striping profile {profile} is unknown")
    if profile != Profile.INTEROP:
        return Striping(Profile(profile), k, m)
    # D.5: the parity's index is D; without a parity entry D is one above the highest data index
    parity = [server.stripe for server in servers if server.parity]
    highest = max((server.stripe for server in servers), default=0)
    return Striping(Profile.INTEROP, parity[0] if parity else highest + 1, 1)


def _parse_location(entry: memoryview) -> StripeLocation:
    host = str(ipaddress.IPv4Address(bytes(entry[22:26])))
    return StripeLocation(entry[0], entry[1] == 1, entry[2], host, int.from_bytes(entry[26:28], "big"))


def _parse_entry(entry: memoryview, has_crc: bool) -> FileEntry:
    crc = int.from_bytes(entry[12:16], "big") if has_crc else None
    return FileEntry(entry[0], entry[1], int.from_bytes(entry[4:12], "big"), crc)


# ------------------------------------------------------------------------------------------------------------------
# 72 ping and 73 peek


def build_poll(since: int = 0) -> bytes:
    """What follows the identity in commands 72 and 73: tells newer than `since`, 0 for all. Source C.7."""
    return since.to_bytes(4, "big")


def parse_poll(payload: memoryview, *, exact: bool) -> int:
    """Read a ping (0 to 4 bytes after the identity are accepted) or a peek (exactly 4). Source C.7."""
    extra = len(payload) - c.IDENTITY_SIZE
    if extra < 0 or extra > 4 or (exact and extra != 4):
        raise RemoteProtocolError("poll request has a wrong length")
    return int.from_bytes(payload[c.IDENTITY_SIZE :], "big") if extra == 4 else 0


def build_tells(records: Sequence[bytes]) -> bytes:
    """The answer to 72 and 73: count, padding, records. Source C.7."""
    if len(records) > 255:
        raise LocalProtocolError("one answer carries at most 255 tells")
    return b"".join((bytes((len(records),)), bytes(7), *records))


def parse_tells(payload: bytes | memoryview) -> list[tuple[Tell, bytes]]:
    """The tells of an answer, each with its verbatim record.

    A record that cannot be read ends the list, because nothing after it can be found; what came before is kept.
    source   QMail wire C.7 "Parsing rules"
    """
    view = memoryview(payload)
    found: list[tuple[Tell, bytes]] = []
    if len(view) < 8:
        return found
    position = 8
    for _ in range(view[0]):
        try:
            tell, size = parse_record(view[position:])
        except RemoteProtocolError:
            break
        found.append((tell, bytes(view[position : position + size])))
        position += size
    return found
