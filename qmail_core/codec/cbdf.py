"""CBDF documents, the little-endian world inside a mail: Meta pairs, body text, colours, resources.

Written is Phase I (`[meta] 1C 1C 02 text`), which every client reads; read are Phase I and Phase II. Every reader
returns a value or raises RemoteProtocolError naming the offset; texts, names and addresses it returns come from a
stranger and are not cleaned here. QMail wire part G.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator

from msgspec import Struct

from qmail_core.codec.address import from_mailbox_le, to_mailbox_le
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from qmail_core.model import Address

# Meta keys (QMail wire G.1)
KEY_TYPE = 0
KEY_GUID = 1
KEY_SUBJECT = 2
KEY_ATTACHMENT_NAME = 3
KEY_ATTACHMENT_COUNT = 12
KEY_TO = 13
KEY_CC = 14
KEY_FROM = 19
KEY_TIMESTAMP = 25
KEY_META_ONLY = 33
KEY_PREVIEW = 36
KEY_TIMESTAMP64 = 41
LOCAL_KEYS = range(200, 220)  # a receiver's own notes; never on the wire, dropped when they arrive

TYPE_QMAIL = 1
MAX_VALUE = 255
MAX_PAIRS = 0xFFFF
GUID_SIZE = 16
MAX_EXTENSION = 32  # bytes; a longer "extension" is only a name with a dot in it

FS = 0x1C  # section separator
STX = 0x02
ETX = 0x03
PHASE1_HEAD = b"\x1c\x1c\x02"  # separator, empty styles, separator, start of text


class Meta(Struct, frozen=True):
    """The pairs of a Meta section in document order; a key may repeat."""

    pairs: tuple[tuple[int, bytes], ...]

    def first(self, key: int) -> bytes | None:
        """The first value of a key, None if it is absent."""
        return next((value for k, value in self.pairs if k == key), None)

    def all(self, key: int) -> tuple[bytes, ...]:
        """All values of a key in order."""
        return tuple(value for k, value in self.pairs if k == key)

    def without_local(self) -> Meta:
        """The same pairs without the receiver-local keys, fit for the wire."""
        return Meta(tuple(pair for pair in self.pairs if pair[0] not in LOCAL_KEYS))


class MailMeta(Struct, frozen=True, kw_only=True):
    """The private header of one mail."""

    guid: bytes  # 16 bytes; all zero if a received document has none (short messages)
    subject: str
    sender: Address
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    timestamp: int = 0  # Unix seconds; 0 if a received document has none
    attachment_names: tuple[str, ...] = ()  # attachment order; untrusted text, not a safe file name
    preview: str = ""


# ------------------------------------------------------------------------------------------------------------------
# Meta


def parse_meta(buf: bytes) -> tuple[Meta, int]:
    """Read the Meta section at the start of a document.

    returns  the pairs, and how many bytes they take
    raises   RemoteProtocolError if the buffer ends inside them
    source   QMail wire G.1
    """
    count = int.from_bytes(_take(buf, 0, 2, "pair count"), "little")
    offset = 2
    pairs = []
    for _ in range(count):
        key, size = _take(buf, offset, 2, "pair head")
        pairs.append((key, _take(buf, offset + 2, size, f"value of key {key}")))
        offset += 2 + size
    return Meta(tuple(pairs)), offset


def build_meta(pairs: Iterable[tuple[int, bytes]]) -> bytes:
    """Write a Meta section.

    pairs    key 0..255, value at most 255 bytes; at most 65 535 pairs
    raises   LocalProtocolError if they are out of range
    source   QMail wire G.1
    """
    parts = [b""]
    for key, value in pairs:
        if not 0 <= key <= 255 or len(value) > MAX_VALUE:
            raise LocalProtocolError(f"meta key {key} or its {len(value)} byte value is out of range")
        parts += (bytes((key, len(value))), value)
    count = len(parts) // 2
    if count > MAX_PAIRS:
        raise LocalProtocolError(f"{count} meta pairs, at most {MAX_PAIRS}")
    parts[0] = count.to_bytes(2, "little")
    return b"".join(parts)


def build_mail_meta(meta: MailMeta) -> bytes:
    """Write the private header of a mail as a Phase I Meta section.

    meta     over-long texts are cut at 255 bytes; names keep their extension
    returns  the object of file type 0
    raises   LocalProtocolError if guid, timestamp or the number of pairs is out of range, AddressError for a mailbox
    source   QMail wire G.1
    """
    if len(meta.guid) != GUID_SIZE:
        raise LocalProtocolError(f"guid of {len(meta.guid)} bytes instead of {GUID_SIZE}")
    if not 0 <= meta.timestamp < 1 << 32:
        raise LocalProtocolError(f"timestamp {meta.timestamp} does not fit 32 bits")
    pairs = [
        (KEY_TYPE, bytes((TYPE_QMAIL,))),
        (KEY_GUID, meta.guid),
        (KEY_SUBJECT, _cut(_utf8(meta.subject), MAX_VALUE)),  # present even when empty (G.1)
        *((KEY_ATTACHMENT_NAME, cut_name(name)) for name in meta.attachment_names),
        (KEY_ATTACHMENT_COUNT, bytes((min(len(meta.attachment_names), 255),))),
        *((KEY_TO, to_mailbox_le(address)) for address in meta.to),
        *((KEY_CC, to_mailbox_le(address)) for address in meta.cc),
        (KEY_FROM, to_mailbox_le(meta.sender)),
        (KEY_TIMESTAMP, meta.timestamp.to_bytes(4, "little")),
    ]
    if meta.preview:
        pairs.append((KEY_PREVIEW, _cut(_utf8(meta.preview), MAX_VALUE)))
    return build_meta(pairs)


def parse_mail_meta(buf: bytes) -> MailMeta:
    """Read the private header of a mail from a Meta object or from the start of a whole document.

    returns  what is known; unknown and receiver-local keys are skipped, a missing guid or time is zero, and an
             attachment without a name gets "attachment-N.bin", N from 1
    raises   RemoteProtocolError if it is malformed or has no sender
    source   QMail wire G.1
    """
    meta, end = parse_meta(buf)
    if end != len(buf) and buf[end] != FS:
        raise RemoteProtocolError(f"unexpected byte {buf[end]:02x} after the meta pairs at offset {end}")
    sender = meta.first(KEY_FROM)
    if sender is None:
        raise RemoteProtocolError("meta has no From mailbox")
    # the 8-byte time wins: whoever writes it does so because four bytes were not enough
    wide = _number(meta, KEY_TIMESTAMP64, 8)
    return MailMeta(
        guid=_sized(meta, KEY_GUID, GUID_SIZE) or bytes(GUID_SIZE),
        subject=_text(meta.first(KEY_SUBJECT) or b""),
        sender=from_mailbox_le(sender),
        to=tuple(map(from_mailbox_le, meta.all(KEY_TO))),
        cc=tuple(map(from_mailbox_le, meta.all(KEY_CC))),
        timestamp=wide or _number(meta, KEY_TIMESTAMP, 4),
        attachment_names=_names(meta),
        preview=_text(meta.first(KEY_PREVIEW) or b""),
    )


def _names(meta: Meta) -> tuple[str, ...]:
    names = [_text(value) for value in meta.all(KEY_ATTACHMENT_NAME)]
    names += [""] * (_number(meta, KEY_ATTACHMENT_COUNT, 1) - len(names))
    return tuple(name or f"attachment-{position}.bin" for position, name in enumerate(names, 1))


def _sized(meta: Meta, key: int, size: int) -> bytes | None:
    value = meta.first(key)
    if value is not None and len(value) != size:
        raise RemoteProtocolError(f"meta key {key} has {len(value)} bytes instead of {size}")
    return value


def _number(meta: Meta, key: int, size: int) -> int:
    return int.from_bytes(_sized(meta, key, size) or b"", "little")


def _take(buf: bytes, offset: int, size: int, what: str) -> bytes:
    """The bounds check of every reader here."""
    piece = buf[offset : offset + size]
    if len(piece) != size:
        raise RemoteProtocolError(f"document ends inside the {what} at offset {offset}")
    return bytes(piece)


# ------------------------------------------------------------------------------------------------------------------
# Text


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # only lone surrogates are replaced; UTF-8 has no bytes for them


def _cut(raw: bytes, size: int) -> bytes:
    """Cut UTF-8 to at most `size` bytes without leaving half a character."""
    if len(raw) <= size:
        return raw
    while size and raw[size] & 0xC0 == 0x80:
        size -= 1
    return raw[:size]


def cut_name(name: str) -> bytes:
    raw = _utf8(name)
    stem, dot, extension = raw.rpartition(b".")
    if len(raw) <= MAX_VALUE or not stem or len(extension) > MAX_EXTENSION:
        return _cut(raw, MAX_VALUE)
    return _cut(stem, MAX_VALUE - 1 - len(extension)) + dot + extension


# Controls of a Text section. Names and operand sizes are read off vector 06; every other control is skipped alone.
_TEXT_STYLE, _TABLE, _IMAGE = 0x11, 0x13, 0x16  # one operand byte: style id, style id, resource id
_LINK = 0x0E  # operands: one byte, length n, n bytes of target
_PARA_BREAK, _RS, _US = 0x0B, 0x1E, 0x1F
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f]")  # all below space but TAB and LF
_DEGRADED = {_US: b"\t", _RS: b"\n", _PARA_BREAK: b"\n\n"}


def extract_text(section: bytes, degraded: bool = False) -> str:
    """Reduce a Text section to plain text.

    section   bytes from STX on; STX and ETX may be missing, text after ETX is not looked at
    degraded  True keeps a trace of the layout: cells become TAB, rows LF, paragraph breaks an empty line
    returns   bytes >= 0x20, TAB and LF as UTF-8; operands of known controls are skipped, even past the end
    source    QMail wire G.2, CBDF vector 06
    """
    parts = []
    position = 0
    while found := _CONTROL.search(section, position):
        parts.append(section[position : found.start()])
        control = section[found.start()]
        position = found.end()
        if control == ETX:
            break
        if control in (_TEXT_STYLE, _TABLE, _IMAGE):
            position += 1
        elif control == _LINK:
            position += 2 + int.from_bytes(section[position + 1 : position + 2], "little")
        elif degraded:
            parts.append(_DEGRADED.get(control, b""))
    else:
        parts.append(section[position:])
    return _text(b"".join(parts))


def build_body(text: str) -> bytes:
    """Write a Phase I body object.

    text     CR LF and CR become LF; other controls but TAB are dropped, because a reader would take them as markup
    returns  the object of file type 1
    source   QMail wire G.2
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return PHASE1_HEAD + _CONTROL.sub(b"", _utf8(lines))


def parse_body(buf: bytes) -> str:
    """Read the plain text of a body object.

    buf      Phase I, Phase II, or bare text
    returns  text as `extract_text` gives it, layout traces kept
    raises   RemoteProtocolError if it starts as a CBDF body and is malformed
    source   QMail wire G.2
    """
    if buf[:1] != bytes((FS,)):
        return extract_text(buf, degraded=True)
    return extract_text(_text_section(buf, 0), degraded=True)


def _text_section(buf: bytes, base: int) -> bytes:
    """The Text of a body that starts at `base` of a document."""
    # Phase I and a Phase II styles length of 1C 02 .. .. start alike; exact lengths to the end tell them apart
    phase1 = buf[base : base + 3] == PHASE1_HEAD
    try:
        sections = list(_sections(buf, base))
    except RemoteProtocolError:
        if not phase1:
            raise
        sections = []
    if len(sections) > 1 and sections[1][:1] in (b"", bytes((STX,))):
        return sections[1]
    if phase1:
        return buf[base + 2 :]
    raise RemoteProtocolError(f"body at offset {base} has no plain text section")


def _sections(buf: bytes, offset: int) -> Iterator[bytes]:
    """Walk Phase II sections (styles, text, resources, logic), which must end where the buffer ends."""
    while offset < len(buf):
        if buf[offset] != FS:
            raise RemoteProtocolError(f"byte {buf[offset]:02x} instead of a section separator at offset {offset}")
        size = int.from_bytes(_take(buf, offset + 1, 4, "section length"), "little")
        yield _take(buf, offset + 5, size, "section")
        offset += 5 + size


# ------------------------------------------------------------------------------------------------------------------
# Whole documents


def split_document(buf: bytes) -> tuple[bytes, bytes]:
    """Cut a .qmail document into the two objects a mail stores.

    returns  the Meta object and the body object, together exactly the document; no body for a meta-only document
    raises   RemoteProtocolError if either is malformed
    source   QMail wire G.2
    """
    meta, end = parse_meta(buf)
    if end == len(buf) and meta.first(KEY_META_ONLY) == b"\x01":
        return bytes(buf), b""
    if buf[end : end + 1] != bytes((FS,)):
        raise RemoteProtocolError(f"no section separator after the meta pairs at offset {end}")
    _text_section(buf, end)
    return bytes(buf[:end]), bytes(buf[end:])


def join_document(meta: bytes, body: bytes) -> bytes:
    """The inverse of `split_document`; RemoteProtocolError if the objects do not make a document."""
    end = parse_meta(meta)[1]
    if end != len(meta):
        raise RemoteProtocolError(f"bytes after the meta pairs at offset {end}")
    document = bytes(meta) + bytes(body)
    split_document(document)
    return document


# ------------------------------------------------------------------------------------------------------------------
# Colours and resources

TRANSPARENT = {0x000C: 0.0, 0x000D: 0.2, 0x000E: 0.4, 0x000F: 0.6, 0x0010: 0.8}  # colour code -> alpha (CBDF 4.6)
_NEAREST_OPAQUE = 0x0011


def pack_color(rgb: tuple[int, int, int]) -> int:
    """Write an opaque colour as R5G6B5.

    rgb      8 bits each
    returns  16-bit code, stored little-endian; a colour that would read as transparency moves to the next blue
    raises   LocalProtocolError if a component is out of range
    source   CBDF vector 04
    """
    if not all(0 <= part <= 255 for part in rgb):
        raise LocalProtocolError(f"colour {rgb} is not 8-bit")
    red, green, blue = rgb
    code = red >> 3 << 11 | green >> 2 << 5 | blue >> 3
    return _NEAREST_OPAQUE if code in TRANSPARENT else code


def unpack_color(code: int) -> tuple[int, int, int]:
    """Read R5G6B5 as 8-bit red, green, blue.

    code     16 bits; transparency codes (`TRANSPARENT`) are the caller's to check first
    returns  top bits repeated below, so that full scale is 255
    raises   RemoteProtocolError if it does not fit 16 bits
    source   CBDF vector 04
    """
    if not 0 <= code <= 0xFFFF:
        raise RemoteProtocolError(f"colour code {code} does not fit 16 bits")
    red, green, blue = code >> 11, code >> 5 & 63, code & 31
    return red << 3 | red >> 2, green << 2 | green >> 4, blue << 3 | blue >> 2


class Resource(Struct, frozen=True):
    """One resource of a document."""

    id: int
    type: int  # 0 image/png
    data: bytes


_RESOURCE = struct.Struct("<BBI")


def parse_resources(section: bytes) -> tuple[Resource, ...]:
    """Read a Resources section after its length.

    section  packed records: id, type, u32 length, data
    raises   RemoteProtocolError if the last record is cut
    source   CBDF vector 05
    """
    records = []
    offset = 0
    while offset < len(section):
        ident, kind, size = _RESOURCE.unpack(_take(section, offset, _RESOURCE.size, "resource head"))
        records.append(Resource(ident, kind, _take(section, offset + _RESOURCE.size, size, "resource")))
        offset += _RESOURCE.size + size
    return tuple(records)


def build_resources(resources: Iterable[Resource]) -> bytes:
    """Write a Resources section without its length; LocalProtocolError if a field is out of range."""
    try:
        return b"".join(_RESOURCE.pack(item.id, item.type, len(item.data)) + item.data for item in resources)
    except struct.error as error:
        raise LocalProtocolError(f"resource out of range: {error}") from error
