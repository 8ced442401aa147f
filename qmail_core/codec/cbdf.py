"""CBDF documents, the little-endian world inside a mail: Meta pairs, bodies, whole documents.

Mails are written in Phase I (`[meta] 1C 1C 02 text`), which every client reads; Phase I and Phase II are read, and
`encode_document` writes Phase II. Every reader returns a value or raises RemoteProtocolError; texts, names and
addresses it returns come from a stranger and are not cleaned here. QMail wire part G, CBDF/1.0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from msgspec import Struct

from qmail_core.codec.address import from_mailbox_le, to_mailbox_le
from qmail_core.codec.cbdf_sections import (
    COMPRESS_LEAST,
    COMPRESS_NONE,
    COMPRESS_ZLIB,
    DIGEST_SHA256,
    MINIMAL_STYLES,
    Resource,
    build_resources,
    content_hash,
    deflate,
    inflate,
    parse_resources,
    take,
)
from qmail_core.codec.cbdf_text import CONTROL, FS, STX, build_text, check_text, extract_text, normal_lines
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
KEY_VERSION = 30  # absent in Phase I
KEY_COMPRESSION = 31
KEY_META_ONLY = 33
KEY_SUMMARY = 35
KEY_PREVIEW = 36
KEY_TIMESTAMP64 = 41
KEY_REQUIRED = 42  # feature bits whose absence a reader must mention
KEY_OPTIONAL = 43
KEY_CONTENT_HASH = 45
LOCAL_KEYS = range(200, 220)  # a receiver's own notes; never on the wire, dropped when they arrive

TYPE_QMAIL = 1
MAX_VALUE = 255
MAX_PAIRS = 0xFFFF
GUID_SIZE = 16
MAX_EXTENSION = 32  # bytes; a longer "extension" is only a name with a dot in it

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

    def number(self, key: int, size: int) -> int:
        """A value as an unsigned number of exactly `size` bytes; 0 if absent, RemoteProtocolError for another size."""
        return int.from_bytes(_sized(self, key, size) or b"", "little")

    @property
    def version(self) -> int:
        """0 for Phase I, 1 for Phase II (CBDF 4.2)."""
        return self.number(KEY_VERSION, 1)

    @property
    def compression(self) -> int:
        """How Styles and Text are compressed (CBDF 4.9)."""
        return self.number(KEY_COMPRESSION, 1)

    @property
    def only(self) -> bool:
        """Whether there are no sections behind the pairs."""
        return self.number(KEY_META_ONLY, 1) == 1

    def features(self, key: int) -> int:
        """The bits of KEY_REQUIRED or KEY_OPTIONAL; RemoteProtocolError if there are not 1 to 4 bytes of them."""
        value = self.first(key)
        if value is not None and not 1 <= len(value) <= 4:
            raise RemoteProtocolError(f"meta key {key} has {len(value)} bytes instead of 1 to 4")
        return int.from_bytes(value or b"", "little")

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
    count = int.from_bytes(take(buf, 0, 2, "pair count"), "little")
    offset = 2
    pairs = []
    for _ in range(count):
        key, size = take(buf, offset, 2, "pair head")
        pairs.append((key, take(buf, offset + 2, size, f"value of key {key}")))
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
    wide = meta.number(KEY_TIMESTAMP64, 8)
    return MailMeta(
        guid=_sized(meta, KEY_GUID, GUID_SIZE) or bytes(GUID_SIZE),
        subject=_text(meta.first(KEY_SUBJECT) or b""),
        sender=from_mailbox_le(sender),
        to=tuple(map(from_mailbox_le, meta.all(KEY_TO))),
        cc=tuple(map(from_mailbox_le, meta.all(KEY_CC))),
        timestamp=wide or meta.number(KEY_TIMESTAMP, 4),
        attachment_names=_names(meta),
        preview=_text(meta.first(KEY_PREVIEW) or b""),
    )


def _names(meta: Meta) -> tuple[str, ...]:
    names = [_text(value) for value in meta.all(KEY_ATTACHMENT_NAME)]
    names += [""] * (meta.number(KEY_ATTACHMENT_COUNT, 1) - len(names))
    return tuple(name or f"attachment-{position}.bin" for position, name in enumerate(names, 1))


def _sized(meta: Meta, key: int, size: int) -> bytes | None:
    value = meta.first(key)
    if value is not None and len(value) != size:
        raise RemoteProtocolError(f"meta key {key} has {len(value)} bytes instead of {size}")
    return value


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


def cut_text(text: str) -> str:
    """As much of a text as a value of the meta holds."""
    return _cut(_utf8(text), MAX_VALUE).decode()


def cut_name(name: str) -> bytes:
    raw = _utf8(name)
    stem, dot, extension = raw.rpartition(b".")
    if len(raw) <= MAX_VALUE or not stem or len(extension) > MAX_EXTENSION:
        return _cut(raw, MAX_VALUE)
    return _cut(stem, MAX_VALUE - 1 - len(extension)) + dot + extension


def build_body(text: str) -> bytes:
    """Write a Phase I body object.

    text     CR LF and CR become LF; other controls but TAB are dropped, because a reader would take them as markup
    returns  the object of file type 1
    source   QMail wire G.2
    """
    return PHASE1_HEAD + CONTROL.sub(b"", _utf8(normal_lines(text)))


def parse_body(buf: bytes, meta: Meta | None = None) -> str:
    """Read the plain text of a body object.

    buf      Phase I, Phase II, or bare text; nothing for a meta-only document
    meta     of the same mail: says the phase and the compression. Without it the phase is told by the bytes
    returns  text as `extract_text` gives it, layout traces kept
    raises   RemoteProtocolError if it starts as a CBDF body and is malformed
    source   QMail wire G.2
    """
    if buf[:1] != bytes((FS,)):
        return extract_text(buf, degraded=True, plain=True)
    version, compression = (None, COMPRESS_NONE) if meta is None else (meta.version, meta.compression)
    if version != 1 and _is_phase1(buf, version):
        return extract_text(buf[2:], degraded=True, plain=True)
    sections = list(_sections(buf, 0))
    text = _inflated(sections, compression)[1]
    if text[:1] not in (b"", bytes((STX,))):
        raise RemoteProtocolError("body at offset 0 has no plain text section")
    return extract_text(text, degraded=True)


def readable(meta: Meta) -> bool:
    """Whether this reader knows how the body is written; if not, only subject, summary and preview can be shown."""
    return meta.version <= 1 and meta.compression in (COMPRESS_NONE, COMPRESS_ZLIB)


def fallback_text(meta: Meta) -> str:
    """What to show of a document whose body this reader cannot show, or that has none. CBDF 4.2."""
    return next((_text(value) for key in (KEY_SUMMARY, KEY_PREVIEW) if (value := meta.first(key))), "")


def _is_phase1(buf: bytes, version: int | None) -> bool:
    """Phase I and a Phase II styles length of 1C 02 .. .. start alike; exact lengths to the end tell them apart."""
    if buf[:3] != PHASE1_HEAD:
        return False
    if version is not None:
        return True
    try:
        sections = list(_sections(buf, 0))
    except RemoteProtocolError:
        return True
    return len(sections) < 2 or sections[1][:1] not in (b"", bytes((STX,)))


_CORE = 4  # styles, text, resources, logic


def _sections(buf: bytes, offset: int) -> Iterator[bytes]:
    """Walk Phase II sections, which must end where the buffer ends; extensions behind the core are left out."""
    for position in itertools.count():
        if offset >= len(buf):
            return
        if buf[offset] != FS:
            raise RemoteProtocolError(f"byte {buf[offset]:02x} instead of a section separator at offset {offset}")
        offset += 2 if position >= _CORE else 1  # an extension has an id before its length (CBDF 4.10)
        size = int.from_bytes(take(buf, offset, 4, "section length"), "little")
        section = take(buf, offset + 4, size, "section")
        if position < _CORE:
            yield section
        offset += 4 + size


def _inflated(sections: list[bytes], compression: int) -> list[bytes]:
    """Styles, text, resources, logic; what is missing at the end is empty, styles and text must be there."""
    if compression == COMPRESS_ZLIB and sections:
        # the separator between styles and text is inside what is compressed (CBDF 4.9), and so are their lengths
        sections = [*_sections(bytes((FS,)) + inflate(sections[0]), 0), *sections[1:]]
    elif compression != COMPRESS_NONE:
        raise RemoteProtocolError(f"compression type {compression} is not known")
    if len(sections) < 2:
        raise RemoteProtocolError("body has no plain text section")
    return [*sections, b"", b""][:_CORE]


# ------------------------------------------------------------------------------------------------------------------
# Whole documents


def split_document(buf: bytes) -> tuple[bytes, bytes]:
    """Cut a .qmail document of either phase into the two objects a mail stores.

    returns  the Meta object and the body object, together exactly the document; no body for a meta-only document
    raises   RemoteProtocolError if either is malformed
    source   QMail wire G.2
    """
    meta, end = parse_meta(buf)
    if end == len(buf) and meta.only:
        return bytes(buf), b""
    if buf[end : end + 1] != bytes((FS,)):
        raise RemoteProtocolError(f"no section separator after the meta pairs at offset {end}")
    body = bytes(buf[end:])
    if readable(meta):
        parse_body(body, meta)
    return bytes(buf[:end]), body


def join_document(meta: bytes, body: bytes) -> bytes:
    """The inverse of `split_document`; RemoteProtocolError if the objects do not make a document."""
    end = parse_meta(meta)[1]
    if end != len(meta):
        raise RemoteProtocolError(f"bytes after the meta pairs at offset {end}")
    document = bytes(meta) + bytes(body)
    split_document(document)
    return document


class Document(Struct, frozen=True, kw_only=True):
    """A whole document, uncompressed."""

    meta: Meta  # without the pairs that say how it is written: version, compression, meta-only, content hash
    styles: bytes = MINIMAL_STYLES  # u16 layout, then sub-tables; nothing in Phase I
    text: bytes | None = None  # from STX to ETX (`cbdf_text.build_text`); None for a meta-only document
    resources: tuple[Resource, ...] = ()

    @property
    def layout(self) -> int:
        """The page layout."""
        return int.from_bytes(self.styles[:2], "little")


_WRITTEN = (KEY_VERSION, KEY_COMPRESSION, KEY_META_ONLY, KEY_CONTENT_HASH)
_NOT_IN_META_ONLY = (32, 37, 40, KEY_REQUIRED, KEY_OPTIONAL)


def encode_document(document: Document, *, compress: bool = False, digest: bool = False) -> bytes:
    """Write a Phase II or a meta-only document in its one canonical form.

    compress   zlib over styles and text, if that is useful and no reader would take it for an attack
    digest     add a SHA-256 over the three sections
    raises     LocalProtocolError if a part is out of range or `check_text` would refuse the text
    source     CBDF 4.1, 4.9
    """
    pairs = [pair for pair in document.meta.without_local().pairs if pair[0] not in _WRITTEN]
    if document.text is None:
        pairs = [pair for pair in pairs if pair[0] not in _NOT_IN_META_ONLY]
        return build_meta([*pairs, (KEY_VERSION, b"\1"), (KEY_META_ONLY, b"\1")])
    try:
        check_text(document.text)
    except RemoteProtocolError as error:
        raise LocalProtocolError(error.message) from None
    styles, text, resources = document.styles, document.text, build_resources(document.resources)
    pairs.append((KEY_VERSION, b"\1"))
    if digest:
        pairs.append((KEY_CONTENT_HASH, content_hash(DIGEST_SHA256, styles, text, resources)))
    inner = _section(styles) + _section(text)
    if compress and len(styles) + len(text) >= COMPRESS_LEAST and (packed := deflate(inner[1:])):
        pairs.append((KEY_COMPRESSION, bytes((COMPRESS_ZLIB,))))
        inner = _section(packed)
    return build_meta(pairs) + inner + _section(resources) + _section(b"")


def decode_document(buf: bytes) -> Document:
    """Read a whole document of either phase, strictly.

    returns  its parts; receiver-local pairs are dropped
    raises   RemoteProtocolError if anything is malformed, executable (a Logic section), or written in a way this
             reader does not know (`readable`)
    source   CBDF 4, QMail wire part G
    """
    meta, end = parse_meta(buf)
    if not readable(meta):
        raise RemoteProtocolError(f"version {meta.version} with compression {meta.compression} is not known")
    kept = Meta(tuple(pair for pair in meta.without_local().pairs if pair[0] not in _WRITTEN))
    if end == len(buf) and meta.only:
        return Document(meta=kept)
    split_document(buf)
    if meta.version == 0:
        if buf[end : end + 3] != PHASE1_HEAD:
            raise RemoteProtocolError(f"a Phase I document has no text at offset {end}")
        text = extract_text(buf[end + 2 :], plain=True)
        return Document(meta=kept, styles=b"", text=build_text([text]))
    styles, text_section, raw, logic = _inflated(list(_sections(buf, end)), meta.compression)
    if logic:
        raise RemoteProtocolError("the document has a Logic section")
    check_text(text_section)
    expected = meta.first(KEY_CONTENT_HASH)
    if expected is not None and expected != content_hash(int.from_bytes(expected[:1]), styles, text_section, raw):
        raise RemoteProtocolError("content hash does not match")
    return Document(meta=kept, styles=styles, text=text_section, resources=parse_resources(raw))


def _section(payload: bytes) -> bytes:
    return bytes((FS,)) + len(payload).to_bytes(4, "little") + payload
