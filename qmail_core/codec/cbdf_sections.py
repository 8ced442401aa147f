"""What stands in the other sections of a CBDF document: colours, resources, compressed sections, content digests."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable

from msgspec import Struct

from qmail_core.errors import LocalProtocolError, RemoteProtocolError

COMPRESS_NONE = 0
COMPRESS_ZLIB = 1  # the only other one a reader must know (CBDF 4.9)
COMPRESS_LEAST = 256  # bytes of styles and text below which a writer does not compress
MAX_INFLATED = 8 << 20  # bytes of styles and text together
_FREE_INFLATED = 1 << 16  # up to here no ratio is looked at: little text compresses well
_MAX_RATIO = 100

# layout 0 and twelve empty sub-tables: the least a Styles section can be (CBDF vector 03)
MINIMAL_STYLES = bytes(2) + b"\x1d" * 12


def take(buf: bytes, offset: int, size: int, what: str) -> bytes:
    """The bounds check of every reader here."""
    piece = buf[offset : offset + size]
    if len(piece) != size:
        raise RemoteProtocolError(f"document ends inside the {what} at offset {offset}")
    return bytes(piece)


# ------------------------------------------------------------------------------------------------------------------
# Compression


def inflate(raw: bytes) -> bytes:
    """Undo zlib within bounds of size and ratio.

    raises   RemoteProtocolError for anything but one whole stream, and for more than a text has reason to be
    source   CBDF 4.9, 5
    """
    limit = _limit(raw)
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(raw, limit + 1)
    except zlib.error:
        raise RemoteProtocolError("compressed sections are damaged") from None
    if len(plain) > limit:
        raise RemoteProtocolError(f"compressed sections of {len(raw)} bytes hold more than {limit}")
    if not stream.eof or stream.unused_data:
        raise RemoteProtocolError("compressed sections are cut or followed by other bytes")
    return plain


def deflate(plain: bytes) -> bytes | None:
    """Compress; None if `inflate` would refuse the result or it is no shorter."""
    raw = zlib.compress(plain, 9)
    return raw if len(raw) < len(plain) <= _limit(raw) else None


def _limit(raw: bytes) -> int:
    return min(MAX_INFLATED, max(_FREE_INFLATED, _MAX_RATIO * len(raw)))


# ------------------------------------------------------------------------------------------------------------------
# Content digests (CBDF 4.3.5)

_DIGESTS = {1: ("md5", 16), 2: ("sha256", 32)}
DIGEST_SHA256 = 2


def content_hash(algorithm: int, styles: bytes, text: bytes, resources: bytes) -> bytes:
    """The value of the key "content hash": algorithm and digest over the three sections, uncompressed.

    raises   RemoteProtocolError for an unknown algorithm
    source   CBDF 4.3.5
    """
    if algorithm not in _DIGESTS:
        raise RemoteProtocolError(f"content hash has the unknown algorithm {algorithm}")
    parts = (_counted(styles), b"\x1c", _counted(text), _counted(resources))
    return bytes((algorithm,)) + hashlib.new(_DIGESTS[algorithm][0], b"".join(parts), usedforsecurity=False).digest()


def _counted(section: bytes) -> bytes:
    return len(section).to_bytes(4, "little") + section


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
        ident, kind, size = _RESOURCE.unpack(take(section, offset, _RESOURCE.size, "resource head"))
        records.append(Resource(ident, kind, take(section, offset + _RESOURCE.size, size, "resource")))
        offset += _RESOURCE.size + size
    return tuple(records)


def build_resources(resources: Iterable[Resource]) -> bytes:
    """Write a Resources section without its length; LocalProtocolError if a field is out of range."""
    try:
        return b"".join(_RESOURCE.pack(item.id, item.type, len(item.data)) + item.data for item in resources)
    except struct.error as error:
        raise LocalProtocolError(f"resource out of range: {error}") from error
